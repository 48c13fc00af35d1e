"""Counts sign-ins that failed, by the address of the client."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

WINDOW_SECONDS = 60.0
MOST_IN_WINDOW = 20
MOST_ADDRESSES = 10_000
"""Addresses that are remembered; the one that was quiet for longest goes first."""


class FailedSignIns:
    """How often each address failed of late; its memory is bounded.

    A valid token is never turned away, whatever its address did: behind a proxy all clients have
    one, and 256 random bits are not guessed. What the limit saves is work and lines of the log.

    Parameters
    ----------
    clock
        Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, address: str) -> int:
        """Note a failure and return the number of those in the current window."""
        now = self._clock()
        began, failures = self._windows.pop(address, (now, 0))
        if now - began >= WINDOW_SECONDS:
            began, failures = now, 0
        self._windows[address] = (began, failures + 1)
        while len(self._windows) > MOST_ADDRESSES:
            self._windows.popitem(last=False)
        return failures + 1
