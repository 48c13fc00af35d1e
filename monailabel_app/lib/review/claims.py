"""Who works on which job: for a while, and one at a time.

A claim is two columns of the queue that change in one statement, so of two reviewers who want the
same job one gets it. It ends by itself; claiming again renews it.
"""

from __future__ import annotations

import logging
import time

from monailabel_app.lib.errors import Busy, Conflict, NotFound
from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.jobs.states import DECIDABLE, JobState
from monailabel_app.lib.review.reconcile import reconcile
from monailabel_app.lib.security.roles import Principal
from monailabel_app.lib.server import Server
from privdiff_infer.audit import Event

logger = logging.getLogger(__name__)

NOBODY = {"claimed_by": "", "claimed_until": 0.0}

UNDECIDED = frozenset({JobState.AWAITING_REVIEW, JobState.HELD})


def claim(server: Server, who: Principal, job_id: str) -> Job:
    """Take a job for a reviewer, or renew their claim.

    Raises
    ------
    NotFound
        If there is no such job.
    Conflict
        If another reviewer has it, or nothing can be decided of it.
    Busy
        If another request works in its folder.
    """
    job, _ = reconcile(server, server.jobs.get(job_id))
    return _taken(server, who, job)


def claim_next(server: Server, who: Principal, after: str = "") -> Job:
    """Take the oldest job that awaits this reviewer and no other one has.

    A job that they have already comes again, so that a page that was reloaded goes on with it.

    Parameters
    ----------
    server
        With the queue.
    who
        The reviewer.
    after
        Id of the job after which to look; empty: from the start.

    Raises
    ------
    NotFound
        If there is none.
    """
    sequence = server.jobs.get(after).sequence if after else 0
    chosen = server.settings
    while job := server.jobs.claim_next(
        who.name, chosen.claim_seconds, after=sequence, two_person=chosen.two_person
    ):
        sequence = job.sequence
        try:
            job, _ = reconcile(server, job)
        except (Conflict, Busy) as error:
            logger.warning("job %s cannot be reviewed: %s", job.id, error.problem)
        else:
            if job.state is JobState.AWAITING_REVIEW:
                server.audit.record(Event.CLAIMED, job=job.id, by=who.name, sha256=job.sha256)
                return job
        server.jobs.set(job.id, where={"claimed_by": who.name}, **NOBODY)
    raise NotFound("no further job awaits your review", "look again when more are redrawn")


def give_back(server: Server, who: Principal, job_id: str) -> Job:
    """End a claim; where nobody has the job, it stays as it is.

    Raises
    ------
    NotFound
        If there is no such job.
    Conflict
        If another reviewer has it.
    """
    job = server.jobs.get(job_id)
    if job.is_claimed_by_other(who.name, time.time()):
        raise _other(job)
    if job.claimed_by != who.name:
        return job
    job = server.jobs.set(job_id, where={"claimed_by": who.name}, **NOBODY)
    server.audit.record(Event.CLAIM_ENDED, job=job.id, by=who.name)
    return job


def hold_for_decision(server: Server, who: Principal, job: Job) -> None:
    """Make sure that a reviewer may decide on a job now, and that nobody else does.

    What nobody has and nobody decided can be decided without a claim; changing a decision needs
    one, so that nobody overrules another one unseen.

    Raises
    ------
    Conflict
        If their claim has ended, another reviewer has the job, or a claim is needed.
    """
    if job.claimed_by == who.name and job.claimed_until <= time.time():
        raise Conflict(
            "your claim on this job has ended", "claim it again, and look again before deciding"
        )
    if job.claimed_by != who.name and job.state not in UNDECIDED:
        _check_free(job, who)
        raise Conflict(
            f"this job is {job.state.value} already", "claim it first to change the decision"
        )
    _taken(server, who, job)


def _taken(server: Server, who: Principal, job: Job) -> Job:
    taken = server.jobs.claim(job.id, who.name, server.settings.claim_seconds)
    if taken is None:
        found = server.jobs.get(job.id)
        _check_free(found, who)
        raise Conflict(
            f"this job is {found.state.value}, and nothing can be decided of it any more",
            "go on with the next one",
        )
    if job.claimed_by != who.name or job.claimed_until <= time.time():  # not a renewal
        server.audit.record(Event.CLAIMED, job=job.id, by=who.name, sha256=job.sha256)
    return taken


def _check_free(job: Job, who: Principal) -> None:
    if job.state in DECIDABLE and job.is_claimed_by_other(who.name, time.time()):
        raise _other(job)


def _other(job: Job) -> Conflict:
    return Conflict(
        f"{job.claimed_by} works on this job", "take another one, or wait until their claim ends"
    )
