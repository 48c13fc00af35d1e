"""Decisions on what came back, the server's queue of what awaits one, and publishing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from slicer.i18n import tr as _

from .Anonymizing import Anonymizing
from .Background import Ticket
from .Cases import DECIDABLE, Case, Stage
from .Connection import Connection
from .privdiff_client import (
    ClientError,
    Decision,
    DicomwebTarget,
    Download,
    Job,
    JobState,
    NotFound,
    PrivDiffClient,
    Publication,
)
from .Signal import Signal

COUNT_SECONDS = 5.0


class Reviewing:
    """Decides and publishes.

    Parameters
    ----------
    connection
        The server.
    anonymizing
        Has the cases.
    clock
        Seconds that only grow.
    """

    def __init__(
        self,
        connection: Connection,
        anonymizing: Anonymizing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection, self._anonymizing, self._clock = connection, anonymizing, clock
        self.awaiting: int | None = None
        self._count: Ticket | None = None
        self._countedAt = float("-inf")
        self._pending = 0
        self.changed = Signal()
        self.found = Signal()  # (case): the next one of the queue, complete
        self.failed = Signal()  # (error)
        connection.changed.connect(self._whenConnectionChanges)

    @property
    def isBusy(self) -> bool:
        """Whether the server has still to answer."""
        return self._pending > 0

    def decide(self, case: Case, decision: Decision, comment: str) -> None:
        """Approve or reject the very bytes that were shown."""
        job, result, client = case.job, case.result, self._connection.clientOf(case.server)
        if client is None or job is None or result is None or case.stage not in DECIDABLE:
            return
        if case.isHeld and decision is Decision.APPROVED:
            return

        def ask(ticket: Ticket) -> Job:
            client.claim(job.id)  # a decision that was made is changed by who has the claim
            return client.review(job.id, decision, result.sha256, comment)

        def done(told: Job) -> None:
            case.error = None
            self._anonymizing.update(case, told)
            self._countSoon()

        self._do(case, ask, done)

    def publish(self, cases: Iterable[Case], target: DicomwebTarget | None = None) -> None:
        """Send approved images to the server's store, or from here to `target`."""
        for case in cases:
            client = self._connection.clientOf(case.server)
            if client is not None and case.stage is Stage.APPROVED and case.job is not None:
                self._publish(client, case, case.job.id, target)

    def nextOfQueue(self, current: Case | None) -> None:
        """Claim an image that awaits review, and fetch all that is looked at.

        It is the one after `current` where that comes from the queue, else the oldest.
        """
        client = self._connection.client
        if client is None:
            return
        isOfQueue = current is not None and bool(current.picture) and current.server == client.url
        after = current.job.id if isOfQueue and current and current.job else ""

        def ask(ticket: Ticket) -> tuple[Job, Download, bytes]:
            job = _nextAfter(client, after)
            return job, client.result(job.id), client.source(job.id)

        def done(answer: tuple[Job, Download, bytes]) -> None:
            self._end()
            job, result, picture = answer
            case = self._caseOf(client.url, job)
            if case is None:
                case = Case(_("Queue {name}").format(name=job.id[:8]), picture=picture)
                case.server, case.job, case.result = client.url, job, result
                self._anonymizing.add(case)
                self._anonymizing.arrived.emit(case)
            else:
                self._anonymizing.update(case, job)
            self.found.emit(case)
            self._countSoon()

        def failed(error: ClientError) -> None:
            self._end()
            self.failed.emit(
                ClientError(_("the review queue is empty"), "")
                if isinstance(error, NotFound)
                else error
            )
            self._countSoon()

        self._start(ask, done, failed)

    def giveBack(self, case: Case) -> None:
        """End the claim of a case that nobody looks at any more."""
        client, job = self._connection.clientOf(case.server), case.job
        if client is None or job is None or not case.picture or job.claim is None:
            return
        self._connection.transfers.start(
            lambda ticket: client.give_back(job.id), lambda told: None, self.failed.emit
        )

    def tick(self) -> None:
        """Ask how many images await review, if it is time; called by a timer."""
        client = self._connection.monitorClient
        if self._count is not None or client is None or not self._connection.mayReview:
            return
        if self._clock() - self._countedAt < COUNT_SECONDS:
            return

        def done(counts: Any) -> None:
            self._count, self._countedAt = None, self._clock()
            self._connection.heard()
            self.awaiting = int(counts.get(JobState.AWAITING_REVIEW.value, 0))
            self.changed.emit()

        def failed(error: ClientError) -> None:
            self._count, self._countedAt = None, self._clock()
            self._connection.notHeard(error)

        self._count = self._connection.monitor.start(
            lambda ticket: client.page(states=[JobState.AWAITING_REVIEW], limit=1).counts,
            done,
            failed,
        )

    def _countSoon(self) -> None:
        self._countedAt = float("-inf")

    def _whenConnectionChanges(self) -> None:
        if self._connection.monitorClient is None and self._count is not None:
            self._count.cancel()
            self._count = None
        if not self._connection.mayReview:
            self.awaiting = None
            self._countSoon()
            self.changed.emit()

    def _publish(
        self, client: PrivDiffClient, case: Case, jobID: str, target: DicomwebTarget | None
    ) -> None:
        def ask(ticket: Ticket) -> Publication:
            return client.publish(jobID) if target is None else client.publish_to(target, jobID)

        def done(publication: Publication) -> None:
            case.error = None
            case.storeAnswer = publication.store_answer
            self._anonymizing.update(case, publication.job)
            self._anonymizing.changed.emit(case)

        self._do(case, ask, done)

    def _do(self, case: Case, ask: Callable[[Ticket], Any], done: Callable[[Any], None]) -> None:
        def finished(answer: Any) -> None:
            self._end()
            done(answer)

        def failed(error: ClientError) -> None:
            self._end()
            case.error = error
            self._anonymizing.changed.emit(case)
            self.failed.emit(error)

        self._start(ask, finished, failed)

    def _start(
        self,
        ask: Callable[[Ticket], Any],
        done: Callable[[Any], None],
        failed: Callable[[ClientError], None],
    ) -> None:
        self._connection.transfers.start(ask, done, failed)
        self._pending += 1
        self.changed.emit()

    def _end(self) -> None:
        self._pending -= 1
        self.changed.emit()

    def _caseOf(self, server: str, job: Job) -> Case | None:
        return next(
            (
                case
                for case in self._anonymizing.cases
                if case.server == server and case.job and case.job.id == job.id
            ),
            None,
        )


def _nextAfter(client: PrivDiffClient, after: str) -> Job:
    """Claim the next of the queue; behind its end is its start."""
    try:
        return client.next_to_review(after)
    except NotFound:
        if not after:
            raise
        return client.next_to_review()
