"""Batch inference: queues many images and waits for them, in a process that MONAI Label starts.

What an earlier batch has done with the same options is not done again. The process can be killed at
any time: the jobs are in the queue, and the manifest is written as a whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from pydantic import BaseModel, ConfigDict

from monailabel_app.lib.errors import BadRequest
from monailabel_app.lib.infers.params import check_json, job_options
from monailabel_app.lib.jobs.job import Job, JobOptions, NewJob, encode_source
from monailabel_app.lib.jobs.queueing import check_room, queue_one
from monailabel_app.lib.jobs.states import WAITING, JobState, Priority
from monailabel_app.lib.jobs.store import JOBS
from monailabel_app.lib.security.roles import LOCAL
from monailabel_app.lib.server import Server
from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.errors import PrivDiffError
from privdiff_infer.release import json_bytes, write_private
from privdiff_infer.sources import Source

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0

REQUEST = ".request.json"

TO_REPEAT = frozenset({JobState.FAILED, JobState.CANCELLED})
"""What an earlier batch left without a result."""


class BatchRequest(BaseModel):
    """What a batch is to do.

    It lies in a file: MONAI Label writes requests into the arguments of the process, which
    everybody sees and which a few thousand ids would overflow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: BatchInferImageType | tuple[str, ...] = BatchInferImageType.IMAGES_ALL
    options: JobOptions = JobOptions()
    submitter: str = LOCAL.name

    @classmethod
    def of(cls, params: Mapping[str, Any], images: str, submitter: str) -> BatchRequest:
        """Read the params of a client.

        Parameters
        ----------
        params
            Options of the jobs; a list `images` of ids overrides the next one.
        images
            all, labeled or unlabeled.
        submitter
            Name of who asks.

        Raises
        ------
        BadRequest
            If a key is unknown or a value impossible.
        """
        check_json(params)
        named = params.get("images", images)
        if named not in [*BatchInferImageType] and not _is_list_of_text(named):
            raise BadRequest("images is no list of ids", "send ids, or all, labeled or unlabeled")
        options = job_options({name: params[name] for name in params.keys() - {"images"}})
        return cls(images=named, options=options, submitter=submitter)

    def save(self, folder: StateFolder) -> str:
        """Write the file; return the id of the batch."""
        batch = uuid.uuid4().hex
        write_private(_request_file(folder, batch), self.model_dump_json().encode())
        return batch

    @classmethod
    def load(cls, folder: StateFolder, batch: str) -> BatchRequest:
        """Read the file of a batch."""
        return cls.model_validate_json(_request_file(folder, batch).read_bytes())


