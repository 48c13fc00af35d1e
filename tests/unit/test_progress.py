"""What is shown of a run, and how signals end it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from privdiff_infer.commands.progress import SECONDS_BETWEEN_LINES, following
from privdiff_infer.commands.stopping import SIGNALS, stopped_by_signals


class Clock:
    """Stands for the time, which passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_a_line_tells_from_time_to_time_how_far_a_run_is(capsys):
    clock = Clock()
    with following("Images", 100, quiet=False, clock=clock) as shown:
        for _ in range(3):
            shown.advance()
        told_at_once = capsys.readouterr().err
        clock.now = SECONDS_BETWEEN_LINES
        shown.advance()
        told_later = capsys.readouterr().err

    assert "4/100" not in told_at_once
    assert "4/100" in told_later
    assert "images/s" in told_later
    assert "left" in told_later


def test_quiet_run_says_nothing(capsys):
    clock = Clock()
    with following("Images", 2, quiet=True, clock=clock) as shown:
        clock.now = SECONDS_BETWEEN_LINES
        shown.advance()

    assert capsys.readouterr().err == ""


@pytest.fixture(params=SIGNALS)
def ignored(request: pytest.FixtureRequest) -> Iterator[int]:
    """A signal that this process ignores, as shells have it for what runs in the background."""
    before = signal.signal(request.param, signal.SIG_IGN)
    yield request.param
    signal.signal(request.param, before)


def test_signal_that_was_ignored_stops_a_run_and_is_ignored_again_after_it(ignored):
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        signal.raise_signal(ignored)

    assert signal.getsignal(ignored) is signal.SIG_IGN
