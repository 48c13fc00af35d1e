"""Images into the queue, and out of it, for MONAI Label's routes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from monailabel_app.lib.errors import ApiError, Busy, Conflict
from monailabel_app.lib.jobs.job import Job, JobOptions
from monailabel_app.lib.jobs.queueing import Wish, queue
from monailabel_app.lib.jobs.states import WITH_RESULT, JobState
from monailabel_app.lib.security.roles import Principal
from monailabel_app.lib.server import Server

POLL_SECONDS = 0.1

INFER_TIMEOUT_SECONDS = 600.0


class Held(ApiError):
    """A gate stopped the image; a reviewer can look at it."""

    status, code = 409, "held"


class Failed(ApiError):
    """The image cannot be redrawn."""

    status, code = 422, "failed"


@dataclass(frozen=True)
class Result:
    """What came out of the queue.

    Attributes
    ----------
    file
        The redrawn image.
    params
        What MONAI Label's clients are told of it, in JSON's types.
    """

    file: Path
    params: dict[str, Any]


def queue_image(server: Server, image_id: str, options: JobOptions, who: Principal) -> Job:
    """Queue an image of the datastore, as interactive work.

    Raises
    ------
    NotFound
        If there is no such image.
    Conflict
        If it has several originals, for there is one answer only.
    ApiError
        As `jobs.queueing.queue`.
    """
    originals = len(server.studies.sources(image_id))
    if originals != 1:
        raise Conflict(
            f"this image has {originals} originals, and one answer holds one result",
            "queue it with POST /privdiff/v1/jobs or with batch inference",
        )
    [job], _ = queue(server, who, [], [image_id], Wish(options))
    return job


def queue_upload(server: Server, content: BinaryIO, options: JobOptions, who: Principal) -> Job:
    """Queue what was sent, as interactive work.

    Raises
    ------
    ApiError
        As `jobs.queueing.queue`.
    """
    [job], _ = queue(server, who, [content], [], Wish(options))
    return job


def result_of(server: Server, job: Job) -> Result:
    """Return what a finished job gave.

    Raises
    ------
    ApiError
        If that is nothing that may be sent: held, failed, cancelled, rejected.
    """
    if job.state is JobState.HELD:
        raise Held(f"held: {job.reason}", f"ask a reviewer to look at job {job.id}")
    if job.state is JobState.FAILED:
        raise Failed(f"not redrawn: {job.reason}", "see the troubleshooting guide for this reason")
    if job.state not in WITH_RESULT or job.state is JobState.REJECTED:
        raise Conflict(f"the job of this image is {job.state.value}", "send the image again")
    params = {
        "job": job.id,
        "state": job.state.value,
        "sha256": job.sha256,
        "model": job.model,
        "model_version": job.model_version,
        "figures": job.figures,
    }
    return Result(server.folder.job(job.id).root / job.output, params)


def still_waiting(job: Job) -> Busy:
    """Return the answer to a client that has waited long enough."""
    return Busy(
        "the queue is long, and this image is not done yet",
        f"ask GET /privdiff/v1/jobs/{job.id} later; it stays in the queue",
    )
