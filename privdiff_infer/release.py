"""The two folders of a run: release/ may leave, private/ must not."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from privdiff_infer.errors import OutputError
from privdiff_infer.seeds import RELEASE_NAME

CSV_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
PARTIAL = ".partial-"

PUBLIC_MODE = 0o644
PRIVATE_MODE = 0o600

RELEASE_TIME = 946_684_800
"""2000-01-01 UTC, the time of every file in release/: true ones give the order of the sources away,
and ZIP archives hold none before 1980."""


class Status(str, Enum):
    """What the machine did with a source."""

    RELEASED = "released"
    HELD = "held"
    FAILED = "failed"


class Review(str, Enum):
    """What a person decided; empty where there is nothing to look at."""

    NONE = ""
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    PUBLISHED = "published"


@dataclass(frozen=True)
class Row:
    """What the machine says in one line of ``private/crosswalk.csv``; `output` is relative to OUT.

    The column `review` is not part of it: what a person decided stands in the audit log alone.
    """

    source: str
    sop_instance_uid: str
    output: str
    sha256: str
    status: Status
    reason: str


COLUMNS = (*(field.name for field in fields(Row)), "review")


@dataclass(frozen=True)
class OutputFolders:
    """The folders below OUT."""

    root: Path

    @property
    def images(self) -> Path:
        """Results that passed the gates."""
        return self.root / "release" / "images"

    @property
    def previews(self) -> Path:
        """Pictures for browsers of results that no browser shows."""
        return self.root / "release" / "previews"

    @property
    def release(self) -> Path:
        """What may leave, once approved."""
        return self.root / "release"

    @property
    def private(self) -> Path:
        """What must not leave."""
        return self.root / "private"

    @property
    def held(self) -> Path:
        """Results that did not pass the gates."""
        return self.private / "held"

    @property
    def review(self) -> Path:
        """Pictures of the review page."""
        return self.private / "review"

    @property
    def crosswalk(self) -> Path:
        """Which source became which output."""
        return self.private / "crosswalk.csv"

    @property
    def report(self) -> Path:
        """The page that may leave."""
        return self.release / "report.html"

    @property
    def review_page(self) -> Path:
        """The page that shows originals."""
        return self.private / "review.html"

    @property
    def run(self) -> Path:
        """Options and seed of the run."""
        return self.private / "run.json"

    @property
    def journal(self) -> Path:
        """Outcomes in the order in which they were reached, for `--resume`."""
        return self.private / "journal.jsonl"

    @property
    def audit(self) -> Path:
        """What was done, in a chain of entries; see `audit`."""
        return self.private / "audit.jsonl"

    @property
    def records(self) -> tuple[Path, ...]:
        """What private/ says of the run, which a seal covers; pictures and held results apart."""
        return (self.run, self.journal, self.crosswalk, self.review_page)

    def preview(self, output: str) -> Path | None:
        """Return the picture that a released result has beside itself, if it has one."""
        if not is_released(output):
            return None
        picture = self.release / preview_name(Path(output).relative_to("release"))
        return None if picture == self.root / output else picture

    def create(self) -> None:
        """Create the folders; private/ is readable by its owner alone.

        Raises
        ------
        OutputError
            If they cannot be created.
        """
        with reporting_disk_errors():
            self.images.mkdir(parents=True, exist_ok=True)
            for folder in (self.private, self.held, self.review):
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)  # whatever the umask says


def preview_name(file: Path) -> Path:
    """Return the picture that a browser shows for a result: itself, or a PNG beside it.

    Both names are relative to release/.

    Examples
    --------
    >>> preview_name(Path("images/cxr-1.dcm")).as_posix()
    'previews/cxr-1.png'
    """
    if file.suffix == ".png":
        return file
    return Path("previews") / file.with_suffix(".png").name


def is_released(output: str) -> bool:
    """Tell whether a result, by its path below OUT, passed the gates.

    Examples
    --------
    >>> is_released("private/held/cxr-1.png")
    False
    """
    return output.startswith("release/")


@contextmanager
def reporting_disk_errors() -> Iterator[None]:
    """Turn errors of the file system into `OutputError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError("disk full", "free space and run again with --resume") from error
        raise OutputError(
            f"the output folder cannot be written ({error.strerror})",
            "check permissions or choose another folder",
        ) from error


def write_atomically(path: Path, content: bytes) -> str:
    """Write a file as a whole or not at all; return the SHA-256 of its bytes.

    Raises
    ------
    OutputError
        If the disk is full or the folder cannot be written; no partial file is left behind.
    """
    return _replace(path, content, PUBLIC_MODE, None)


def write_released(path: Path, content: bytes) -> str:
    """Write a file of ``release/`` as `write_atomically` does, with a time that tells nothing."""
    return _replace(path, content, PUBLIC_MODE, RELEASE_TIME)


def write_private(path: Path, content: bytes | Iterable[bytes]) -> str:
    """Write a file of ``private/`` as `write_atomically` does, from its parts, for its owner."""
    return _replace(path, content, PRIVATE_MODE, None)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; see `json_bytes`."""
    write_atomically(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Return JSON with sorted keys, so that equal content has equal bytes."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_crosswalk(path: Path, rows: Sequence[Row], reviews: Mapping[str, Review]) -> None:
    """Write the crosswalk; see `crosswalk_bytes`."""
    write_private(path, crosswalk_bytes(rows, reviews))


def crosswalk_bytes(rows: Sequence[Row], reviews: Mapping[str, Review]) -> bytes:
    """Return the crosswalk, sorted by source.

    Bytes of a file name that are no UTF-8 are written as ``\\udcNN``.

    Parameters
    ----------
    rows
        In any order.
    reviews
        What was decided of each output.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=lambda row: row.source):
        review = reviews.get(row.output, Review.NONE)
        writer.writerow([_cell(value) for value in (*asdict(row).values(), review)])
    return buffer.getvalue().encode(errors="backslashreplace")


def discard_results_without_row(folders: OutputFolders, outputs: Collection[str]) -> None:
    """Delete results and pictures that belong to none of `outputs`, and unfinished files.

    Parameters
    ----------
    folders
        Of the run.
    outputs
        The column of that name of every row.

    Raises
    ------
    OutputError
        If they cannot be deleted.
    """
    known = {Path(output).stem for output in outputs}
    with reporting_disk_errors():
        for folder in (folders.images, folders.previews, folders.held, folders.review):
            for path in folder.glob("*"):
                result = RELEASE_NAME.match(path.name)
                if path.name.startswith(PARTIAL) or (result and result[0] not in known):
                    path.unlink()


def _replace(path: Path, content: bytes | Iterable[bytes], mode: int, time: int | None) -> str:
    digest = hashlib.sha256()
    with reporting_disk_errors():
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL)
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                for part in [content] if isinstance(content, bytes) else content:
                    file.write(part)
                    digest.update(part)
            partial.chmod(mode)
            if time is not None:
                os.utime(partial, (time, time))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return digest.hexdigest()


def _cell(value: Any) -> str:
    """Return a cell that spreadsheets do not run as a formula."""
    text = value.value if isinstance(value, Enum) else str(value)
    return f"'{text}" if text.startswith((*CSV_FORMULA_STARTS, "'")) else text
