"""Whose turn it is in the workers, so that no image waits inside of dask.

There, a waiting one could not be overtaken, and would be blamed when its worker dies of another.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SLOTS_FOR_READING = 1
"""Jobs beyond the workers, which read and write while others compute."""

SECONDS_BETWEEN_LOOKS = 0.2


class Turns:
    """Lets so many threads pass at once; the lowest priority first, then who came first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: set[tuple[int, int]] = set()
        self._arrivals = itertools.count()
        self._passed = 0

    @contextmanager
    def taken(
        self, priority: int, at_once: Callable[[], int], check: Callable[[], None]
    ) -> Iterator[None]:
        """Wait for a turn and hold it.

        Parameters
        ----------
        priority
            Lower numbers overtake.
        at_once
            How many may hold one now.
        check
            Called while it waits; may raise to give up.
        """
        mine = (priority, next(self._arrivals))
        with self._changed:
            self._waiting.add(mine)
            try:
                while min(self._waiting) != mine or self._passed >= at_once():
                    check()
                    self._changed.wait(SECONDS_BETWEEN_LOOKS)
                self._passed += 1
            finally:
                self._waiting.remove(mine)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._passed -= 1
                self._changed.notify_all()
