"""Routes of jobs: queue, look, cancel, fetch."""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Header, Path, Query, Response, UploadFile

from monailabel_app.lib.jobs.cancelling import cancel
from monailabel_app.lib.jobs.job import Job, JobOptions
from monailabel_app.lib.jobs.queueing import Wish, queue
from monailabel_app.lib.jobs.results import (
    ReportKind,
    ResultKind,
    Sent,
    picture_of,
    report_of,
    result_of,
)
from monailabel_app.lib.jobs.states import JobState, Priority
from monailabel_app.lib.jobs.store import unknown_job
from monailabel_app.lib.jobs.views import EXAMPLE_ID, JobsAnswer, JobsPage, JobView
from monailabel_app.lib.security.roles import Principal, Require, Role
from monailabel_app.lib.server import Server, server
from privdiff_infer.audit import Event
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.vocabulary import OutputSize, Profile

router = APIRouter(prefix="/privdiff/v1/jobs", tags=["Jobs"])

MOST_IN_A_PAGE = 1000
MOST_IMAGES = 1000

JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", examples=[EXAMPLE_ID])]
User = Annotated[Principal, Depends(Require(Role.USER))]
Reviewer = Annotated[Principal, Depends(Require(Role.REVIEWER))]
At = Annotated[Server, Depends(server)]


class PriorityName(str, Enum):
    """Interactive jobs overtake batches."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class PictureKind(str, Enum):
    """Review pictures have one format."""

    PNG = "png"


def _job(job_id: JobId, who: User, at: At) -> Job:
    """Return a job that this principal may see; another user's is not there for them."""
    job = at.jobs.get(job_id)
    if not who.role.includes(Role.REVIEWER) and job.submitter != who.name:
        raise unknown_job()
    return job


Seen = Annotated[Job, Depends(_job)]


def _refusals(**reasons: str) -> dict[int | str, dict[str, Any]]:
    return {int(name.removeprefix("s")): {"description": text} for name, text in reasons.items()}


def _bytes(description: str, *media_types: str) -> dict[int | str, dict[str, Any]]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    hashes = {
        "X-PrivDiff-SHA256": {
            "description": "SHA-256 of the file of record.",
            "schema": {"type": "string"},
        },
        "ETag": {
            "description": "SHA-256 of what is sent.",
            "schema": {"type": "string"},
        },
    }
    content = dict.fromkeys(media_types, binary)
    return {200: {"description": description, "content": content, "headers": hashes}}


UNKNOWN = "There is no such job, or it is another user's."
NOT_YET = "It is not done yet."


@router.post(
    "",
    summary="Queue images",
    status_code=201,
    responses={
        200: {"model": JobsAnswer, "description": "All were queued before under this key."},
        **_refusals(
            s400="There is nothing to queue, or an option is impossible.",
            s404="There is no such image or model.",
            s413="The request is larger than this server takes.",
            s429="The queue is full.",
        ),
    },
)
def queue_images(
    who: User,
    at: At,
    response: Response,
    files: Annotated[
        list[UploadFile] | None,
        File(description="Images: DICOM, PNG, JPEG, NIfTI or NRRD, told by their content."),
    ] = None,
    images: Annotated[
        list[str] | None,
        Form(max_length=MOST_IMAGES, description="Ids of the datastore.", examples=[[]]),
    ] = None,
    model: Annotated[
        str, Form(max_length=100, description="Bundle by name; empty: the default one.")
    ] = "",
    profile: Annotated[Profile, Form(description="Way of sampling.")] = Profile.STANDARD,
    strength: Annotated[
        float | None,
        Form(gt=0, le=1, description="Part of the noise that is added; none: the bundle's choice."),
    ] = None,
    seed: Annotated[
        int | None, Form(ge=0, lt=2**63, description="None: from the operating system.")
    ] = None,
    output_format: Annotated[OutputFormat, Form()] = OutputFormat.AUTO,
    output_size: Annotated[OutputSize, Form()] = OutputSize.MODEL,
    priority: Annotated[PriorityName, Form()] = PriorityName.INTERACTIVE,
    batch: Annotated[
        str, Form(max_length=100, description="Groups jobs.", examples=["monday"])
    ] = "",
    idempotency_key: Annotated[
        str,
        Header(max_length=150, description="The same key gives the same jobs, without new ones."),
    ] = "",
) -> JobsAnswer:
    """Queue every file and every image as a job of its own, files first.

    What is in a file is looked at when its turn comes: one that cannot be read is a failed job
    with a reason.
    """
    wish = Wish(
        JobOptions(
            model=model,
            profile=profile,
            strength=strength,
            seed=seed,
            output_format=output_format,
            output_size=output_size,
        ),
        Priority[priority.name],
        batch,
        idempotency_key,
    )
    jobs, is_new = queue(at, who, [upload.file for upload in files or ()], images or (), wish)
    if not is_new:
        response.status_code = 200
    return JobsAnswer(jobs=JobView.several(at, jobs, who))


