"""What the server tells, as typed records; fields that are not known here are passed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, TypeVar

from .errors import UnexpectedAnswer

Json = Mapping[str, Any]


class JobState(str, Enum):
    """Where a job is; `UNKNOWN` is what a newer server may say."""

    QUEUED = "queued"
    RUNNING = "running"
    AWAITING_REVIEW = "awaiting_review"
    APPROVED = "approved"
    REJECTED = "rejected"
    PUBLISHED = "published"
    HELD = "held"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> JobState:
        return cls.UNKNOWN

    @property
    def is_waiting(self) -> bool:
        """Whether the machine has still to do with it."""
        return self in (JobState.QUEUED, JobState.RUNNING)

    @property
    def has_result(self) -> bool:
        """Whether there are bytes that passed the gates."""
        return self in (
            JobState.AWAITING_REVIEW,
            JobState.APPROVED,
            JobState.REJECTED,
            JobState.PUBLISHED,
        )


class Decision(str, Enum):
    """What a reviewer says of an image."""

    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Options:
    """What is chosen for an image; empty values leave the choice to the server.

    Attributes
    ----------
    model
        Bundle by name.
    profile
        Way of sampling, such as ``standard``.
    strength
        Part of the noise that is added, in (0, 1].
    seed
        Of the noise.
    output_format
        ``auto``, ``png``, ``png16``, ``nrrd`` or ``dicom``.
    output_size
        ``model`` or ``original``: the matrix of the result.
    priority
        ``interactive`` or ``batch``.
    batch
        A name that groups jobs.
    """

    model: str = ""
    profile: str = ""
    strength: float | None = None
    seed: int | None = None
    output_format: str = ""
    output_size: str = ""
    priority: str = ""
    batch: str = ""

    def form(self) -> list[tuple[str, str]]:
        """Return what was chosen, as fields of a form."""
        return [(name, str(value)) for name, value in vars(self).items() if value not in (None, "")]


@dataclass(frozen=True)
class Principal:
    """Who we are for the server.

    Attributes
    ----------
    name, role
        Role is ``user``, ``reviewer`` or ``admin``.
    two_person
        Whether an approval needs two people.
    store
        Whether the server has a store to publish to.
    """

    name: str
    role: str
    two_person: bool = False
    store: bool = False

    @property
    def may_review(self) -> bool:
        """Whether this person sees originals, decides and publishes."""
        return self.role in ("reviewer", "admin")


@dataclass(frozen=True)
class Progress:
    """How far a job is; `fraction` is in [0, 1]."""

    step: int = 0
    steps: int = 0
    fraction: float = 0.0


@dataclass(frozen=True)
class ModelName:
    """The bundle that redrew an image."""

    name: str = ""
    version: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Figures:
    """What was measured on one redrawn image.

    Attributes
    ----------
    identity_similarity
        Cosine of the identity embeddings of original and result, in [-1, 1].
    findings_before, findings_after
        Probability of each finding, as the reader of the bundle sees original and result.
    """

    identity_similarity: float = 0.0
    findings_before: Mapping[str, float] = field(default_factory=dict)
    findings_after: Mapping[str, float] = field(default_factory=dict)
    strength: float = 0.0
    attempts: int = 0
    text_state: str = ""
    text_boxes: int = 0
    markers_redrawn: int = 0


@dataclass(frozen=True)
class Claim:
    """Who works on a job, and until when (ISO 8601)."""

    by: str = ""
    until: str = ""


@dataclass(frozen=True)
class Approval:
    """The decision of a reviewer; the comment is for reviewers alone."""

    decision: str = ""
    by: str = ""
    at: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Published:
    """When a store took the image (ISO 8601)."""

    at: str = ""


@dataclass(frozen=True)
class Job:
    """One image on the server; times are ISO 8601 in UTC, None stands for "not yet"."""

    id: str
    state: JobState
    priority: str = ""
    image: str = ""
    batch: str = ""
    submitter: str = ""
    created: str | None = None
    started: str | None = None
    finished: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    model: ModelName = field(default_factory=ModelName)
    progress: Progress = field(default_factory=Progress)
    position: int | None = None
    eta_seconds: float | None = None
    attempts: int = 0
    sha256: str = ""
    media_type: str = ""
    reason: str = ""
    figures: Figures | None = None
    linkage_limit: float | None = None
    claim: Claim | None = None
    approvals: tuple[str, ...] = ()
    review: Approval | None = None
    published: Published | None = None

    @property
    def is_held_back(self) -> bool:
        """Whether there are bytes that did not pass the gates: reviewers may see and reject them.

        Without them the image was held before it was redrawn.
        """
        return self.state is JobState.HELD and bool(self.media_type)

    @classmethod
    def from_json(cls, answer: Any) -> Job:
        """Read what the server says of a job.

        Examples
        --------
        >>> Job.from_json({"id": "0f", "state": "queued", "news": 1}).state.is_waiting
        True
        """
        known = _known(cls, answer)
        known["state"] = JobState(known["state"])
        known["model"] = record(ModelName, answer.get("model") or {})
        known["progress"] = record(Progress, answer.get("progress") or {})
        known["approvals"] = tuple(answer.get("approvals") or ())
        parts = (("figures", Figures), ("claim", Claim), ("review", Approval))
        for name, kind in (*parts, ("published", Published)):
            known[name] = record(kind, answer[name]) if answer.get(name) else None
        return cls(**known)


@dataclass(frozen=True)
class JobPage:
    """A part of the list of jobs; `next` is where to go on, None at the end."""

    jobs: tuple[Job, ...]
    next: str | None
    counts: Mapping[str, int]

    @classmethod
    def from_json(cls, answer: Any) -> JobPage:
        """Read a page."""
        jobs = tuple(Job.from_json(job) for job in answer.get("jobs", ()))
        following = answer.get("next")
        return cls(jobs, None if following is None else str(following), answer.get("counts") or {})


@dataclass(frozen=True)
class Measured:
    """The risk and the worth of one setting, as measured on `n` patients.

    Attributes
    ----------
    linkage_auc, interval
        How well the redrawn image is matched with its original, 0.5 is chance, and the 95 %
        interval of that.
    findings_auc
        How well findings are read from the redrawn image.
    """

    linkage_auc: float
    findings_auc: float
    n: int = 0
    interval: tuple[float, ...] = ()


@dataclass(frozen=True)
class Model:
    """A bundle that the server has.

    Attributes
    ----------
    id
        What a job names as its model.
    default
        Whether jobs take it that name none.
    problem
        Why it cannot be used; empty: it can.
    linkage_limit
        Above this likeness of source and result an attempt fails; None where it is not known.
    measured
        Figures by profile and strength.
    """

    id: str
    name: str = ""
    version: str = ""
    sha256: str = ""
    default: bool = False
    problem: str = ""
    profiles: tuple[str, ...] = ()
    operating_points: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    measured: Mapping[str, Mapping[str, Measured]] = field(default_factory=dict)
    linkage_limit: float | None = None

    @classmethod
    def from_json(cls, answer: Any) -> Model:
        """Read one bundle."""
        known = _known(cls, answer)
        known.update(_known(cls, answer.get("bundle") or {}))
        known["profiles"] = tuple(known.get("profiles") or ())
        known["measured"] = {
            profile: {strength: record(Measured, cell) for strength, cell in row.items()}
            for profile, row in (known.get("measured") or {}).items()
        }
        return record(cls, known)

    def nearest_measured(self, profile: str, strength: float) -> tuple[float, Measured] | None:
        """Return the measured strength of a profile that is nearest, with its figures."""
        row = {float(key): figures for key, figures in self.measured.get(profile, {}).items()}
        if not row:
            return None
        nearest = min(row, key=lambda measured: abs(measured - strength))
        return nearest, row[nearest]


@dataclass(frozen=True, repr=False)
class Download:
    """Bytes that came from the server and were checked.

    Attributes
    ----------
    content
        The bytes.
    sha256
        Of the file of record of the job, in hexadecimal digits.
    media_type
        Of `content`.
    """

    content: bytes
    sha256: str
    media_type: str

    def __repr__(self) -> str:
        return f"Download({len(self.content)} bytes of {self.media_type})"


@dataclass(frozen=True)
class Publication:
    """What became of publishing: the job, and what the store said."""

    job: Job
    store_answer: str


Record = TypeVar("Record")


def record(kind: type[Record], answer: Any) -> Record:
    """Return a record of the fields that it knows.

    Raises
    ------
    UnexpectedAnswer
        If the answer is no JSON object or lacks a field.

    Examples
    --------
    >>> record(Progress, {"step": 1, "steps": 4, "fraction": 0.25, "colour": "red"})
    Progress(step=1, steps=4, fraction=0.25)
    """
    try:
        return kind(**_known(kind, answer))
    except TypeError:
        raise UnexpectedAnswer(
            "the answer holds no {kind}",
            "check that this is a PrivDiff server",
            kind=kind.__name__,
        ) from None


def _known(kind: Any, answer: Any) -> dict[str, Any]:
    """Return the values of the fields of a record; a null where a default stands is left out."""
    required = ("id", "state") if kind is Job else ()
    if not isinstance(answer, Mapping) or any(name not in answer for name in required):
        raise UnexpectedAnswer(
            "the answer holds no {kind}",
            "check that this is a PrivDiff server",
            kind=kind.__name__,
        )
    names = [known.name for known in fields(kind)]
    return {name: answer[name] for name in names if answer.get(name) is not None}
