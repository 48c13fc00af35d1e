"""Routes of reviewers: claim, decide, publish; and the page that calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field

from monailabel_app.lib.jobs.views import JobView
from monailabel_app.lib.review import publishing
from monailabel_app.lib.review.claims import claim, claim_next, give_back
from monailabel_app.lib.review.decisions import Verdict, decide
from monailabel_app.lib.review.pages import page_routes
from monailabel_app.lib.security.roles import Principal, Require, Role
from monailabel_app.lib.server import Server, server

api = APIRouter(prefix="/privdiff/v1", tags=["Review"])

pages = page_routes(
    "/privdiff/review", Path(__file__).resolve().parent / "static", "The review page"
)

EXAMPLE_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

JobId = Annotated[str, InPath(pattern="^[0-9a-f]{32}$", examples=["0f" * 16])]
Reviewer = Annotated[Principal, Depends(Require(Role.REVIEWER))]
At = Annotated[Server, Depends(server)]
Sha256 = Annotated[
    str,
    Field(
        pattern="^[0-9a-f]{64}$",
        description="Of the file of record, as X-PrivDiff-SHA256 gave it with the pixels.",
        examples=[EXAMPLE_SHA256],
    ),
]


def _refusals(**reasons: str) -> dict[int | str, dict[str, Any]]:
    return {int(name.removeprefix("s")): {"description": text} for name, text in reasons.items()}


UNKNOWN = "There is no such job."
IN_WORK = "Another request works in the folder of this job; try again."


class ReviewRequest(BaseModel):
    """A decision on the bytes that were shown."""

    model_config = ConfigDict(extra="forbid")

    decision: Verdict = Field(examples=["approved"])
    comment: str = Field(
        "", max_length=2000, description="Stays private.", examples=["Apex as before."]
    )
    sha256: Sha256


class PublishedRequest(BaseModel):
    """What a client says that it has sent."""

    model_config = ConfigDict(extra="forbid")

    sha256: Sha256
    store: str = Field(
        max_length=500,
        description="URL of the DICOMweb service, without credentials.",
        examples=["https://pacs.example/dicom-web"],
    )
    answer: str = Field(
        "",
        max_length=500,
        description="What the store said; UIDs in it are left out.",
        examples=["200 OK"],
    )


class PublishAnswer(BaseModel):
    """A published job."""

    job: JobView
    store_answer: str = Field(examples=["the store has taken it"])


@api.post(
    "/jobs/{job_id}/claim",
    summary="Claim a job",
    responses=_refusals(s404=UNKNOWN, s409="Another reviewer has it, or nothing can be decided."),
)
def claim_job(job_id: JobId, who: Reviewer, at: At) -> JobView:
    """Take a job for a while, so that no other reviewer does; claiming again renews it."""
    return JobView.of(at, claim(at, who, job_id), who)


@api.delete(
    "/jobs/{job_id}/claim",
    summary="Give a job back",
    responses=_refusals(s404=UNKNOWN, s409="Another reviewer has it."),
)
def give_job_back(job_id: JobId, who: Reviewer, at: At) -> JobView:
    """End the own claim; where nobody has the job, it stays as it is."""
    return JobView.of(at, give_back(at, who, job_id), who)


@api.post(
    "/review/next",
    summary="Claim the next job",
    responses=_refusals(s404="No further job awaits this reviewer."),
)
def next_job(
    who: Reviewer,
    at: At,
    after: Annotated[
        str,
        Query(
            pattern="^([0-9a-f]{32})?$", description="Look after this job; empty: from the start."
        ),
    ] = "",
) -> JobView:
    """Claim and return the oldest job that awaits review and no other reviewer has.

    A job that the caller has claimed already comes again. Where two people must approve, jobs that
    the caller queued or approved are passed over.
    """
    return JobView.of(at, claim_next(at, who, after), who)


@api.post(
    "/jobs/{job_id}/review",
    summary="Approve or reject",
    responses=_refusals(
        s404=UNKNOWN,
        s409="The bytes are others, the claim has ended or is another's, or the state forbids it.",
        s429=IN_WORK,
    ),
)
def review_job(job_id: JobId, said: ReviewRequest, who: Reviewer, at: At) -> JobView:
    """Record a decision, which holds for the bytes whose SHA-256 comes with it; repeat it at will.

    Where two people must approve, the first approval leaves the job awaiting review, and who queued
    the image cannot be one of the two. Either rejects alone. A decision can be changed by who
    claims the job, until the image was published; with two people, both must approve anew.
    """
    decided = decide(at, who, job_id, said.decision, said.sha256, said.comment)
    return JobView.of(at, decided, who)


@api.post(
    "/jobs/{job_id}/publish",
    summary="Publish to the server's store",
    responses=_refusals(
        s404=UNKNOWN,
        s409="It is not approved, or the store does not take it; nothing has changed.",
        s429=IN_WORK,
    ),
)
async def publish_job(job_id: JobId, who: Reviewer, at: At) -> PublishAnswer:
    """Send the approved bytes to the DICOMweb store of this server; repeat it at will."""
    job, answer = await publishing.publish(at, who, job_id)
    return PublishAnswer(job=JobView.of(at, job, who), store_answer=answer)


@api.post(
    "/jobs/{job_id}/published",
    summary="Report a publication of one's own",
    responses=_refusals(
        s404=UNKNOWN,
        s409="It is not approved, other bytes were sent, or another version is out already.",
        s429=IN_WORK,
    ),
)
def report_published(job_id: JobId, said: PublishedRequest, who: Reviewer, at: At) -> JobView:
    """Record that the caller sent the approved bytes to a store; repeat it at will."""
    job = publishing.report(at, who, job_id, said.sha256, said.store, said.answer)
    return JobView.of(at, job, who)


router = APIRouter()
"""All of these, and the page."""

router.include_router(api)
router.include_router(pages)
