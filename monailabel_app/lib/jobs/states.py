"""The states of a job and the ways between them."""

from __future__ import annotations

from enum import Enum

from privdiff_infer.release import Status

MAX_ATTEMPTS = 3
"""How often a job is begun, whether its worker or its dispatcher died of it."""


class JobState(str, Enum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    AWAITING_REVIEW = "awaiting_review"
    APPROVED = "approved"
    REJECTED = "rejected"
    PUBLISHED = "published"
    HELD = "held"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Priority(int, Enum):
    """What is done first; a lower number overtakes."""

    INTERACTIVE = 0
    BATCH = 10


NEXT: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset(
        {
            JobState.QUEUED,  # its process died
            JobState.AWAITING_REVIEW,
            JobState.HELD,
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    # A decision can be changed until the image has left; other bytes, or a first approval of two
    # after a rejection, await one again.
    JobState.AWAITING_REVIEW: frozenset({JobState.APPROVED, JobState.REJECTED}),
    JobState.APPROVED: frozenset({JobState.REJECTED, JobState.PUBLISHED, JobState.AWAITING_REVIEW}),
    JobState.REJECTED: frozenset({JobState.APPROVED, JobState.AWAITING_REVIEW}),
    JobState.HELD: frozenset({JobState.REJECTED}),
    JobState.PUBLISHED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
"""Every way that a job can go."""

WAITING = frozenset({JobState.QUEUED, JobState.RUNNING})
"""The machine has still to do with it."""

WITH_RESULT = frozenset(
    {JobState.AWAITING_REVIEW, JobState.APPROVED, JobState.REJECTED, JobState.PUBLISHED}
)
"""There are bytes that passed the gates."""

DECIDABLE = frozenset(
    {JobState.AWAITING_REVIEW, JobState.APPROVED, JobState.REJECTED, JobState.HELD}
)
"""A person can decide, or decide otherwise."""

OF_STATUS = {
    Status.RELEASED: JobState.AWAITING_REVIEW,
    Status.HELD: JobState.HELD,
    Status.FAILED: JobState.FAILED,
}
"""What the machine's verdict makes of a running job."""
