"""Signals between Python objects: `qt.Signal` is not to be had in PythonQt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Signal:
    """Calls everybody who is connected, in the order in which they connected.

    Examples
    --------
    >>> heard = []
    >>> signal = Signal()
    >>> signal.connect(heard.append)
    >>> signal.emit("a word")
    >>> heard
    ['a word']
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[..., None]] = []

    def connect(self, listener: Callable[..., None]) -> None:
        """Add a listener."""
        self._listeners.append(listener)

    def emit(self, *arguments: Any) -> None:
        """Call the listeners."""
        for listener in list(self._listeners):
            listener(*arguments)
