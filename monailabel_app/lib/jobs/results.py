"""The bytes of a job: its file of record, the same pixels in other formats, pictures, reports."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath

import numpy as np

from monailabel_app.lib.errors import Conflict, Forbidden, NotFound
from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.jobs.states import WAITING, JobState
from monailabel_app.lib.jobs.views import MEDIA_TYPES, media_type
from monailabel_app.lib.security.roles import Principal, Role
from monailabel_app.lib.server import Server
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.image_files import decode_nrrd, encode_image
from privdiff_infer.radiograph import decode_radiograph
from privdiff_infer.release import is_released


class ResultKind(str, Enum):
    """What of a result is wanted.

    ``file`` is the file of record; ``dicom`` the same where it is one; ``nrrd`` and ``png`` are
    made from it.
    """

    FILE = "file"
    DICOM = "dicom"
    NRRD = "nrrd"
    PNG = "png"


class ReportKind(str, Enum):
    """Form of the release report."""

    JSON = "json"
    HTML = "html"


MADE = {ResultKind.NRRD: OutputFormat.NRRD, ResultKind.PNG: OutputFormat.PNG}
REPORT_TYPES = {ReportKind.JSON: "application/json", ReportKind.HTML: "text/html; charset=utf-8"}


@dataclass(frozen=True)
class Sent:
    """What goes to a client.

    Attributes
    ----------
    content, media_type
        The bytes.
    name
        Of a file to save them in; tells nothing of the source.
    sha256
        Of the file of record that they come from; empty where they come from none.
    """

    content: bytes
    media_type: str
    name: str
    sha256: str = ""


def result_of(at: Server, job: Job, who: Principal, kind: ResultKind) -> Sent:
    """Return the result of a job.

    Raises
    ------
    Forbidden
        If it is held and who asks is no reviewer.
    NotFound
        If there is none, or it was deleted.
    Conflict
        If there is none yet, it is of another format, or its bytes were changed.
    """
    is_held = job.output and not is_released(job.output)  # also once it was rejected
    if (is_held or job.state is JobState.HELD) and not who.role.includes(Role.REVIEWER):
        raise Forbidden(Role.REVIEWER.value)
    content = _file_of_record(at, job)
    output = PurePosixPath(job.output)
    if kind in MADE and MADE[kind].suffix != output.suffix:
        made = MADE[kind]
        content = encode_image(*_pixels(content, output.suffix), made)
        return Sent(content, MEDIA_TYPES[made.suffix], output.stem + made.suffix, job.sha256)
    if kind is ResultKind.DICOM and output.suffix != OutputFormat.DICOM.suffix:
        raise Conflict(
            f"this result is no DICOM file but {media_type(job.output)}",
            "ask for kind=file, or queue the image again with output_format=dicom",
        )
    return Sent(content, media_type(job.output), output.name, job.sha256)


def picture_of(at: Server, job: Job, kind: str) -> Sent:
    """Return a review picture: ``original`` or ``difference``.

    Raises
    ------
    NotFound
        If there is none, or it was deleted.
    Conflict
        If there is none yet.
    """
    _require_output(job)
    name = f"{PurePosixPath(job.output).stem}-{kind}.png"
    content = _read(at.folder.job(job.id).review / name)
    return Sent(content, MEDIA_TYPES[".png"], name, job.sha256)


def report_of(at: Server, job: Job, kind: ReportKind) -> Sent:
    """Return the release report of a job.

    Raises
    ------
    NotFound
        If there is none.
    Conflict
        If there is none yet.
    """
    _require_done(job)
    name = f"report.{kind.value}"
    return Sent(_read(at.folder.job(job.id).release / name), REPORT_TYPES[kind], name)


def _file_of_record(at: Server, job: Job) -> bytes:
    _require_output(job)
    content = _read(at.folder.job(job.id).root / job.output)
    if hashlib.sha256(content).hexdigest() != job.sha256:
        raise Conflict(
            "the file of this job is not the one that was written",
            "ask the administrator to run privdiff verify on its folder",
        )
    return content


def _pixels(content: bytes, suffix: str) -> tuple[np.ndarray, tuple[float, float] | None]:
    if suffix == OutputFormat.NRRD.suffix:
        return decode_nrrd(content)
    radiograph = decode_radiograph(content)
    return radiograph.pixels, radiograph.spacing_mm


def _require_output(job: Job) -> None:
    _require_done(job)
    if not job.output:
        raise NotFound(
            f"this job is {job.state.value} and has no result", "its reason says what to do"
        )


def _require_done(job: Job) -> None:
    if job.state in WAITING:
        raise Conflict(f"this job is {job.state.value}", "ask again when it is done")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise NotFound(
            "there is no such file of this job, or no longer", "queue the image again"
        ) from None