@router.get("", summary="List jobs")
def list_jobs(
    who: User,
    at: At,
    state: Annotated[list[JobState] | None, Query(description="May be repeated.")] = None,
    batch: Annotated[str | None, Query(max_length=100)] = None,
    image: Annotated[str | None, Query(max_length=1000, description="Id of the datastore.")] = None,
    after: Annotated[int, Query(ge=0, lt=2**63, description="`next` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_IN_A_PAGE)] = 100,
) -> JobsPage:
    """Return jobs in order of arrival: of a user their own, of a reviewer all."""
    submitter = None if who.role.includes(Role.REVIEWER) else who.name
    page = at.jobs.page(
        states=state or (),
        submitter=submitter,
        batch=batch,
        image=image,
        after=after,
        limit=limit,
    )
    return JobsPage(
        jobs=JobView.several(at, page.jobs, who),
        next=page.next,
        counts=at.jobs.counts(submitter),
    )


@router.get("/{job_id}", summary="Look at a job", responses=_refusals(s404=UNKNOWN))
def get_job(job: Seen, who: User, at: At) -> JobView:
    """Return a job with its progress."""
    return JobView.of(at, job, who)


@router.delete(
    "/{job_id}",
    summary="Cancel a job",
    responses=_refusals(s404=UNKNOWN, s409="The machine is done with it."),
)
def cancel_job(job: Seen, who: User, at: At) -> JobView:
    """Cancel a job that waits or runs; its worker stops at the next step, and nothing is kept."""
    return JobView.of(at, cancel(at, job.id, who.name), who)


@router.get(
    "/{job_id}/result",
    summary="Fetch a result",
    response_class=Response,
    responses={
        **_bytes("The image.", "application/dicom", "image/png", "application/x-nrrd"),
        **_refusals(
            s403="It is held, and who asks is no reviewer.",
            s404=f"{UNKNOWN} Or it has no result.",
            s409=f"{NOT_YET} Or it is of another format.",
        ),
    },
)
def get_result(
    job: Seen,
    who: User,
    at: At,
    kind: Annotated[
        ResultKind, Query(description="The file of record, or its pixels in another format.")
    ] = ResultKind.FILE,
) -> Response:
    """Return the redrawn image."""
    return _answer(result_of(at, job, who, kind))


@router.get(
    "/{job_id}/source",
    summary="Look at the original",
    response_class=Response,
    responses={
        **_bytes("The original as the review shows it.", "image/png"),
        **_refusals(s404=f"{UNKNOWN} Or its original was deleted.", s409=NOT_YET),
    },
)
def get_source(job: Seen, who: Reviewer, at: At, kind: PictureKind = PictureKind.PNG) -> Response:
    """Return a picture of the original; the audit log keeps who saw it."""
    picture = picture_of(at, job, "original")
    at.audit.record(Event.ORIGINAL_SHOWN, job=job.id, by=who.name)
    return _answer(picture)


@router.get(
    "/{job_id}/difference",
    summary="Look at the difference",
    response_class=Response,
    responses={
        **_bytes("Red is lighter and blue darker than the original.", "image/png"),
        **_refusals(s404=f"{UNKNOWN} Or its original was deleted.", s409=NOT_YET),
    },
)
def get_difference(
    job: Seen, who: Reviewer, at: At, kind: PictureKind = PictureKind.PNG
) -> Response:
    """Return the picture of what was changed; with the result it gives the original."""
    picture = picture_of(at, job, "difference")
    at.audit.record(Event.ORIGINAL_SHOWN, job=job.id, by=who.name)
    return _answer(picture)


@router.get(
    "/{job_id}/report",
    summary="Fetch the release report",
    response_class=Response,
    responses={
        200: {
            "description": "The report.",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "text/html": {"schema": {"type": "string"}},
            },
        },
        **_refusals(s404=f"{UNKNOWN} Or it has no report.", s409=NOT_YET),
    },
)
def get_report(
    job: Seen, at: At, kind: Annotated[ReportKind, Query()] = ReportKind.JSON
) -> Response:
    """Return what may be told of the image beside itself."""
    return _answer(report_of(at, job, kind))


def _answer(sent: Sent) -> Response:
    headers = {
        "ETag": f'"{hashlib.sha256(sent.content).hexdigest()}"',
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{sent.name}"',
    }
    if sent.sha256:
        headers["X-PrivDiff-SHA256"] = sent.sha256
    return Response(sent.content, media_type=sent.media_type, headers=headers)
