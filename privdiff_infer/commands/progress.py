"""How far a command is, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, Task

SECONDS_BETWEEN_LINES = 30.0
"""Where standard error is no terminal, but a file of a batch system for instance."""


def progress_bar(*, quiet: bool) -> Progress:
    """Return a bar with numbers, time gone and time left; its console prints lines above it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """How many are done in a second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.2f}/s" if task.speed else "")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False, markup=False),
        disable=quiet,
    )


class Following:
    """A run that is shown: how many are done, how many a second, how long it still takes.

    On a terminal it is a bar, elsewhere a line from time to time.
    """

    def __init__(self, progress: Progress, label: str, total: int, clock: Callable[[], float]):
        self._progress, self._clock = progress, clock
        self._task = progress.add_task(label, total=total)
        self._steps = progress.add_task("  this image", total=None, visible=False)
        self._said = clock()

    def advance(self) -> None:
        """Count one more."""
        self._progress.advance(self._task)
        if not (self._progress.console.is_terminal or self._progress.disable):
            self._say_at_times()

    def step(self, done: int, total: int) -> None:
        """Show the steps of the image in work."""
        self._progress.update(self._steps, completed=done, total=total, visible=True)

    def say(self, line: str) -> None:
        """Print a line."""
        self._progress.console.print(line, soft_wrap=True)

    def _say_at_times(self) -> None:
        now = self._clock()
        if now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            state = self._progress.tasks[self._task]
            self.say(described(int(state.completed), int(state.total or 0), state.speed))


def described(done: int, total: int, speed: float | None) -> str:
    """Return one line about a run.

    Examples
    --------
    >>> described(250, 10000, 2.5)
    '250/10000, 2.50 images/s, 1:05:00 left'
    >>> described(0, 10, None)
    '0/10'
    """
    if not speed:
        return f"{done}/{total}"
    seconds = int((total - done) / speed)
    left = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{done}/{total}, {speed:.2f} images/s, {left} left"


@contextmanager
def following(
    label: str, total: int, *, quiet: bool, clock: Callable[[], float] = time.monotonic
) -> Iterator[Following]:
    """Show a run of `total` sources while it is done."""
    with progress_bar(quiet=quiet) as progress:
        yield Following(progress, label, total, clock)
