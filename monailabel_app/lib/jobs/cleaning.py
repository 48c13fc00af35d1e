"""What is deleted of jobs that ended: uploads at once, pictures after a while, the chain never."""

from __future__ import annotations

import logging
import shutil
import time

from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.errors import NotFound
from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.jobs.states import WAITING, JobState
from monailabel_app.lib.jobs.store import JobStore
from monailabel_app.lib.settings import ServerSettings
from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.audit import Event, continued_log
from privdiff_infer.errors import PrivDiffError
from privdiff_infer.journal import Journal
from privdiff_infer.records import write_records
from privdiff_infer.release import OutputFolders, reporting_disk_errors

logger = logging.getLogger(__name__)

SECONDS_A_DAY = 86_400
SECONDS_BETWEEN_LOOKS = 600
STRAY_SECONDS = SECONDS_A_DAY
"""After which an upload without a job belongs to a request that never ended."""

EXPIRING = frozenset({JobState.REJECTED, JobState.FAILED, JobState.CANCELLED, JobState.PUBLISHED})


class Cleaner:
    """Cleans a state folder now and then.

    Parameters
    ----------
    settings
        Say after how many days.
    jobs
        The queue.
    audit
        Is told which jobs expired.
    """

    def __init__(self, settings: ServerSettings, jobs: JobStore, audit: ServerAudit) -> None:
        self._keep_seconds = settings.keep_days * SECONDS_A_DAY
        self._folder = StateFolder(settings.state)
        self._jobs, self._audit = jobs, audit
        self._next = 0.0

    def look(self) -> None:
        """Clean, if it is time to."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS_BETWEEN_LOOKS
        self._delete_uploads()
        self._expire(time.time())

    def _delete_uploads(self) -> None:
        """Delete originals that a killed dispatcher, or a broken request, left behind."""
        for upload in self._folder.uploads.iterdir():
            try:
                needed = self._jobs.get(upload.name).state in WAITING
            except NotFound:
                needed = upload.stat().st_mtime > time.time() - STRAY_SECONDS
            if not needed:
                upload.unlink(missing_ok=True)

    def _expire(self, now: float) -> None:
        for job in self._jobs.to_clean(EXPIRING, now - self._keep_seconds):
            try:
                self._clean(job)
                self._audit.record(Event.JOB_EXPIRED, job=job.id)
            except PrivDiffError as error:
                logger.error("job %s cannot be cleaned: %s", job.id, type(error).__name__)
                continue
            self._jobs.set(job.id, cleaned=now)

    def _clean(self, job: Job) -> None:
        folders = self._folder.job(job.id)
        if job.state is JobState.CANCELLED:
            shutil.rmtree(folders.root, ignore_errors=True)
        elif folders.audit.is_file():
            delete_pictures(folders, results=job.state is not JobState.PUBLISHED)


def delete_pictures(folders: OutputFolders, *, results: bool) -> None:
    """Delete what shows a person, then results, so that `privdiff verify` still holds.

    Pictures of originals are sealed by nothing. A result is an entry of the chain: it is withdrawn
    there, and the records are written and sealed anew.

    Parameters
    ----------
    folders
        Of the run.
    results
        Whether results go too; what was published is the file of record and stays.

    Raises
    ------
    OutputError
        If something cannot be deleted, or a command works in the folder.
    AuditError
        If the chain was changed; the pictures are gone all the same.
    """
    with reporting_disk_errors():
        for picture in folders.review.glob("*"):
            picture.unlink()
        if not results:
            return
        for folder in (folders.held, folders.images, folders.previews):
            for result in folder.glob("*"):
                result.unlink()
    with continued_log(folders) as log:
        journal = Journal(folders, log)
        journal.settle([])
        write_records(folders, journal.outcomes, log)
