"""The edge of the panel: whatever the application calls back goes through here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .Background import explained
from .privdiff_client import ClientError
from .Signal import Signal


class Guard:
    """Wraps what Qt, MRML and timers call; `failed` tells of what went wrong there.

    An exception that nobody catches would end a slot halfway, with a line in a console that nobody
    sees and buttons as they were before.
    """

    def __init__(self) -> None:
        self.failed = Signal()  # (error)

    def __call__(self, listener: Callable[..., Any]) -> Callable[..., None]:
        """Return a listener out of which nothing escapes."""

        def guarded(*arguments: Any) -> None:
            try:
                listener(*arguments)
            except Exception as error:
                self.failed.emit(explained(error))

        return guarded

    def often(self, step: Callable[[], Any]) -> Callable[[], None]:
        """Return the same for what a timer calls: a failure that goes on is told once."""
        told: ClientError | None = None

        def guarded() -> None:
            nonlocal told
            try:
                step()
            except Exception as error:
                now = explained(error)
                if told is None or str(now) != str(told):
                    self.failed.emit(now)
                told = now
            else:
                told = None

        return guarded