class PrivDiffBatch:
    """Redraws many originals of the datastore.

    Parameters
    ----------
    server
        The parts of the server.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def __call__(
        self, request: Mapping[str, Any], datastore: Datastore, infer: Callable[..., Any]
    ) -> dict[str, Any]:
        """Queue the images and wait for all of them.

        Parameters
        ----------
        request
            `batch` is the id that `BatchRequest.save` gave.
        datastore
            Knows which images have labels.
        infer
            Of MONAI Label, which takes one image at a time.

        Returns
        -------
        dict
            How many jobs are in which state. What became of every image is in the manifest.
        """
        batch = str(request["batch"])
        wanted = BatchRequest.load(self._server.folder, batch)
        manifest = Manifest(self._server.folder.batches / f"{batch}.json", batch)
        manifest.write()
        images = self._images(wanted, datastore)
        known = self._queued_before()
        for image_id in images:
            try:
                for job, is_new in self._queue(image_id, wanted, batch, known):
                    manifest.add(job, is_new)
            except PrivDiffError as error:
                manifest.fail(image_id, error.problem)
            except OSError:
                manifest.fail(image_id, "the file of this image cannot be read")
        manifest.write()
        self._follow(manifest)
        return manifest.counts()

    def _images(self, wanted: BatchRequest, datastore: Datastore) -> list[str]:
        """Return the originals that are meant; approved results are never redrawn."""
        if isinstance(wanted.images, tuple):
            return list(dict.fromkeys(wanted.images))
        originals = self._server.studies.entries()
        if wanted.images is BatchInferImageType.IMAGES_LABELED:
            return [image for image in datastore.get_labeled_images() if image in originals]
        if wanted.images is BatchInferImageType.IMAGES_UNLABELED:
            return [image for image in datastore.get_unlabeled_images() if image in originals]
        return list(originals)

    def _queued_before(self) -> dict[str, str]:
        """Return the job of every key of earlier batches, whoever asked for them."""
        theirs = (JOBS.c.batch != "") & (JOBS.c.idempotency_key != "")
        query = sa.select(JOBS.c.idempotency_key, JOBS.c.id).where(theirs)
        with self._server.jobs.engine.connect() as connection:
            return {row.idempotency_key: row.id for row in connection.execute(query)}

    def _queue(
        self, image_id: str, wanted: BatchRequest, batch: str, known: Mapping[str, str]
    ) -> Iterator[tuple[Job, bool]]:
        sources = self._server.studies.sources(image_id)
        check_room(self._server, len(sources))
        for source in sources:
            for attempt in count():
                key = _key(source, wanted.options, attempt)
                if key not in known:
                    new = NewJob(
                        source,
                        wanted.submitter,
                        wanted.options,
                        Priority.BATCH,
                        image_id,
                        batch,
                        idempotency_key=key,
                        id=uuid.uuid4().hex,
                    )
                    yield queue_one(self._server, new)
                    break
                before = self._server.jobs.get(known[key])
                if before.state not in TO_REPEAT:
                    yield before, False
                    break

    def _follow(self, manifest: Manifest) -> None:
        while manifest.waiting():
            time.sleep(POLL_SECONDS)
            for job_id in manifest.waiting():
                manifest.update(self._server.jobs.get(job_id))
            if manifest.has_changed:
                manifest.write()


class Manifest:
    """What became of every image of a batch: a file that always holds for some moment.

    Parameters
    ----------
    path
        Of the file.
    batch
        Id of the batch.
    """

    def __init__(self, path: Path, batch: str) -> None:
        self._path = path
        self._batch = batch
        self._jobs: dict[str, tuple[Job, bool]] = {}
        self._refused: dict[str, str] = {}
        self.has_changed = True

    def add(self, job: Job, is_new: bool) -> None:
        """Take a job in, which this batch queued or an earlier one."""
        self._jobs[job.id] = (job, is_new)

    def fail(self, image_id: str, reason: str) -> None:
        """Note an image that could not be queued."""
        self._refused[image_id] = reason

    def update(self, job: Job) -> None:
        """Note what a job is by now."""
        before, is_new = self._jobs[job.id]
        self.has_changed |= before.state is not job.state
        self._jobs[job.id] = (job, is_new)

    def waiting(self) -> list[str]:
        """Return the jobs that the machine has still to do with."""
        return [job.id for job, _ in self._jobs.values() if job.state in WAITING]

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in which state, and how many images were refused."""
        states = Counter(job.state.value for job, _ in self._jobs.values())
        return {**states, "refused": len(self._refused)}

    def content(self) -> dict[str, Any]:
        """Return the counts and one record a job or refused image, in JSON's types."""
        refused = [
            {"image": image, "state": "refused", "reason": reason}
            for image, reason in self._refused.items()
        ]
        records = [_record(job, is_new) for job, is_new in self._jobs.values()]
        return {"batch": self._batch, "counts": self.counts(), "images": [*records, *refused]}

    def write(self) -> None:
        """Write the file, and one line of progress for who started the batch."""
        write_private(self._path, json_bytes(self.content()))
        logger.info(
            "batch: %d of %d done: %s",
            len(self._jobs) - len(self.waiting()),
            len(self._jobs),
            ", ".join(f"{number} {state}" for state, number in sorted(self.counts().items())),
        )
        self.has_changed = False


def _record(job: Job, is_new: bool) -> dict[str, Any]:
    return {
        "image": job.image,
        "job": job.id,
        "state": job.state.value,
        "reason": job.reason,
        "sha256": job.sha256,
        "skipped": not is_new,
    }


def _key(source: Source, options: JobOptions, attempt: int) -> str:
    """Return what names the work on an original: a file that was changed is another original."""
    version = source.stat().st_mtime_ns if isinstance(source, Path) else 0
    parts = [encode_source(source), version, options.model_dump(mode="json"), attempt]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def batches(folder: StateFolder) -> list[str]:
    """Return the ids of all batches, the newest last."""
    files = folder.batches.glob(f"*{REQUEST}")
    return [
        path.name.removesuffix(REQUEST) for path in sorted(files, key=lambda p: p.stat().st_mtime)
    ]


def _request_file(folder: StateFolder, batch: str) -> Path:
    return folder.batches / f"{batch}{REQUEST}"


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
