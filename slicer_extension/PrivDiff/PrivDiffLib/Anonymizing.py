"""Cases go to the server, are watched there, and their results come back."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from slicer.i18n import tr as _

from .Background import Background, Ticket
from .Cases import Case, Stage
from .Connection import Connection, Status
from .privdiff_client import (
    ClientError,
    Conflict,
    Decision,
    Forbidden,
    Job,
    JobState,
    NotFound,
    Options,
    PrivDiffClient,
)
from .Signal import Signal

POLL_SECONDS = 0.7
SILENT_POLL_SECONDS = 3.0


class Anonymizing:
    """The cases of this session.

    Parameters
    ----------
    connection
        The server.
    clock
        Seconds that only grow.
    """

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection, self._clock = connection, clock
        self.cases: list[Case] = []
        self.changed = Signal()  # (case)
        self.arrived = Signal()  # (case): its result is here
        self.removed = Signal()  # (case)
        self._tickets: dict[int, Ticket] = {}
        self._queued: dict[int, tuple[PrivDiffClient, list[Job]]] = {}
        self._poll: Ticket | None = None
        self._polledAt = float("-inf")
        connection.changed.connect(self._whenConnectionChanges)

    def add(self, case: Case) -> None:
        """Take a case in."""
        self.cases.append(case)
        self.changed.emit(case)

    def remove(self, case: Case) -> None:
        """Let a case go; what is being done for it ends."""
        if case not in self.cases:
            return
        self.cancel([case])
        self._giveUp(case)
        self.cases.remove(case)
        self.removed.emit(case)

    def caseOf(self, volumeID: str) -> Case | None:
        """Return the case of an original in the scene."""
        return next((case for case in self.cases if case.volumeID == volumeID), None)

    def start(self, cases: Iterable[Case], options: Options) -> None:
        """Send cases, each with its `original`; one that had a result starts anew.

        An approval of the earlier result ends: nothing but what is seen last may be published.
        """
        client = self._connection.uploadClient
        if client is None:
            return
        batch = f"slicer-{secrets.token_hex(8)}"
        # Nothing but DICOM can be published.
        chosen = replace(options, batch=batch, output_size="original", output_format="dicom")
        for case in cases:
            case.restart(client.url)
            self._send(client, case, chosen)
            self.changed.emit(case)

    def cancel(self, cases: Iterable[Case]) -> None:
        """Cancel what is being done for cases."""
        for case in cases:
            if not case.isBusy:
                continue
            self._giveUp(case)
            if case.isSending:
                case.isSending, case.wasCancelled = False, True
                self._cancelSent(*self._queued.pop(case.key))
            elif case.job is not None and case.job.state.is_waiting:
                self._cancelJob(case, case.job)
            else:
                case.error = ClientError(
                    _("fetching the result was cancelled"),
                    _("anonymize the image again, or take the result from the review queue"),
                )
            self.changed.emit(case)

    def cancelSending(self) -> None:
        """Let no original leave any more: nobody agrees to it, or the server is another one."""
        self.cancel([case for case in self.cases if case.isSending])

    def release(self, error: ClientError) -> None:
        """Let no case wait for what nobody does any more, after something broke off halfway."""
        for case in self.cases:
            isStranded = case.stage in (Stage.SENDING, Stage.FETCHING)
            if isStranded and case.key not in self._tickets:
                case.isSending, case.error = False, error
                self.changed.emit(case)

    def tick(self) -> None:
        """Ask the server how the jobs are, if it is time; called by a timer."""
        client = self._connection.monitorClient
        if self._poll is not None or client is None or not self._connection.isConnected:
            return
        waiting = [
            case
            for case in self.cases
            if case.server == client.url and case.job and case.job.state.is_waiting
        ]
        isSilent = self._connection.status is Status.SILENT
        pause = SILENT_POLL_SECONDS if isSilent else POLL_SECONDS
        if not waiting or self._clock() - self._polledAt < pause:
            return
        batches = {case.job.batch for case in waiting if case.job and case.job.batch}
        asked = [case.job for case in waiting if case.job]

        def ask(ticket: Ticket) -> dict[str, Job | None]:
            jobs = [job for batch in sorted(batches) for job in client.jobs(batch=batch)]
            found: dict[str, Job | None] = {job.id: job for job in jobs}
            return {
                job.id: found.get(job.id) if job.batch else _jobOf(client, job.id) for job in asked
            }

        self._poll = self._connection.monitor.start(ask, self._polled, self._notPolled)

    def update(self, case: Case, job: Job) -> None:
        """Note what the server says of a case, and fetch a result that is there."""
        if case.job == job:
            return
        case.job = job
        isHeldBack = job.is_held_back and self._connection.mayReview
        if case.result is None and (job.state.has_result or isHeldBack):
            self.fetch(case)
        self.changed.emit(case)

    def fetch(self, case: Case) -> None:
        """Fetch the result of a case; also after a failure."""
        client, job = self._connection.clientOf(case.server), case.job
        if client is None or job is None:
            return
        case.error = None

        def ask(ticket: Ticket) -> Any:
            return client.result(job.id, cancelled=ticket.isCancelled)

        def done(result: Any) -> None:
            self._tickets.pop(case.key, None)
            case.result = result
            self.arrived.emit(case)
            self.changed.emit(case)

        self._begin(self._connection.transfers, case, ask, done)

    def _send(self, client: PrivDiffClient, case: Case, options: Options) -> None:
        original, earlier = case.original, tuple(case.earlier)
        assert original is not None

        queued: list[Job] = []
        self._queued[case.key] = client, queued

        def ask(ticket: Ticket) -> list[tuple[str, Job]]:
            kept = [(server, job) for server, job in earlier if not _withdraw(client, server, job)]
            queued.extend(
                client.submit([original.file()], options=options, cancelled=ticket.isCancelled)
            )
            return kept

        def done(kept: list[tuple[str, Job]]) -> None:
            self._tickets.pop(case.key, None)
            case.isSending, case.earlier = False, kept
            if kept:
                case.notice = _notWithdrawn(kept)
            self.update(case, queued[0])

        self._begin(self._connection.uploads, case, ask, done)

    def _begin(
        self,
        thread: Background,
        case: Case,
        ask: Callable[[Ticket], Any],
        done: Callable[[Any], None],
    ) -> None:
        def failed(error: ClientError) -> None:
            self._tickets.pop(case.key, None)
            case.isSending = False
            case.error = error
            self.changed.emit(case)

        self._giveUp(case)
        self._tickets[case.key] = thread.start(ask, done, failed)

    def _giveUp(self, case: Case) -> None:
        """Let nothing come of what is being done for a case."""
        ticket = self._tickets.pop(case.key, None)
        if ticket is not None:
            ticket.cancel()

    def _cancelSent(self, client: PrivDiffClient, queued: list[Job]) -> None:
        """Cancel what arrived although its sending was cancelled; the thread comes to it later."""
        self._connection.uploads.start(
            lambda ticket: [client.cancel(job.id) for job in queued],
            lambda told: None,
            lambda error: None,  # it is done, and awaits review as any other
        )

    def _cancelJob(self, case: Case, job: Job) -> None:
        client = self._connection.clientOf(case.server)
        if client is None:
            case.job, case.wasCancelled = None, True
            case.error = ClientError(
                _("the job of this image goes on at {url}").format(url=case.server),
                _("connect there to see it in the review queue"),
            )
            return

        def failed(error: ClientError) -> None:
            case.error = error
            self.changed.emit(case)

        self._connection.transfers.start(
            lambda ticket: client.cancel(job.id), lambda told: self.update(case, told), failed
        )

    def _polled(self, jobs: dict[str, Job | None]) -> None:
        """Note what the server says; None stands for a job that it does not have for us."""
        self._poll, self._polledAt = None, self._clock()
        self._connection.heard()
        for case in list(self.cases):
            if case.job is None or not case.job.state.is_waiting:
                continue
            if case.job.id not in jobs:
                continue
            job = jobs[case.job.id]
            if job is not None:
                self.update(case, job)
            else:
                case.job = None
                case.error = ClientError(
                    _("the server has no job of this image, or not for this user"),
                    _("anonymize it again"),
                )
                self.changed.emit(case)

    def _notPolled(self, error: ClientError) -> None:
        self._poll, self._polledAt = None, self._clock()
        self._connection.notHeard(error)

    def _whenConnectionChanges(self) -> None:
        if self._connection.client is None:
            self.cancelSending()
        if self._connection.monitorClient is None and self._poll is not None:
            self._poll.cancel()
            self._poll = None


def _withdraw(client: PrivDiffClient, server: str, earlier: Job) -> bool:
    """End the approval of a result that another run replaces; tell whether there is none now."""
    if server != client.url:
        return not _isApproved(earlier)
    try:
        now = client.job(earlier.id)
        if _isApproved(now):
            client.claim(now.id)
            client.review(now.id, Decision.REJECTED, now.sha256, "replaced by another run")
        return True
    except NotFound:
        return True
    except Forbidden:
        return False
    except Conflict as error:
        raise Conflict(
            error.status,
            error.code,
            _("the approval of the earlier result could not be withdrawn"),
            error.hint,
        ) from None


def _jobOf(client: PrivDiffClient, name: str) -> Job | None:
    try:
        return client.job(name)
    except NotFound:
        return None


def _isApproved(job: Job) -> bool:
    """Tell whether somebody approved a result that may still be published."""
    isFirst = job.state is JobState.AWAITING_REVIEW and bool(job.approvals)
    return isFirst or job.state is JobState.APPROVED


def _notWithdrawn(kept: list[tuple[str, Job]]) -> ClientError:
    servers = ", ".join(sorted({server for server, _job in kept}))
    return ClientError(
        _("an earlier result of this image is still approved at {url}").format(url=servers),
        _("ask a reviewer there to reject it"),
    )


def mayBeSent(case: Case) -> bool:
    """Tell whether a case can be sent now."""
    return bool(case.volumeID) and not case.isBusy and case.stage is not Stage.PUBLISHED
