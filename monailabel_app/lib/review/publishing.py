"""Approved images to the server's store, and reports of clients that sent one themselves.

What leaves is what the log of the job's folder calls approved, read and compared once more as it
leaves; the row of the queue is not asked. Stores can be slow, so sending has threads of its own and
an end.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from monailabel_app.lib.errors import Conflict
from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.review.approvals import approvers, people_needed
from monailabel_app.lib.review.reconcile import explaining_records, reconcile
from monailabel_app.lib.security.roles import Principal
from monailabel_app.lib.server import Server
from privdiff_infer.audit import Event
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.dicom.web import open_store, store_url
from privdiff_infer.errors import OptionError, PublishError
from privdiff_infer.publish import DeliveryState, Publication, publication
from privdiff_infer.published_ledger import PublishedLedger
from privdiff_infer.release import Review
from privdiff_infer.result_states import Decision

PUBLISH_SECONDS = 120.0
"""How long a request waits for the store; sending goes on afterwards."""

SENDERS = ThreadPoolExecutor(4, thread_name_prefix="publish")
"""Not the threads that answer requests: a store that hangs must not take these."""

UID = re.compile(r"\d+(?:\.\d+){3,}")

ANSWERS = {
    DeliveryState.PUBLISHED: "the store has taken it",
    DeliveryState.ALREADY_THERE: "the store has it already",
}


class NotDelivered(Conflict):
    """The store does not have the image, as far as one can tell; nothing has changed."""

    code = "not_delivered"


async def publish(server: Server, who: Principal, job_id: str) -> tuple[Job, str]:
    """Bring an approved image into the server's store; return the job and the store's answer.

    Repeating it is harmless: the store is asked before anything is sent.

    Raises
    ------
    NotFound
        If there is no such job.
    Conflict
        If it is not approved, or there is no store.
    NotDelivered
        If the store cannot be reached, refuses, or does not answer in time.
    Busy
        If another request works in its folder.
    """
    loop = asyncio.get_running_loop()
    sending = loop.run_in_executor(SENDERS, partial(deliver, server, who, job_id))
    try:
        return await asyncio.wait_for(asyncio.shield(sending), PUBLISH_SECONDS)
    except asyncio.TimeoutError:
        raise NotDelivered(
            f"the store has not answered within {PUBLISH_SECONDS:.0f} s",
            "sending goes on; read the state of the job in a while, and publish again if needed",
        ) from None


def deliver(server: Server, who: Principal, job_id: str) -> tuple[Job, str]:
    """Do what `publish` does, in this thread."""
    if not server.settings.store:
        raise Conflict(
            "this server has no store to publish to", "ask the administrator to name one (--store)"
        )
    job, decision = reconcile(server, server.jobs.get(job_id))
    _check_approved(server, job, decision)
    with _publication(server, job, server.settings.store) as run:
        _check_listed(run, job)
        delivery = run.deliver(job.output)
    if delivery.state is DeliveryState.FAILED:
        server.audit.record(Event.PUBLISH_FAILED, job=job.id, by=who.name, sha256=decision.sha256)
        raise NotDelivered(f"the image was not published: {delivery.note}", "then publish it again")
    job, _ = reconcile(server, server.jobs.get(job_id), publisher=who.name)
    return job, f"{ANSWERS[delivery.state]} {delivery.note}".strip()


def report(
    server: Server, who: Principal, job_id: str, sha256: str, store: str, answer: str = ""
) -> Job:
    """Record that a client sent the approved bytes to a store itself, and return the job.

    Parameters
    ----------
    server
        With queue and folders.
    who
        Who sent them.
    job_id
        Of the job.
    sha256
        Of the bytes that were sent.
    store
        URL of the DICOMweb service.
    answer
        What it said; UIDs in it are left out.

    Raises
    ------
    NotFound
        If there is no such job.
    Conflict
        If it is not approved, these are not the approved bytes, or another version of the same
        source is out already.
    Busy
        If another request works in its folder.
    """
    job, decision = reconcile(server, server.jobs.get(job_id))
    _check_approved(server, job, decision)
    if sha256 != decision.sha256:
        raise Conflict(
            "what was sent is not what was approved", "withdraw it from the store it was sent to"
        )
    with _publication(server, job, store) as run:
        _check_listed(run, job)
        try:
            run.report(job.output, UID.sub("(uid)", answer))
        except PublishError as error:
            server.audit.record(Event.PUBLISH_FAILED, job=job.id, by=who.name, sha256=sha256)
            raise Conflict(error.problem, f"withdraw it from the store; {error.remedy}") from error
    return reconcile(server, server.jobs.get(job_id), publisher=who.name)[0]


@contextmanager
def _publication(server: Server, job: Job, store: str) -> Iterator[Publication]:
    with explaining_records():
        try:
            target = open_store(store_url(store))
            pseudonyms = Pseudonyms.load()
            ledger = PublishedLedger.load(pseudonyms)
            with publication(server.folder.job(job.id).root, target, pseudonyms, ledger) as run:
                yield run
        except OptionError as error:
            raise Conflict(
                "this store, or the key of this job, cannot be used as it is set up",
                "check the URL of the store; ask the administrator about keys and credentials",
            ) from error


def _check_approved(server: Server, job: Job, decision: Decision) -> None:
    approved = decision.state in (Review.APPROVED, Review.PUBLISHED)
    counted = approvers(server.settings, job, decision)
    if approved and len(counted) >= people_needed(server.settings):
        return
    if decision.approvers:
        raise Conflict(
            "one person approved this image, and two must",
            "let another reviewer approve it; who queued it does not count",
        )
    raise Conflict(f"this image is {job.state.value}, not approved", "approve it first")


def _check_listed(run: Publication, job: Job) -> None:
    if job.output not in run.outputs:  # decided otherwise since it was read
        raise Conflict("this image is not approved any more", "read its state anew")
