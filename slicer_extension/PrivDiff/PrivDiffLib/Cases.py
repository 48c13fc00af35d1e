"""One image on its way: from the scene to the server, back, and to a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path

from .privdiff_client import ClientError, Download, Job, JobState

_keys = count(1)


class Stage(Enum):
    """Where a case is, as far as the user is concerned."""

    READY = "ready"
    SENDING = "sending"
    QUEUED = "queued"
    RUNNING = "running"
    FETCHING = "fetching"
    TO_REVIEW = "to review"
    APPROVED = "approved"
    REJECTED = "rejected"
    PUBLISHED = "published"
    HELD = "held"
    FAILED = "failed"
    CANCELLED = "cancelled"


OF_STATE = {
    JobState.QUEUED: Stage.QUEUED,
    JobState.RUNNING: Stage.RUNNING,
    JobState.AWAITING_REVIEW: Stage.TO_REVIEW,
    JobState.APPROVED: Stage.APPROVED,
    JobState.REJECTED: Stage.REJECTED,
    JobState.PUBLISHED: Stage.PUBLISHED,
    JobState.HELD: Stage.HELD,
    JobState.FAILED: Stage.FAILED,
    JobState.CANCELLED: Stage.CANCELLED,
}

BUSY = frozenset({Stage.SENDING, Stage.QUEUED, Stage.RUNNING, Stage.FETCHING})
"""The user waits."""

DECIDABLE = frozenset({Stage.TO_REVIEW, Stage.APPROVED, Stage.REJECTED, Stage.HELD})
"""There can be bytes to look at, and they have not left."""


@dataclass(frozen=True)
class Original:
    """What is sent of an image, and how its grey values are to be read.

    Attributes
    ----------
    upload
        Path of the DICOM file, a file in memory, or what makes one; that takes its time, and is
        left to the thread that sends it.
    displayRange
        Values of the volume that are shown as black and white.
    flips
        Whether the axes (rows, columns) run against those of the screen: what is sent is turned,
        and what comes back is turned again.
    """

    upload: bytes | Path | Callable[[], bytes]
    displayRange: tuple[float, float]
    flips: tuple[bool, bool] = (False, False)

    def file(self) -> bytes | Path:
        """Return what is sent, made if need be."""
        return self.upload() if callable(self.upload) else self.upload


@dataclass(eq=False)
class Case:
    """One image.

    Attributes
    ----------
    name
        What the table calls it.
    volumeID
        Of the original in the scene; empty where the case comes from the server's queue.
    original
        How the original is read; None until it is sent.
    server
        Address of the server that has its job.
    job
        As the server told it last.
    isSending
        Whether it is on its way to the server.
    wasCancelled
        Whether the user stopped it without an answer of the server.
    error
        Why the last thing that was tried did not work.
    earlier
        Jobs of earlier runs, each with its server, whose approval is still to be withdrawn.
    notice
        What the user must know although everything worked.
    result
        The file of record, checked; what is reviewed are these bytes.
    resultID
        Of its volume in the scene.
    picture
        PNG of the original, where the case comes from the server's queue.
    storeAnswer
        What the store said.
    """

    name: str
    volumeID: str = ""
    original: Original | None = None
    server: str = ""
    job: Job | None = None
    isSending: bool = False
    wasCancelled: bool = False
    error: ClientError | None = None
    earlier: list[tuple[str, Job]] = field(default_factory=list)
    notice: ClientError | None = None
    result: Download | None = None
    resultID: str = ""
    picture: bytes = b""
    storeAnswer: str = ""
    key: int = field(default_factory=lambda: next(_keys))

    @property
    def stage(self) -> Stage:
        """Where it is."""
        if self.isSending:
            return Stage.SENDING
        if self.job is None and self.wasCancelled:
            return Stage.CANCELLED
        if self.job is None:
            return Stage.FAILED if self.error else Stage.READY
        if self.job.state.has_result and self.result is None and not self.isHeld:
            return Stage.FAILED if self.error else Stage.FETCHING
        return OF_STATE.get(self.job.state, Stage.FAILED)

    @property
    def isHeld(self) -> bool:
        """Whether it did not pass a check; such an image can be rejected, and nothing else.

        One that was rejected keeps the reason why it was held.
        """
        return self.job is not None and (
            self.job.state is JobState.HELD
            or (self.job.state is JobState.REJECTED and bool(self.job.reason))
        )

    @property
    def isBusy(self) -> bool:
        """Whether something is being done for it."""
        return self.stage in BUSY

    @property
    def fraction(self) -> float:
        """How far redrawing is, in [0, 1]."""
        if self.job is None or self.isSending:
            return 0.0
        return self.job.progress.fraction if self.job.state.is_waiting else 1.0

    def restart(self, server: str) -> None:
        """Forget what an earlier run gave; an approval held for its bytes alone."""
        if self.job is not None:
            self.earlier.append((self.server, self.job))
        self.server, self.notice = server, None
        self.job, self.result, self.error, self.storeAnswer = None, None, None, ""
        self.isSending, self.wasCancelled = True, False
