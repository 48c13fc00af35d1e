"""What is deleted of jobs that ended: uploads at once, pictures after a while, the chain never."""

from __future__ import annotations

import logging
import shutil
import time
from datetime import datetime
from pathlib import Path

from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.errors import NotFound
from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.jobs.states import WAITING, JobState
from monailabel_app.lib.jobs.store import JobStore
from monailabel_app.lib.settings import ServerSettings
from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.audit import AuditLog, Event, continued_log
from privdiff_infer.errors import AuditError, PrivDiffError
from privdiff_infer.journal import Journal
from privdiff_infer.records import write_records
from privdiff_infer.release import OutputFolders, reporting_disk_errors
from privdiff_infer.result_states import decisions_of

logger = logging.getLogger(__name__)

SECONDS_A_DAY = 86_400
SECONDS_BETWEEN_LOOKS = 600
STRAY_SECONDS = SECONDS_A_DAY
"""After which an upload without a job belongs to a request that never ended."""

JOBS_AT_ONCE = 100
"""In one look, for nothing else is done meanwhile."""

WANTED = frozenset({JobState.APPROVED, JobState.PUBLISHED})
"""Their results stay; what they were made from goes all the same."""

EXPIRING = WANTED | {JobState.HELD, JobState.REJECTED, JobState.FAILED, JobState.CANCELLED}


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
        self._after = 0  # sequence of the last job of the look before, if there were more

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
                needed = _is_young(upload)
            if not needed:
                upload.unlink(missing_ok=True)

    def _expire(self, now: float) -> None:
        """Clean some of what is old; those that cannot be cleaned hold up no others."""
        before = now - self._keep_seconds
        old = self._jobs.to_clean(EXPIRING, before, after=self._after, limit=JOBS_AT_ONCE)
        self._after = old[-1].sequence if len(old) == JOBS_AT_ONCE else 0
        for job in old:
            try:
                if self._clean(job):
                    self._audit.record(Event.JOB_EXPIRED, job=job.id)
                    self._jobs.set(job.id, cleaned=now)
            except (PrivDiffError, OSError) as error:
                logger.error("job %s cannot be cleaned: %s", job.id, type(error).__name__)

    def _clean(self, job: Job) -> bool:
        """Clean one job; tell whether it still was to be cleaned."""
        folders = self._folder.job(job.id)
        if job.state is JobState.CANCELLED:
            shutil.rmtree(folders.root, ignore_errors=True)
            return True
        if not folders.audit.is_file():
            return True
        try:
            with continued_log(folders) as log:
                if _was_decided_anew(job, log) or self._jobs.get(job.id).state is not job.state:
                    return False
                delete_pictures(folders, log, results=job.state not in WANTED)
        except AuditError:
            _delete_originals(folders)  # whoever changed the chain, they are sealed by nothing
            raise
        return True


def _is_young(upload: Path) -> bool:
    """Tell whether an upload may still be on its way; one that went meanwhile is not."""
    try:
        return upload.stat().st_mtime > time.time() - STRAY_SECONDS
    except FileNotFoundError:
        return False


def _was_decided_anew(job: Job, log: AuditLog) -> bool:
    """Tell whether the chain of a job knows a decision that its row does not follow yet."""
    decision = decisions_of(log.entries).get(job.output)
    if decision is None or not decision.time:
        return False
    return datetime.fromisoformat(decision.time).timestamp() > job.decided


def delete_pictures(folders: OutputFolders, log: AuditLog, *, results: bool) -> None:
    """Delete what shows a person, then results, so that `privdiff verify` still holds.

    Pictures of originals are sealed by nothing. A result is an entry of the chain: it is withdrawn
    there, and the records are written and sealed anew.

    Parameters
    ----------
    folders
        Of the run.
    log
        Of the run, held: nobody decides on a result meanwhile.
    results
        Whether results go too; what was approved or published is the file of record and stays.

    Raises
    ------
    OutputError
        If something cannot be deleted.
    """
    _delete_originals(folders)
    if not results:
        return
    with reporting_disk_errors():
        for folder in (folders.held, folders.images, folders.previews):
            for result in folder.glob("*"):
                result.unlink()
    journal = Journal(folders, log)
    journal.settle([])
    write_records(folders, journal.outcomes, log)


def _delete_originals(folders: OutputFolders) -> None:
    with reporting_disk_errors():
        for picture in folders.review.glob("*"):
            picture.unlink()
