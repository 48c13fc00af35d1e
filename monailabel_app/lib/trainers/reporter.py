"""Keeps the progress file of the run that this process works on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from monailabel_app.lib.trainers.progress import Process, Progress, RunFolder, TrainingStage, now

WRITE_SECONDS = 0.5
"""The file is written at most this often while steps go by."""


class Reporter:
    """The progress of one run, as this process makes it.

    Parameters
    ----------
    folder
        Of the run.
    progress
        Of a run that begins, or that was interrupted.
    """

    def __init__(self, folder: RunFolder, progress: Progress) -> None:
        self.folder = folder
        self.progress = progress
        self._began = time.monotonic()
        self._seconds_before = progress.seconds
        self._written = 0.0
        self._first: tuple[int, float] | None = None

    @property
    def seconds(self) -> float:
        """For how long this process has worked on the run."""
        return time.monotonic() - self._began

    def stage(self, stage: TrainingStage) -> None:
        """Tell what is done from now on."""
        self.change(stage=stage, eta_seconds=None)

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Tell of a step that was done, with its figures."""
        self.progress = self.progress.after(step, figures, self._eta(step))
        if self.seconds - self._written > WRITE_SECONDS or step == self.progress.steps:
            self.change()

    def change(self, **values: Any) -> None:
        """Set fields of the progress and write it."""
        self._written = self.seconds
        always = {
            "updated": now(),
            "seconds": self._seconds_before + self.seconds,
            "process": Process.this(),
        }
        self.progress = self.progress.model_copy(update={**always, **values})
        self.folder.write(self.progress)

    def _eta(self, step: int) -> float | None:
        if self._first is None:
            self._first = (step, self.seconds)
        first, then = self._first
        if step == first:
            return None
        return (self.seconds - then) / (step - first) * (self.progress.steps - step)
