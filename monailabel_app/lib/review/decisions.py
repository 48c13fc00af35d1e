"""What reviewers decide: an entry in the log of the job's folder first, then all that follows it.

A decision holds for the bytes that were shown: their SHA-256 comes with it and must be that of the
file that is there. Where two people must approve, they are two different ones, and neither is who
queued the image; either can reject it alone.
"""

from __future__ import annotations

from enum import Enum

from monailabel_app.lib.errors import Conflict
from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.jobs.states import JobState
from monailabel_app.lib.review.approvals import approvers, people_needed
from monailabel_app.lib.review.claims import hold_for_decision
from monailabel_app.lib.review.reconcile import explaining_records, reconcile
from monailabel_app.lib.security.roles import Principal
from monailabel_app.lib.server import Server
from privdiff_infer.audit import file_digest
from privdiff_infer.errors import OptionError
from privdiff_infer.release import Review, is_released
from privdiff_infer.result_states import Decision
from privdiff_infer.review import record


class Verdict(str, Enum):
    """What a person can say of an image."""

    APPROVED = "approved"
    REJECTED = "rejected"


def decide(
    server: Server, who: Principal, job_id: str, verdict: Verdict, sha256: str, comment: str = ""
) -> Job:
    """Record a decision and return the job; repeating it is harmless.

    Parameters
    ----------
    server
        With queue and folders.
    who
        The reviewer.
    job_id
        Of the job.
    verdict
        What they say.
    sha256
        Of the bytes that they saw.
    comment
        In their words; private.

    Raises
    ------
    NotFound
        If there is no such job.
    Conflict
        If its state, its claim, its bytes or who asks do not allow it.
    Busy
        If another request works in its folder.
    """
    job, before = reconcile(server, server.jobs.get(job_id))
    if _is_repeated(before, who, verdict, sha256, comment):
        return job
    _check(server, who, job, verdict, before)
    _check_shown(server, job, sha256, before)
    hold_for_decision(server, who, job)
    not_counted = set(before.approvers).difference(approvers(server.settings, job, before))
    with explaining_records():
        try:
            record(
                server.folder.job(job.id).root,
                [job.output],
                Review(verdict.value),
                who.name,
                comment,
                shown={job.output: sha256},
                people=people_needed(server.settings) + len(not_counted),
            )
        except OptionError as error:  # decided or redrawn since it was read
            raise Conflict(
                "this image changed while you decided", "load it again before deciding"
            ) from error
    return _finish(server, who, job_id)


def _finish(server: Server, who: Principal, job_id: str) -> Job:
    job, _ = reconcile(server, server.jobs.get(job_id))
    if job.claimed_by != who.name:
        return job
    return server.jobs.set(job_id, where={"claimed_by": who.name}, claimed_by="", claimed_until=0.0)


def _is_repeated(
    before: Decision, who: Principal, verdict: Verdict, sha256: str, comment: str
) -> bool:
    """Tell whether the last decision is this one, whose answer may have been lost on its way."""
    if (before.reviewer, before.sha256, before.comment) != (who.name, sha256, comment):
        return False
    if before.state is Review.PENDING:
        return verdict is Verdict.APPROVED
    return before.state.value == verdict.value


def _check(server: Server, who: Principal, job: Job, verdict: Verdict, before: Decision) -> None:
    if job.state is JobState.PUBLISHED:
        raise Conflict(
            "this image was published and cannot be taken back", "withdraw it from the store"
        )
    if verdict is Verdict.REJECTED:
        return
    if not is_released(job.output):
        raise Conflict(
            f"this image is held and cannot be approved: {job.reason}",
            "reject it, or queue it again with other options",
        )
    if not server.settings.two_person:
        return
    if job.submitter == who.name:
        raise Conflict(
            "who queued an image cannot be one of the two who approve it",
            "leave it to two other reviewers; you can reject it",
        )
    if who.name in before.approvers:
        raise Conflict("you approved this image already", "a second person must approve it too")


def _check_shown(server: Server, job: Job, sha256: str, before: Decision) -> None:
    there = file_digest(server.folder.job(job.id).root / job.output)
    if there != before.sha256:
        raise Conflict(
            "the file of this job is not the one that was written",
            "ask the administrator to run privdiff verify on its folder",
        )
    if there != sha256:
        raise Conflict(
            "the image is not the one that was shown to you",
            "load it again, and look again before deciding",
        )
