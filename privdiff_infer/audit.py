"""What was done in OUT, in a chain of entries that cannot be changed unnoticed.

``private/audit.jsonl`` holds one entry a line. Each carries the HMAC-SHA256 of itself and of the
entry before under a key that is kept outside OUT, so who has the folder but not the key can neither
edit, insert, reorder nor rewrite entries. An entry names an image by its path below OUT and the
SHA-256 of its bytes, never by its source. A finished command ends the chain with a seal over the
files of the run; `verification` compares all of it.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout
from typing_extensions import Self

from privdiff_infer.errors import AuditError, OutputError, SecretError
from privdiff_infer.keys import find_key, load_key
from privdiff_infer.release import (
    PRIVATE_MODE,
    OutputFolders,
    reporting_disk_errors,
    write_private,
)

KEY_VARIABLE = "PRIVDIFF_AUDIT_KEY_FILE"
KEY_NAME = "audit-key"

FIRST_PREVIOUS = "0" * 64
"""What stands for the entry before the first one."""

LOCK_SECONDS = 5.0
"""How long one command waits for another one in the same folder."""

EVIDENCE = "see privdiff verify; keep the folder as evidence and start a new run in another one"

LINK = "symbolic link"
"""Stands for the digest of a link, which can lead to other bytes at any time."""


TEXT_FACTS = ("output", "sha256", "preview_sha256", "reviewer", "comment", "job", "by")
DIGEST_FACTS = ("files", "records")
"""Facts that map paths below OUT to SHA-256."""


class Event(str, Enum):
    """What an entry tells of; those below `SEALED` are of a server's chain alone."""

    RUN_STARTED = "run_started"
    IMAGE_RELEASED = "image_released"
    IMAGE_HELD = "image_held"
    IMAGE_FAILED = "image_failed"
    IMAGE_WITHDRAWN = "image_withdrawn"
    APPROVED = "approved"
    REJECTED = "rejected"
    PUBLISHED = "published"
    PUBLISH_FAILED = "publish_failed"
    RECOVERED = "recovered"
    SEALED = "sealed"
    JOB_QUEUED = "job_queued"
    JOB_CANCELLED = "job_cancelled"
    JOB_EXPIRED = "job_expired"
    CLAIMED = "claimed"
    CLAIM_ENDED = "claim_ended"
    ORIGINAL_SHOWN = "original_shown"
    APPROVED_FIRST = "approved_first"
    MODEL_ACTIVATED = "model_activated"
    TRAINING_STARTED = "training_started"
    TRAINING_ENDED = "training_ended"


