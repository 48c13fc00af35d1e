"""Uploads and images of the datastore into the queue; all uploads are kept before one is queued."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from monailabel_app.lib.errors import BadRequest, Busy
from monailabel_app.lib.jobs.job import Job, JobOptions, NewJob
from monailabel_app.lib.jobs.states import JobState, Priority
from monailabel_app.lib.security.roles import Principal
from monailabel_app.lib.server import Server
from privdiff_infer.audit import Event
from privdiff_infer.release import PRIVATE_MODE, reporting_disk_errors


@dataclass(frozen=True)
class Wish:
    """What a client chose for all images of one request.

    Attributes
    ----------
    options
        How they are redrawn.
    priority, batch
        As `NewJob` says.
    idempotency_key
        Of the request; each job has its place in the request besides. Empty: none.
    """

    options: JobOptions
    priority: Priority = Priority.INTERACTIVE
    batch: str = ""
    idempotency_key: str = ""


def queue(
    at: Server, who: Principal, uploads: Sequence[BinaryIO], images: Sequence[str], wish: Wish
) -> tuple[list[Job], bool]:
    """Queue a request; return its jobs, uploads first, and whether one of them is new.

    Raises
    ------
    BadRequest
        If there is nothing to queue, or the model has no strength of its own for the profile.
    NotFound
        If an image or the model is not there.
    Busy
        If the queue is full.
    OutputError
        If an upload cannot be kept, or the audit log not be written.
    """
    if not uploads and not images:
        raise BadRequest("there is nothing to queue", "send files, or name images")
    check_options(at, wish.options)
    common = NewJob(
        source=at.folder.uploads,  # each has its own
        submitter=who.name,
        options=wish.options,
        priority=wish.priority,
        batch=wish.batch,
    )
    from_store = [
        replace(common, source=source, image=image, id=uuid.uuid4().hex)
        for image in images
        for source in at.studies.sources(image)
    ]
    places = range(len(uploads) + len(from_store))
    keys = [f"{wish.idempotency_key}:{place}" if wish.idempotency_key else "" for place in places]
    known = [at.jobs.with_key(who.name, key) for key in keys]
    check_room(at, known.count(None))
    keep = _Uploads(at)
    try:
        sent = [
            replace(common, source=at.folder.upload(job_id), id=job_id)
            for job_id in (
                keep.store(upload) if before is None else before.id
                for upload, before in zip(uploads, known[: len(uploads)], strict=True)
            )
        ]
        added = [
            (before, False) if before else queue_one(at, replace(new, idempotency_key=key))
            for new, key, before in zip([*sent, *from_store], keys, known, strict=True)
        ]
    finally:
        keep.delete_unused()
    return [job for job, _ in added], any(is_new for _, is_new in added)


class _Uploads:
    """Originals of one request on the disk, which go again where no job needs them."""

    def __init__(self, at: Server) -> None:
        self._folder = at.folder
        self._jobs = at.jobs
        self._ids: list[str] = []

    def store(self, content: BinaryIO) -> str:
        """Keep an upload under the id of a job to come, and return that."""
        job_id = uuid.uuid4().hex
        self._ids.append(job_id)
        path = self._folder.upload(job_id)
        with reporting_disk_errors():
            path.touch(PRIVATE_MODE)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
                file.flush()
                os.fsync(file.fileno())
        return job_id

    def delete_unused(self) -> None:
        """Delete what belongs to no job."""
        for job_id in self._ids:
            if not self._jobs.has(job_id):
                self._folder.upload(job_id).unlink(missing_ok=True)


def queue_one(at: Server, new: NewJob) -> tuple[Job, bool]:
    """Queue a job that has an id; return it, and whether it is new; see `JobStore.add`.

    Raises
    ------
    OutputError
        If the audit log cannot be written.
    """
    at.audit.record(Event.JOB_QUEUED, job=new.id, by=new.submitter)
    return at.jobs.add(new)


def check_options(at: Server, options: JobOptions) -> None:
    """Check that a model can do what was chosen.

    Raises
    ------
    NotFound
        If there is no such model.
    BadRequest
        If it has no strength of its own for the profile.
    """
    _, bundle = at.models.resolve(options.model)
    if options.strength is None and options.profile not in bundle.metadata.operating_points:
        raise BadRequest(
            f"this model has no strength of its own for {options.profile.value}",
            "send a strength, or choose another profile",
        )


def check_room(at: Server, count: int) -> None:
    """Raise `Busy` where so many jobs more are too many."""
    if at.jobs.counts()[JobState.QUEUED] + count > at.settings.max_queued:
        raise Busy("the queue is full", "send it again when some jobs are done")
