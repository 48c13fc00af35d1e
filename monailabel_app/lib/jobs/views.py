"""Jobs as clients see them: no source name, no UID, no path."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field

from monailabel_app.lib.jobs.job import Job, JobOptions
from monailabel_app.lib.jobs.states import JobState, Priority
from monailabel_app.lib.jobs.turns import SLOTS_FOR_READING
from monailabel_app.lib.security.roles import Principal, Role
from monailabel_app.lib.server import Server
from privdiff_infer.burned_in_text import TextState

MEDIA_TYPES = {".dcm": "application/dicom", ".nrrd": "application/x-nrrd", ".png": "image/png"}

DECISIONS = {
    JobState.APPROVED: "approved",
    JobState.PUBLISHED: "approved",
    JobState.REJECTED: "rejected",
}

EXAMPLE_ID = "0f" * 16
EXAMPLE_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
EXAMPLE_TIME = "2026-01-31T12:00:00.000+00:00"


class ModelOfJob(BaseModel):
    """The bundle that redrew an image; empty texts before it was begun."""

    name: str = Field(examples=["privdiff-cxr-256"])
    version: str = Field(examples=["0.6.0"])
    sha256: str = Field(description="Of the bundle's metadata.", examples=[EXAMPLE_SHA256])


class ProgressView(BaseModel):
    """How far the diffusion in work is."""

    step: int = Field(examples=[12])
    steps: int = Field(description="0 before the first one.", examples=[50])
    fraction: float = Field(ge=0, le=1, examples=[0.24])


class FiguresView(BaseModel):
    """What was measured on the redrawn image, by the bundle's own networks."""

    identity_similarity: float = Field(
        description="Cosine of source and result under the identity network.", examples=[0.21]
    )
    findings_before: dict[str, float] = Field(examples=[{"effusion": 0.81}])
    findings_after: dict[str, float] = Field(examples=[{"effusion": 0.77}])
    strength: float = Field(description="Of the attempt that was kept.", examples=[0.7])
    attempts: int = Field(description="How often the gates let it be redrawn.", examples=[1])
    text_state: TextState = Field(description="Whether burned-in text was looked for.")
    text_boxes: int = Field(description="Places that were filled.", examples=[2])
    markers_redrawn: int = Field(description="Side markers that were drawn anew.", examples=[1])


class ClaimView(BaseModel):
    """The reviewer who works on it."""

    by: str = Field(examples=["reviewer-1"])
    until: str = Field(examples=[EXAMPLE_TIME])


class ReviewView(BaseModel):
    """What a person decided."""

    decision: str = Field(description="approved or rejected.", examples=["approved"])
    by: str = Field(examples=["reviewer-1"])
    at: str = Field(examples=[EXAMPLE_TIME])
    comment: str | None = Field(description="For reviewers alone, else null.")


class PublishedView(BaseModel):
    """When a store took the result."""

    at: str = Field(examples=[EXAMPLE_TIME])