@dataclass(frozen=True)
class Entry:
    """One line of the log.

    Attributes
    ----------
    index
        From 0.
    time
        UTC, ISO 8601.
    event
        What happened.
    facts
        What the event says, in JSON's types.
    previous
        `hmac` of the entry before, hexadecimal.
    hmac
        HMAC-SHA256 of `content` under the audit key, hexadecimal.
    """

    index: int
    time: str
    event: Event
    facts: Mapping[str, Any]
    previous: str
    hmac: str

    @property
    def content(self) -> bytes:
        """The bytes that the HMAC is over: all but itself, as canonical JSON."""
        return _canonical(self._fields())

    @property
    def line(self) -> bytes:
        """The bytes of the log."""
        return _canonical(self._fields() | {"hmac": self.hmac}) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Entry:
        """Read a line.

        Raises
        ------
        ValueError
            If it is not exactly what `line` gives, or a fact is not of its type.
        """
        try:
            facts = json.loads(line)
            entry = cls(
                index=facts.pop("index"),
                time=facts.pop("time"),
                event=Event(facts.pop("event")),
                previous=facts.pop("previous"),
                hmac=facts.pop("hmac"),
                facts=facts,
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError("this is no entry") from error
        if not _has_right_types(entry) or entry.line != line:
            raise ValueError("this is no entry")
        return entry

    def is_signed_with(self, key: bytes) -> bool:
        """Tell whether this entry was made with a key."""
        return hmac.compare_digest(_signature(key, self.content), self.hmac)

    def _fields(self) -> dict[str, Any]:
        return {
            **self.facts,
            "index": self.index,
            "time": self.time,
            "event": self.event.value,
            "previous": self.previous,
        }


@dataclass(frozen=True)
class Anchor:
    """How long a log is and how it ends; ``release/report.json`` repeats it.

    Attributes
    ----------
    entries
        Number of entries.
    head
        HMAC of the last one.
    """

    entries: int
    head: str


class AuditChain:
    """A chain of entries that is checked once and continued; of what was read it keeps the anchor.

    Held as a context manager, it keeps every other thread and process from writing. Entering it
    reads what is new, checks every entry and puts the rest of an interrupted write aside.

    Parameters
    ----------
    path
        Of ``audit.jsonl``, in a folder that exists.
    key
        The audit key; see `load_audit_key`.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self._path, self._key = path, key
        self._lock = FileLock(path.with_suffix(".lock"), mode=PRIVATE_MODE)
        self._turn = RLock()  # threads queue here: the lock of the file is polled
        self._anchor = Anchor(0, FIRST_PREVIOUS)
        self._size = 0

    @property
    def anchor(self) -> Anchor:
        """Number and head of the entries, as they were read or written last."""
        return self._anchor

    def __enter__(self) -> Self:
        """Wait for other processes, then read and check what is new.

        Raises
        ------
        OutputError
            If another command works in the folder, or the log cannot be read.
        AuditError
            If an entry was changed, or is not of this key.
        """
        with reporting_disk_errors(), ExitStack() as held:
            if not self._turn.acquire(timeout=LOCK_SECONDS):
                raise _in_use()
            held.callback(self._turn.release)
            try:
                self._lock.acquire(timeout=LOCK_SECONDS)
            except Timeout as error:  # an OSError too
                raise _in_use() from error
            held.callback(self._lock.release)
            self._catch_up()
            held.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let others write."""
        self._lock.release()
        self._turn.release()

    def append(self, event: Event, **facts: Any) -> Entry:
        """Write an entry to the disk and return it.

        Parameters
        ----------
        event
            What happened.
        facts
            In JSON's types; no source name, no UID and no secret.

        Raises
        ------
        OutputError
            If it cannot be written; the log is as before.
        AuditError
            If the log was changed.
        ValueError
            If a fact is not of its type; nothing is written.
        """
        with self:
            entry = self._signed(event, facts)
            Entry.from_line(entry.line)  # what cannot be read again would end the log for ever
            with reporting_disk_errors():
                self._write(entry.line)
            self._take(entry)
            return entry

    def _take(self, entry: Entry) -> None:
        """Go on from an entry that was checked or written."""
        self._anchor = Anchor(entry.index + 1, entry.hmac)
        self._size += len(entry.line)

    def _signed(self, event: Event, facts: Mapping[str, Any]) -> Entry:
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        entry = Entry(self._anchor.entries, time, event, facts, self._anchor.head, "")
        return replace(entry, hmac=_signature(self._key, entry.content))

    def _write(self, line: bytes) -> None:
        self._path.touch(PRIVATE_MODE)
        try:
            with self._path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.truncate(self._path, self._size)  # half a line would spoil the next one
            raise

    def _catch_up(self) -> None:
        """Read and check what was written since the last time."""
        with reporting_disk_errors():
            size = self._path.stat().st_size if self._path.exists() else 0
            if size < self._size:
                raise AuditError("the audit log became shorter", EVIDENCE)
            if size == self._size:
                return
            torn = b""
            with self._path.open("rb") as file:
                file.seek(self._size)
                for line in file:
                    if line.endswith(b"\n"):
                        self._take(self._checked(line))
                    else:
                        torn = line
            if torn:
                self._put_aside(torn)

    def _checked(self, line: bytes) -> Entry:
        index = self._anchor.entries
        entry = self._genuine(line, index)
        if entry.index != index or entry.previous != self._anchor.head:
            raise AuditError(f"entry {index} of the audit log is missing or out of order", EVIDENCE)
        return entry

    def _genuine(self, line: bytes, index: int) -> Entry:
        try:
            entry = Entry.from_line(line)
        except ValueError:
            raise AuditError(f"entry {index} of the audit log was changed", EVIDENCE) from None
        if not entry.is_signed_with(self._key):
            raise AuditError(
                f"entry {index} of the audit log was changed or was made with another key",
                f"name the key of this run with {KEY_VARIABLE}, or {EVIDENCE}",
            )
        return entry

    def _put_aside(self, torn: bytes) -> None:
        """Keep the bytes of a write that did not end beside the log, and tell of them in it."""
        aside = self._path.with_name(f"audit-torn-{self._anchor.entries}")
        sha256 = write_private(aside, torn)
        os.truncate(self._path, self._size)
        self.append(Event.RECOVERED, bytes=len(torn), sha256=sha256)


class AuditLog(AuditChain):
    """The log of one run: its chain, whose entries are read from the disk where they are wanted.

    A command holds it from its start to its seal.

    Parameters
    ----------
    path, key
        As of `AuditChain`.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        super().__init__(path, key)
        self._last: Entry | None = None

    def __iter__(self) -> Iterator[Entry]:
        """Yield all entries, up to the one that was read or written last.

        Raises
        ------
        AuditError
            If one was changed since it was checked.
        """
        left = self._size
        if not left:
            return
        with reporting_disk_errors(), self._path.open("rb") as file:
            for index, line in enumerate(file):
                yield self._genuine(line, index)
                left -= len(line)
                if left <= 0:
                    return

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries at once, for what needs them all."""
        return tuple(self)

    @property
    def last(self) -> Entry | None:
        """The entry that was read or written last."""
        return self._last

    def seal(self, folders: OutputFolders) -> Entry:
        """Append the SHA-256 of every file in release/, and of the records in private/.

        It is the last entry of a finished command. Reports must be written before, with `anchor`.

        Raises
        ------
        OutputError
            If a file cannot be read, or the entry cannot be written.
        """
        with self, reporting_disk_errors():
            return self.append(
                Event.SEALED,
                files=digests(folders.root, released_files(folders)),
                records=digests(folders.root, folders.records),
            )

    def _take(self, entry: Entry) -> None:
        super()._take(entry)
        self._last = entry


def load_audit_key() -> bytes:
    """Return the audit key for a new log, and create it on first use; see `keys.load_key`."""
    return load_key(KEY_VARIABLE, KEY_NAME)


def find_audit_key() -> bytes | None:
    """Return the audit key for a log that exists, or None; see `keys.find_key`."""
    return find_key(KEY_VARIABLE, KEY_NAME)


@contextmanager
def continued_log(folders: OutputFolders) -> Iterator[AuditLog]:
    """Hold the log of a run that a command continues.

    Raises
    ------
    OutputError
        If the folder holds no run with a log, or another command works in it.
    AuditError
        If the log was changed or has lost its end, or the records that it sealed were changed.
    SecretError
        If there is no audit key.
    """
    if not folders.audit.is_file():
        raise OutputError(
            f"{folders.root} holds no run with an audit log", "name the folder of a run"
        )
    key = find_audit_key()
    if key is None:
        raise SecretError(
            "there is no audit key here, and a new one cannot continue a log",
            f"name the key of this run with {KEY_VARIABLE}",
        )
    with AuditLog(folders.audit, key) as log:
        _check_end(log, folders)
        _check_inputs(log, folders)
        yield log


def read_anchor(folders: OutputFolders) -> Anchor | None:
    """Return the anchor in ``release/report.json``, or None where there is none to be read."""
    try:
        anchor = json.loads((folders.release / "report.json").read_bytes())["audit"]
        return Anchor(int(anchor["entries"]), str(anchor["head"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def released_files(folders: OutputFolders) -> list[Path]:
    """Return every file below release/, whoever put it there."""
    return sorted(p for p in folders.release.rglob("*") if p.is_symlink() or not p.is_dir())


def digests(root: Path, files: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of files that exist, by their path below `root`."""
    return {
        file.relative_to(root).as_posix(): digest
        for file in files
        if (digest := file_digest(file)) is not None
    }


def file_digest(file: Path) -> str | None:
    """Return the SHA-256 of a file's bytes, `LINK` for a link and None where there is no file."""
    if file.is_symlink():
        return LINK
    if not file.is_file():
        return None
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _in_use() -> OutputError:
    return OutputError(
        "another privdiff command works in this folder", "wait for its end, then try again"
    )


def _check_end(log: AuditLog, folders: OutputFolders) -> None:
    anchor = read_anchor(folders)
    if anchor is None or anchor.entries == 0:
        return
    last = next(itertools.islice(log, anchor.entries - 1, None), None)
    if last is None or last.hmac != anchor.head:
        raise AuditError("the audit log has lost entries at its end", EVIDENCE)


def _check_inputs(log: AuditLog, folders: OutputFolders) -> None:
    """Refuse to build on records that were changed after the last command sealed them."""
    last = log.last
    if last is None or last.event is not Event.SEALED:
        return
    sealed = last.facts["records"]
    for name, digest in digests(folders.root, (folders.run, folders.journal)).items():
        if sealed.get(name) != digest:
            raise AuditError(f"{name} was changed after it was sealed", EVIDENCE)


def _has_right_types(entry: Entry) -> bool:
    """Tell whether values have the types that readers rely on; JSON of a forger can hold others."""
    texts = [entry.time, entry.previous, entry.hmac]
    texts += [entry.facts[name] for name in TEXT_FACTS if name in entry.facts]
    for name in DIGEST_FACTS:
        files = entry.facts.get(name, {})
        if not isinstance(files, dict):
            return False
        texts += files.values()
    return type(entry.index) is int and all(isinstance(text, str) for text in texts)


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _signature(key: bytes, content: bytes) -> str:
    return hmac.new(key, content, hashlib.sha256).hexdigest()
