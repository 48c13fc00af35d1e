"""The row of a job follows what the audit log of its folder says.

What people decided, and what left, stands in the folder alone; the row repeats it for lists. A
server that stops between the two is repaired by whoever asks for the job next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from monailabel_app.lib.errors import Busy, Conflict
from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.jobs.states import DECIDABLE, JobState
from monailabel_app.lib.review.approvals import approvers
from monailabel_app.lib.server import Server
from privdiff_infer.audit import Event, continued_log
from privdiff_infer.errors import AuditError, OutputError, SecretError
from privdiff_infer.journal import Journal
from privdiff_infer.records import write_records
from privdiff_infer.release import OutputFolders, Review, is_released
from privdiff_infer.result_states import Decision, decisions_of

OF_REVIEW = {
    Review.PENDING: JobState.AWAITING_REVIEW,
    Review.APPROVED: JobState.APPROVED,
    Review.REJECTED: JobState.REJECTED,
    Review.PUBLISHED: JobState.PUBLISHED,
}
"""What a decision makes of a job whose result passed the gates."""

TOLD = {
    Review.PENDING: Event.APPROVED_FIRST,
    Review.APPROVED: Event.APPROVED,
    Review.REJECTED: Event.REJECTED,
    Review.PUBLISHED: Event.APPROVED,
}
"""What a person decided, by what became of it."""


@contextmanager
def explaining_records() -> Iterator[None]:
    """Turn what can be wrong with the folder of a job into answers that name no file."""
    try:
        yield
    except AuditError as error:
        raise Conflict(
            "what is recorded of this job was changed, so nothing may build on it",
            "ask the administrator to run privdiff verify on its folder",
        ) from error
    except SecretError as error:
        raise Conflict(
            "the server lacks a key that this job was made with",
            "ask the administrator to restore it",
        ) from error
    except OutputError as error:
        raise Busy(
            "the record of this job cannot be written now",
            "try again in a few seconds; if it stays so, ask the administrator to look at the disk",
        ) from error


def with_result(job: Job) -> Job:
    """Return a job that has bytes to decide on.

    Raises
    ------
    Conflict
        If it has none.
    """
    if job.state in DECIDABLE | {JobState.PUBLISHED} and job.output:
        return job
    if job.state is JobState.HELD:
        raise Conflict(
            f"this image was held before it was redrawn: {job.reason}",
            "there is nothing to decide; queue it again with other options if that helps",
        )
    raise Conflict(
        f"this job is {job.state.value} and has no result", "decide when it awaits review"
    )


def recorded_decision(server: Server, job: Job) -> Decision:
    """Return what the folder of a job says of its result; finish records that a stop left open.

    Raises
    ------
    Conflict
        If the folder holds no such result, or was changed.
    Busy
        If another request works in it.
    """
    folders = server.folder.job(job.id)
    if not folders.audit.is_file():
        raise Conflict(
            "the pictures of this job are gone", "they are deleted after some days; queue it again"
        )
    with explaining_records():
        found = _decisions(folders).get(job.output)
    if found is None:
        raise Conflict("the result of this job was withdrawn", "queue the image again")
    return found


def reconcile(server: Server, job: Job, publisher: str = "") -> tuple[Job, Decision]:
    """Bring the row of a job with a result to what its folder says; return both.

    The server's own chain is told first, so that no row says what no entry tells; a stop between
    the two repeats the entry.

    Parameters
    ----------
    server
        With queue and chain.
    job
        As it was read.
    publisher
        Who published it just now.

    Raises
    ------
    Conflict
        If the job has no result, or its folder was changed.
    Busy
        If another request works in its folder.
    """
    decision = recorded_decision(server, with_result(job))
    state = _state(job, decision)
    values = _columns(decision, approvers(server.settings, job, decision))
    if job.state is JobState.PUBLISHED or _agrees(job, state, values):
        return job, decision
    if decision.time and job.decided != values["decided"]:
        server.audit.record(
            TOLD[decision.state], job=job.id, by=decision.reviewer, sha256=decision.sha256
        )
    if state is JobState.PUBLISHED:
        server.audit.record(Event.PUBLISHED, job=job.id, by=publisher, sha256=decision.sha256)
        job = _follow(server, job, JobState.APPROVED, values)
        values["published"] = time.time()
    return _follow(server, job, state, values), decision


def _decisions(folders: OutputFolders) -> dict[str, Decision]:
    with continued_log(folders) as log:
        if log.last and log.last.event is not Event.SEALED:
            write_records(folders, Journal(folders, log).outcomes, log)
        return decisions_of(log.entries)


def _state(job: Job, decision: Decision) -> JobState:
    if decision.state is Review.PENDING and not is_released(job.output):
        return JobState.HELD
    return OF_REVIEW[decision.state]


def _columns(decision: Decision, counted: tuple[str, ...]) -> dict[str, Any]:
    """Return the columns that repeat a decision."""
    decided = datetime.fromisoformat(decision.time).timestamp() if decision.time else 0.0
    return {
        "sha256": decision.sha256,
        "first_approver": counted[0] if counted else "",
        "decided_by": "" if decision.state is Review.PENDING else decision.reviewer,
        "decided": decided,
        "comment": decision.comment,
    }


def _agrees(job: Job, state: JobState, values: Mapping[str, Any]) -> bool:
    return job.state is state and all(getattr(job, name) == value for name, value in values.items())


def _follow(server: Server, job: Job, state: JobState, values: Mapping[str, Any]) -> Job:
    try:
        if job.state is state:
            return server.jobs.set(job.id, where={"state": state.value}, **values)
        return server.jobs.move(job.id, state, start=(job.state,), **values)
    except Conflict:
        found = server.jobs.get(job.id)
        if not _agrees(found, state, values):
            raise
        return found  # another request was faster
