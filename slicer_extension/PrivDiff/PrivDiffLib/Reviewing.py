"""Decisions on what came back, the server's queue of what awaits one, and publishing."""

from __future__ import annotations

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
    Publication,
)
from .Signal import Signal


class Reviewing:
    """Decides and publishes.

    Parameters
    ----------
    connection
        The server.
    anonymizing
        Has the cases.
    """

    def __init__(self, connection: Connection, anonymizing: Anonymizing) -> None:
        self._connection, self._anonymizing = connection, anonymizing
        self.awaiting: int | None = None
        self._pending = 0
        self.changed = Signal()
        self.found = Signal()  # (case): the next one of the queue, complete
        self.failed = Signal()  # (error)
        connection.changed.connect(self.countQueue)

    @property
    def isBusy(self) -> bool:
        """Whether the server has still to answer."""
        return self._pending > 0

    def decide(self, case: Case, decision: Decision, comment: str) -> None:
        """Approve or reject the very bytes that were shown."""
        job, result, client = case.job, case.result, self._connection.client
        if client is None or job is None or result is None or case.stage not in DECIDABLE:
            return

        def ask(ticket: Ticket) -> Job:
            client.claim(job.id)  # a decision that was made is changed by who has the claim
            return client.review(job.id, decision, result.sha256, comment)

        def done(told: Job) -> None:
            case.error = None
            self._anonymizing.update(case, told)
            self.countQueue()

        self._do(case, ask, done)

    def publish(self, cases: Iterable[Case], target: DicomwebTarget | None = None) -> None:
        """Send approved images to the server's store, or from here to `target`."""
        client = self._connection.client
        if client is None:
            return
        for case in cases:
            if case.stage is Stage.APPROVED and case.job is not None:
                self._publish(case, case.job.id, target)

    def nextOfQueue(self) -> None:
        """Claim the oldest image that awaits review, and fetch all that is looked at."""
        client = self._connection.client
        if client is None:
            return

        def ask(ticket: Ticket) -> tuple[Job, Download, bytes]:
            job = client.next_to_review()
            return job, client.result(job.id), client.source(job.id)

        def done(answer: tuple[Job, Download, bytes]) -> None:
            self._end()
            job, result, picture = answer
            case = self._caseOf(job)
            if case is None:
                case = Case(_("Queue {name}").format(name=job.id[:8]), picture=picture)
                case.job, case.result = job, result
                self._anonymizing.add(case)
                self._anonymizing.arrived.emit(case)
            else:
                self._anonymizing.update(case, job)
            self.found.emit(case)
            self.countQueue()

        def failed(error: ClientError) -> None:
            self._end()
            self.failed.emit(
                ClientError("the review queue is empty", "")
                if isinstance(error, NotFound)
                else error
            )
            self.countQueue()

        self._start(ask, done, failed)

    def giveBack(self, case: Case) -> None:
        """End the claim of a case that nobody looks at any more."""
        client, job = self._connection.client, case.job
        if client is None or job is None or not case.picture or job.claim is None:
            return
        self._connection.transfers.start(
            lambda ticket: client.give_back(job.id), lambda told: None, self.failed.emit
        )

    def countQueue(self) -> None:
        """Ask how many images await review."""
        client = self._connection.client
        if client is None or not self._connection.mayReview:
            self.awaiting = None
            self.changed.emit()
            return

        def done(counts: Any) -> None:
            self.awaiting = int(counts.get(JobState.AWAITING_REVIEW.value, 0))
            self.changed.emit()

        self._connection.transfers.start(
            lambda ticket: client.page(states=[JobState.AWAITING_REVIEW], limit=1).counts,
            done,
            self.failed.emit,
        )

    def _publish(self, case: Case, jobID: str, target: DicomwebTarget | None) -> None:
        client = self._connection.client
        assert client is not None

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
        self._pending += 1
        self.changed.emit()
        self._connection.transfers.start(ask, done, failed)

    def _end(self) -> None:
        self._pending -= 1
        self.changed.emit()

    def _caseOf(self, job: Job) -> Case | None:
        return next(
            (case for case in self._anonymizing.cases if case.job and case.job.id == job.id), None
        )
