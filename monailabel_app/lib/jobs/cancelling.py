"""Cancelling: the row at once, what there is of the job as soon as nobody works on it."""

from __future__ import annotations

import shutil
import time

from monailabel_app.lib.errors import Conflict
from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.jobs.states import JobState
from monailabel_app.lib.server import Server
from privdiff_infer.audit import Event


def cancel(at: Server, job_id: str, by: str) -> Job:
    """Cancel a job that waits or runs, and keep nothing of it.

    Of a running one its dispatcher deletes the folder: it finds out by itself.

    Parameters
    ----------
    at
        Server of the job.
    job_id
        Of the job.
    by
        Name of the principal.

    Raises
    ------
    NotFound
        If there is no such job.
    Conflict
        If it has ended.
    """
    try:
        cancelled = at.jobs.move(
            job_id, JobState.CANCELLED, start=[JobState.QUEUED], finished=time.time()
        )
    except Conflict:
        cancelled = at.jobs.cancel(job_id)
    else:  # it may have been begun before, and no thread works on it now
        shutil.rmtree(at.folder.job(job_id).root, ignore_errors=True)
    at.folder.upload(job_id).unlink(missing_ok=True)
    at.audit.record(Event.JOB_CANCELLED, job=job_id, by=by)
    return cancelled
