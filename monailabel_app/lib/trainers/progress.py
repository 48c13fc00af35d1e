"""How far a fine-tuning has come, in a file that outlives its process and the server."""

from __future__ import annotations

import math
import os
import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from enum import Enum
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from monailabel_app.lib.errors import NotFound
from monailabel_app.lib.models.comparison import ModelReference
from monailabel_app.lib.state_folder import PRIVATE_FOLDER
from monailabel_app.lib.trainers.parameters import TrainingParameters
from privdiff_infer.release import reporting_disk_errors, write_private

RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
SAMPLE = re.compile(r"step-[0-9]{6}\.png")
POINTS = 200
"""Most points of the history."""

CLOCK_SECONDS = 2.0
"""By how much the clock may be set while a process runs."""


class TrainingState(str, Enum):
    """What has become of a run.

    ``STOPPED`` ended early and kept what was trained; ``INTERRUPTED`` was killed and can be
    continued, like ``FAILED`` once its cause is gone.
    """

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class TrainingStage(str, Enum):
    """What a run does, in this order."""

    PREPARING = "preparing"
    TRAINING = "training"
    ASSEMBLING = "assembling"
    COMPARING = "comparing"
    ENDED = "ended"


class Process(BaseModel):
    """A process of this machine; its number alone is used again by others."""

    model_config = ConfigDict(frozen=True)

    pid: int
    created: float

    @classmethod
    def this(cls) -> Process:
        """Return the process that runs this code."""
        return cls(pid=os.getpid(), created=psutil.Process().create_time())

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.created) < CLOCK_SECONDS
            return same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


class Point(BaseModel):
    """The figures of one step."""

    model_config = ConfigDict(frozen=True)

    step: int
    figures: dict[str, float | None] = Field(
        description="Losses and similarities; null where one is no number any more."
    )


class Progress(BaseModel):
    """The content of ``progress.json`` in the folder of a run."""

    model_config = ConfigDict(frozen=True)

    id: str
    state: TrainingState = TrainingState.RUNNING
    stage: TrainingStage = TrainingStage.PREPARING
    parameters: TrainingParameters
    base: ModelReference = Field(description="The bundle that is tuned.")
    started: datetime
    updated: datetime
    ended: datetime | None = None
    step: int = 0
    steps: int
    history: tuple[Point, ...] = Field((), description="Evenly spread over the steps.")
    latest: Point | None = None
    eta_seconds: float | None = Field(None, description="Of the training; unknown at first.")
    seconds: float = Field(0.0, description="Computed for so far, over all attempts.")
    model: str = Field("", description="Id of the bundle that came of it.")
    reason: str = Field("", description="Why it ended early, or failed.")
    process: Process

    def after(self, step: int, figures: Mapping[str, float], eta_seconds: float | None) -> Progress:
        """Return the progress with one more step."""
        point = Point(
            step=step,
            figures={
                name: value if math.isfinite(value) else None for name, value in figures.items()
            },
        )
        history = tuple(point for point in self.history if point.step < step)
        if step % math.ceil(self.steps / POINTS) == 0 or step == 1:
            history += (point,)
        return self.model_copy(
            update={
                "step": step,
                "history": history,
                "latest": point,
                "eta_seconds": eta_seconds,
            }
        )

    @property
    def took(self) -> timedelta:
        """How long it has been computed for."""
        return timedelta(seconds=round(self.seconds))


class RunFolder:
    """The folder of one run, ``STATE/training/<id>``.

    Parameters
    ----------
    root
        The folder; its name is the id.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def create(cls, training: Path) -> RunFolder:
        """Create a folder whose name sorts after all earlier ones."""
        name = f"{now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        with reporting_disk_errors():
            (training / name).mkdir(mode=PRIVATE_FOLDER, parents=True)
        return cls(training / name)

    @property
    def id(self) -> str:
        """Of the run."""
        return self.root.name

    @property
    def checkpoints(self) -> Path:
        """What a run that was killed continues from; deleted when it has ended well."""
        return self.root / "run"

    @property
    def cache(self) -> Path:
        """Prepared images of the cohort; deleted with the checkpoints."""
        return self.root / "cache"

    @property
    def components(self) -> Path:
        """Parts of the bundle that is being built; deleted with the checkpoints."""
        return self.root / "components"

    @property
    def samples(self) -> Path:
        """Pictures of patients that nothing is trained on, and how they are redrawn."""
        return self.root / "samples"

    @property
    def config(self) -> Path:
        """The configuration of the stage, as it runs."""
        return self.root / "suppression.yaml"

    @property
    def card(self) -> Path:
        """The model card of the bundle that comes of it."""
        return self.root / "model-card.md"

    @property
    def error(self) -> Path:
        """Why it failed, in full: may name files, and is for the eyes of the administrator."""
        return self.root / "error.txt"

    def sample_names(self) -> list[str]:
        """Return the names of the pictures, in the order of the steps."""
        return sorted(path.name for path in self.samples.glob("step-*.png"))

    def sample(self, name: str) -> bytes:
        """Return a picture.

        Raises
        ------
        NotFound
            If there is none of this name.
        """
        if SAMPLE.fullmatch(name) and (self.samples / name).is_file():
            return (self.samples / name).read_bytes()
        raise NotFound("this run has no such sample", "read its list of samples")

    def ask_to_stop(self, reason: str, by: str = "") -> None:
        """Let the run end after its next step; the first who asks, and their reason, count."""
        if not self.stop_reason():
            write_private(self.root / "stop", f"{reason}\n{by}".encode())

    def stop_reason(self) -> str:
        """Return why the run shall end early; empty while it shall not."""
        return self._stop()[0]

    def stopped_by(self) -> str:
        """Return who wants it to end early; empty where nobody does, or its time was over."""
        return self._stop()[1]

    def _stop(self) -> tuple[str, str]:
        try:
            reason, _, by = (self.root / "stop").read_text(encoding="utf-8").partition("\n")
        except FileNotFoundError:
            return "", ""
        return reason, by

    def write(self, progress: Progress) -> None:
        """Write the progress as a whole or not at all, for its owner alone."""
        write_private(self.root / "progress.json", progress.model_dump_json(indent=1).encode())

    def read(self) -> Progress:
        """Return the progress; a run whose process is gone is one that was interrupted.

        Raises
        ------
        NotFound
            If there is none that can be read.
        """
        try:
            content = (self.root / "progress.json").read_bytes()
            progress = Progress.model_validate_json(content)
        except (OSError, ValidationError):
            raise NotFound(
                "there is no such training", "list them with GET /privdiff/v1/training"
            ) from None
        if progress.state is TrainingState.RUNNING and not progress.process.is_alive:
            return progress.model_copy(update={"state": TrainingState.INTERRUPTED})
        return progress


def run_folders(training: Path) -> list[RunFolder]:
    """Return the folders of all runs, the newest first."""
    names = sorted((path.name for path in training.glob("*")), reverse=True)
    return [RunFolder(training / name) for name in names if RUN_ID.fullmatch(name)]


def run_folder(training: Path, run_id: str) -> RunFolder:
    """Return the folder of one run.

    Raises
    ------
    NotFound
        If there is none.
    """
    if RUN_ID.fullmatch(run_id) and (training / run_id).is_dir():
        return RunFolder(training / run_id)
    raise NotFound("there is no such training", "list them with GET /privdiff/v1/training")


def latest(training: Path) -> Progress | None:
    """Return the progress of the newest run that has one."""
    for folder in run_folders(training):
        try:
            return folder.read()
        except NotFound:
            continue
    return None


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(timezone.utc)
