"""Work that must not hold up the interface: one thread, and a queue that is drained by a timer.

The thread does HTTP and files and nothing else: MRML and Qt belong to the main thread, which is
where `drain` calls back.
"""

from __future__ import annotations

import logging
import queue
import threading
import traceback
from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from .privdiff_client import ClientError

logger = logging.getLogger(__name__)

STOP_SECONDS = 0.2


def explained(error: Exception) -> ClientError:
    """Return an error in words for the user; one that nobody foresaw is logged.

    The message of such a one stays out of both: it can name a file, and that can name a patient.
    """
    if isinstance(error, ClientError):
        return error
    kind = type(error).__name__
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("something unexpected happened in PrivDiff: %s\n%s", kind, frames)
    return ClientError(
        _("something unexpected happened ({kind})").format(kind=kind),
        _(
            "try it again; if it comes again, press Reload or start Slicer anew, and send us what "
            "the menu View, Error Log shows"
        ),
    )


class Ticket:
    """One piece of work; a cancelled one calls nobody back."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask the work to end."""
        self._cancelled.set()

    def isCancelled(self) -> bool:
        """Tell whether it shall end."""
        return self._cancelled.is_set()


class Background:
    """A thread that does one piece of work after the other.

    It starts with the first piece. Being a daemon it never keeps the application from ending.
    """

    def __init__(self) -> None:
        self._waiting: queue.Queue[Any] = queue.Queue()
        self._finished: queue.Queue[Callable[[], None]] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._tickets: list[Ticket] = []

    def start(
        self,
        work: Callable[[Ticket], Any],
        done: Callable[[Any], None],
        failed: Callable[[ClientError], None],
    ) -> Ticket:
        """Queue `work`; `drain` then calls `done` with what it returned, or `failed`."""
        ticket = Ticket()
        self._tickets.append(ticket)
        self._waiting.put((ticket, work, done, failed))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="PrivDiff", daemon=True)
            self._thread.start()
        return ticket

    def drain(self) -> None:
        """Call back for everything that has finished; called by the main thread."""
        while True:
            try:
                callBack = self._finished.get_nowait()
            except queue.Empty:
                return
            callBack()

    def cancelAll(self) -> None:
        """Cancel what waits and what runs."""
        for ticket in list(self._tickets):
            ticket.cancel()

    def stop(self) -> None:
        """Cancel everything and let the thread end; a request that hangs is left to its timeout."""
        self.cancelAll()
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while True:
            piece = self._waiting.get()
            if piece is None:
                return
            ticket, work, done, failed = piece
            if not ticket.isCancelled():
                self._do(ticket, work, done, failed)
            self._tickets.remove(ticket)

    def _do(
        self,
        ticket: Ticket,
        work: Callable[[Ticket], Any],
        done: Callable[[Any], None],
        failed: Callable[[ClientError], None],
    ) -> None:
        try:
            outcome = work(ticket)
        except Exception as error:
            # The edge of the thread: the interface must hear of it and work on.
            self._report(ticket, failed, explained(error))
        else:
            self._report(ticket, done, outcome)

    def _report(self, ticket: Ticket, listener: Callable[[Any], None], value: Any) -> None:
        def callBack() -> None:
            if not ticket.isCancelled():
                listener(value)

        self._finished.put(callBack)
