"""The two folders of a run: release/ may leave, private/ must not."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from privdiff_infer.errors import OutputError

CSV_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


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
    """One line of ``private/crosswalk.csv``; `output` is relative to OUT."""

    source: str
    sop_instance_uid: str
    output: str
    sha256: str
    status: Status
    reason: str
    review: Review


COLUMNS = tuple(field.name for field in fields(Row))


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
    def run(self) -> Path:
        """Options and seed of the run."""
        return self.private / "run.json"

    @property
    def journal(self) -> Path:
        """Outcomes in the order in which they were reached, for `--resume`."""
        return self.private / "journal.jsonl"

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
    """Return the picture that a browser shows for a result: itself, or a PNG beside NRRD.

    Both names are relative to release/.

    Examples
    --------
    >>> preview_name(Path("images/cxr-1.nrrd")).as_posix()
    'previews/cxr-1.png'
    """
    if file.suffix == ".png":
        return file
    return Path("previews") / file.with_suffix(".png").name


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
    with reporting_disk_errors():
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(partial, 0o600 if "private" in path.parts else 0o644)
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    return hashlib.sha256(content).hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, with sorted keys so that equal content has equal bytes."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())


def write_crosswalk(path: Path, rows: Sequence[Row]) -> None:
    """Write the crosswalk, sorted by source."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=lambda row: row.source):
        writer.writerow([_cell(value) for value in asdict(row).values()])
    write_atomically(path, buffer.getvalue().encode())


def read_crosswalk(path: Path) -> list[Row]:
    """Read a crosswalk back."""
    with path.open(newline="", encoding="utf-8") as file:
        records = [
            {name: value.removeprefix("'") for name, value in record.items()}
            for record in csv.DictReader(file)
        ]
    return [
        Row(
            record["source"],
            record["sop_instance_uid"],
            record["output"],
            record["sha256"],
            Status(record["status"]),
            record["reason"],
            Review(record["review"]),
        )
        for record in records
    ]


def _cell(value: Any) -> str:
    """Return a cell that spreadsheets do not run as a formula."""
    text = value.value if isinstance(value, Enum) else str(value)
    return f"'{text}" if text.startswith((*CSV_FORMULA_STARTS, "'")) else text