class JobView(BaseModel):
    """One image on its way from upload to publication. Times are ISO 8601 in UTC."""

    model_config = ConfigDict(protected_namespaces=())

    id: str = Field(examples=[EXAMPLE_ID])
    state: JobState
    priority: str = Field(description="interactive or batch.", examples=["interactive"])
    image: str = Field(description="Id in the datastore; empty for an upload.", examples=[""])
    batch: str = Field(description="What groups jobs, or empty.", examples=["monday"])
    submitter: str = Field(examples=["annotator-1"])
    created: str = Field(examples=[EXAMPLE_TIME])
    started: str | None = Field(examples=[EXAMPLE_TIME])
    finished: str | None = Field(description="When the machine was done.", examples=[EXAMPLE_TIME])
    options: JobOptions
    model: ModelOfJob
    progress: ProgressView
    position: int | None = Field(
        description="Place in the queue, 1 is next; null unless queued.", examples=[3]
    )
    eta_seconds: float | None = Field(
        description="Until the machine is done, by the last jobs; null where nobody knows.",
        examples=[12.5],
    )
    attempts: int = Field(description="How often it was begun.", examples=[1])
    sha256: str = Field(
        description="Of the file of record; empty without result.", examples=[EXAMPLE_SHA256]
    )
    media_type: str | None = Field(description="Of the file.", examples=["application/dicom"])
    reason: str = Field(
        description="Why it failed, is held or waits; constant text.", examples=[""]
    )
    figures: FiguresView | None
    linkage_limit: float | None = Field(
        description="The gate of the bundle: above this similarity a result is held.",
        examples=[0.6],
    )
    claim: ClaimView | None
    approvals: list[str] = Field(description="Who approved.", examples=[["reviewer-1"]])
    review: ReviewView | None
    published: PublishedView | None

    @classmethod
    def of(cls, at: Server, job: Job, who: Principal) -> JobView:
        """Show a job to somebody who may see it."""
        return cls.several(at, [job], who)[0]

    @classmethod
    def several(cls, at: Server, jobs: Sequence[Job], who: Principal) -> list[JobView]:
        """Show jobs to somebody who may see them."""
        now, seconds = time.time(), at.jobs.seconds_per_job()
        places = at.jobs.positions(jobs)
        slots = at.settings.workers + SLOTS_FOR_READING
        return [
            cls._of(job, who, now, places.get(job.id), _eta(job, now, places, seconds, slots))
            for job in jobs
        ]

    @classmethod
    def _of(
        cls, job: Job, who: Principal, now: float, place: int | None, eta: float | None
    ) -> JobView:
        return cls(
            id=job.id,
            state=job.state,
            priority=Priority(job.priority).name.lower(),
            image=job.image,
            batch=job.batch,
            submitter=job.submitter,
            created=iso_time(job.created),
            started=iso_time(job.started) if job.started else None,
            finished=iso_time(job.finished) if job.finished else None,
            options=job.chosen,
            model=ModelOfJob(name=job.model, version=job.model_version, sha256=job.model_sha256),
            progress=ProgressView(step=job.step, steps=job.steps, fraction=_fraction(job)),
            position=place,
            eta_seconds=eta,
            attempts=job.attempts,
            sha256=job.sha256,
            media_type=media_type(job.output) if job.output else None,
            reason=job.reason,
            figures=FiguresView.model_validate(job.figures) if job.figures else None,
            linkage_limit=job.linkage_limit,
            claim=_claim(job, now),
            approvals=_approvals(job),
            review=_review(job, who),
            published=PublishedView(at=iso_time(job.published)) if job.published else None,
        )


class JobsAnswer(BaseModel):
    """The jobs of one request, in the order of its files and images."""

    jobs: list[JobView]


class JobsPage(BaseModel):
    """Part of a list of jobs, in order of arrival."""

    jobs: list[JobView]
    next: int | None = Field(
        description="What to send as `after` for the rest; null at the end.", examples=[100]
    )
    counts: dict[JobState, int] = Field(
        description="How many there are in every state, whatever was asked for.",
        examples=[{"queued": 12, "running": 1}],
    )


def iso_time(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC.

    Examples
    --------
    >>> iso_time(0.5)
    '1970-01-01T00:00:00.500+00:00'
    """
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def media_type(output: str) -> str:
    """Return the media type of a result by its name."""
    return MEDIA_TYPES[PurePosixPath(output).suffix]


def _fraction(job: Job) -> float:
    if job.finished:
        return 1.0
    return min(1.0, job.step / job.steps) if job.steps else 0.0


def _eta(
    job: Job, now: float, places: dict[str, int], seconds: float | None, slots: int
) -> float | None:
    """Return the seconds until a job is done: by its own steps, else by the last jobs."""
    if job.state is JobState.RUNNING:
        elapsed, fraction = now - job.started, _fraction(job)
        if fraction:
            return round(elapsed * (1 - fraction) / fraction, 1)
        return None if seconds is None else round(max(0.0, seconds - elapsed), 1)
    if job.id not in places or seconds is None:
        return None
    return round(seconds * (1 + (places[job.id] - 1) / slots), 1)


def _claim(job: Job, now: float) -> ClaimView | None:
    if not job.claimed_by or job.claimed_until <= now:
        return None
    return ClaimView(by=job.claimed_by, until=iso_time(job.claimed_until))


def _approvals(job: Job) -> list[str]:
    names = [job.first_approver]
    if DECISIONS.get(job.state) == "approved":
        names.append(job.decided_by)
    return list(dict.fromkeys(name for name in names if name))


def _review(job: Job, who: Principal) -> ReviewView | None:
    decision = DECISIONS.get(job.state)
    if decision is None or not job.decided_by:
        return None
    comment = job.comment if who.role.includes(Role.REVIEWER) else None
    return ReviewView(
        decision=decision, by=job.decided_by, at=iso_time(job.decided), comment=comment
    )
