"""One job, as the queue keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from monailabel_app.lib.jobs.states import JobState, Priority
from privdiff_infer.dicom.web import WebInstance
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.sources import Source
from privdiff_infer.vocabulary import OutputSize, Profile


class JobOptions(BaseModel):
    """What a client chooses for an image; the device and the threads are the server's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("", max_length=100, description="Bundle by name; empty: the default one.")
    profile: Profile = Profile.STANDARD
    strength: float | None = Field(
        None, gt=0, le=1, description="Part of the noise that is added; none: the bundle's choice."
    )
    seed: int | None = Field(None, ge=0, lt=2**63, description="None: from the operating system.")
    output_format: OutputFormat = OutputFormat.AUTO
    output_size: OutputSize = OutputSize.MODEL


@dataclass(frozen=True)
class NewJob:
    """What is queued.

    Attributes
    ----------
    source
        Where the original is. Private.
    submitter
        Name of the principal.
    options
        What they chose.
    priority
        Interactive work overtakes batches.
    image
        Id in the datastore, or empty for an upload.
    batch
        What groups jobs that were queued together, or empty.
    idempotency_key
        The same key of the same submitter gives the same job; empty: none.
    id
        Of the job, where its file was stored before; empty: a new one.
    """

    source: Source
    submitter: str
    options: JobOptions = field(default_factory=JobOptions)
    priority: Priority = Priority.INTERACTIVE
    image: str = ""
    batch: str = ""
    idempotency_key: str = ""
    id: str = ""


@dataclass(frozen=True)
class Job:
    """A row of the queue.

    Times are seconds since 1970 (UTC); 0 and empty text stand for "not yet".

    Attributes
    ----------
    sequence
        Order of arrival.
    id
        32 hexadecimal digits; names its folder.
    state, priority, submitter, image, batch, idempotency_key, options
        As queued.
    source
        JSON of the source; see `decode_source`. Private.
    created, started, finished
        When.
    not_before
        A retry waits until then.
    attempts
        How often it was begun.
    step, steps
        Of the diffusion in work.
    model, model_version, model_sha256
        What redrew it.
    linkage_limit
        Of its gate; None before it was begun.
    output, sha256
        The result, by its path in the folder of the job, and its bytes.
    reason
        Why there is none, why it is held, or what it waits for; constant text that may leave.
    figures
        `journal.Figures` as a mapping, or None.
    claimed_by, claimed_until
        Reviewer who works on it.
    first_approver
        Who approved where two people must.
    decided_by, decided, comment
        The decision; the comment is private.
    published
        When the store took it.
    cleaned
        When its pictures were deleted.
    """

    sequence: int
    id: str
    state: JobState
    priority: int
    submitter: str
    image: str
    batch: str
    idempotency_key: str
    source: str
    options: Mapping[str, Any]
    created: float
    started: float
    finished: float
    not_before: float
    attempts: int
    step: int
    steps: int
    model: str
    model_version: str
    model_sha256: str
    linkage_limit: float | None
    output: str
    sha256: str
    reason: str
    figures: Mapping[str, Any] | None
    claimed_by: str
    claimed_until: float
    first_approver: str
    decided_by: str
    decided: float
    comment: str
    published: float
    cleaned: float

    @property
    def chosen(self) -> JobOptions:
        """The options as a model."""
        return JobOptions.model_validate(self.options)

    def is_claimed_by_other(self, name: str, now: float) -> bool:
        """Tell whether another reviewer works on it."""
        return self.claimed_by not in ("", name) and self.claimed_until > now


def encode_source(source: Source) -> str:
    """Return a source as text that `decode_source` reads.

    Examples
    --------
    >>> decode_source(encode_source(Path("/images/a.dcm"))).as_posix()
    '/images/a.dcm'
    """
    if isinstance(source, WebInstance):
        return json.dumps([source.store_url, source.study, source.series, source.instance])
    return json.dumps([str(source)])


def decode_source(text: str) -> Source:
    """Return the source of a job."""
    parts = json.loads(text)
    return Path(parts[0]) if len(parts) == 1 else WebInstance(*parts)
