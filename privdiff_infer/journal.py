"""What became of every source of a run, kept line by line so that a stopped run continues."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from privdiff_infer.audit import AuditLog, Event, file_digest
from privdiff_infer.burned_in_text import TextState
from privdiff_infer.dicom.web import is_store_url
from privdiff_infer.errors import ImageRejected, OutputError, PrivDiffError
from privdiff_infer.release import (
    PRIVATE_MODE,
    OutputFolders,
    Row,
    Status,
    reporting_disk_errors,
    write_private,
)
from privdiff_infer.result_states import Result, results
from privdiff_infer.sources import Source, source_key

KEY_BYTES = 16


@dataclass(frozen=True)
class Figures:
    """What was measured on one redrawn image.

    Of text: whether it was looked for, how many places were filled, and how many side markers were
    drawn anew.
    """

    identity_similarity: float
    findings_before: dict[str, float]
    findings_after: dict[str, float]
    strength: float
    attempts: int
    text_state: TextState
    text_boxes: int
    markers_redrawn: int


@dataclass(frozen=True)
class Outcome:
    """One finished source.

    Attributes
    ----------
    row
        Its line of the crosswalk.
    public_reason
        Why it was not released, in constant words that may leave; the row's reason is private.
    source_digest
        SHA-256 of the source's bytes, or empty if they were not read to the end.
    figures
        What was measured, if it was redrawn.
    """

    row: Row
    public_reason: str
    source_digest: str
    figures: Figures | None = None

    @classmethod
    def without_result(
        cls, source: str, status: Status, error: PrivDiffError, uid: str = "", digest: str = ""
    ) -> Outcome:
        """Return the outcome of a source that was not redrawn."""
        row = Row(source, uid, "", "", status, str(error))
        return cls(row, f"{error.problem}; {error.remedy}", digest)

    def to_json(self) -> str:
        """Return one line of the journal."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: bytes) -> Outcome:
        """Read one line of the journal."""
        record = json.loads(line)
        row = record["row"] | {"status": Status(record["row"]["status"])}
        figures = record["figures"]
        return cls(
            Row(**row),
            record["public_reason"],
            record["source_digest"],
            Figures(**figures | {"text_state": TextState(figures["text_state"])})
            if figures
            else None,
        )


class Journal:
    """Outcomes of a run, by source: in ``private/journal.jsonl``, also for `--resume`.

    Of each source it remembers where its line begins, and nothing else, however many there are.

    Parameters
    ----------
    folders
        Of the run; lines that the journal already has count, a torn last one does not.
    log
        Of the run; every outcome is told to it first.
    """

    def __init__(self, folders: OutputFolders, log: AuditLog) -> None:
        self._folders, self._log = folders, log
        self._unwritten: dict[bytes, Outcome] = {}  # for want of space, for instance
        self._lines = {_key(o.row.source): place for place, o in read_journal(folders.journal)}

    def __iter__(self) -> Iterator[Outcome]:
        """Yield every outcome, of this start and of those before, as they are read."""
        for place, outcome in read_journal(self._folders.journal) if self._lines else ():
            if self._lines.get(_key(outcome.row.source)) == place:
                yield outcome
        yield from self._unwritten.values()

    def __len__(self) -> int:
        """Return how many sources have an outcome."""
        return len(self._lines) + len(self._unwritten)

    def __contains__(self, source: Source) -> bool:
        """Tell whether a source has an outcome."""
        key = _key(str(source))
        return key in self._lines or key in self._unwritten

    @property
    def outcomes(self) -> list[Outcome]:
        """Every outcome at once, for what needs them all."""
        return list(self)

    @property
    def outputs(self) -> set[str]:
        """Results that have a row."""
        return {outcome.row.output for outcome in self if outcome.row.output}

    def add(self, outcome: Outcome) -> Outcome:
        """Keep an outcome and return it.

        Where the line cannot be written, a result counts as failed: without its line, a run that is
        killed would leave an image without a row. The audit log comes first: an outcome that only
        the journal held could have been slipped in.
        """
        key = _key(outcome.row.source)
        try:
            self._audit(outcome)
            place = self._append(outcome)
        except OutputError as error:
            if outcome.row.output:
                uid, digest = outcome.row.sop_instance_uid, outcome.source_digest
                outcome = Outcome.without_result(
                    outcome.row.source, Status.FAILED, error, uid, digest
                )
            self._lines.pop(key, None)
            self._unwritten[key] = outcome
        else:
            self._unwritten.pop(key, None)
            self._lines[key] = place
        return outcome

    def settle(self, sources: Iterable[Source]) -> None:
        """Keep the outcomes of `sources` that still hold, and forget those to be done again.

        To be done again is what failed, whose source has other bytes, or whose result is not the
        one that was written by the audit log. Sources that are not named keep their row, but a
        lost result fails.

        Raises
        ------
        OutputError
            If the journal cannot be written.
        """
        named = {_key(str(source)) for source in sources}
        with self._log as log:
            audited = results(log)
        lines: dict[bytes, int] = {}

        def settled() -> Iterator[bytes]:
            place = 0
            for outcome in self:
                key = _key(outcome.row.source)
                if key not in named:
                    kept = outcome if self._is_intact(outcome, audited) else _lost(outcome)
                elif self._still_holds(outcome, audited):
                    kept = outcome
                else:
                    continue
                line = _line(kept)
                lines[key] = place
                place += len(line)
                yield line

        if (
            self._unwritten or self._folders.journal.exists()
        ):  # rewritten even if nothing changed: a line can be torn
            write_private(self._folders.journal, settled())
        self._lines, self._unwritten = lines, {}

    def of(self, sources: Iterable[Source]) -> Iterator[Outcome]:
        """Yield the outcomes of those of `sources` that have one, in the order of the journal."""
        named = {_key(str(source)) for source in sources}
        return (outcome for outcome in self if _key(outcome.row.source) in named)

    def _audit(self, outcome: Outcome) -> None:
        row = outcome.row
        if not row.output:
            event = Event.IMAGE_HELD if row.status is Status.HELD else Event.IMAGE_FAILED
            self._log.append(event, reason=outcome.public_reason)
            return
        event = Event.IMAGE_HELD if row.status is Status.HELD else Event.IMAGE_RELEASED
        preview = self._folders.preview(row.output)
        self._log.append(
            event,
            output=row.output,
            sha256=row.sha256,
            preview_sha256=(file_digest(preview) or "") if preview else "",
        )

    def _append(self, outcome: Outcome) -> int:
        """Write a line; return where it begins."""
        path = self._folders.journal
        with reporting_disk_errors():
            path.touch(PRIVATE_MODE)
            whole = path.stat().st_size
            try:
                with path.open("ab") as file:
                    file.write(_line(outcome))
            except OSError:
                os.truncate(path, whole)  # half a line would spoil the next one
                raise
        return whole

    def _still_holds(self, outcome: Outcome, audited: Mapping[str, Result]) -> bool:
        return (
            outcome.row.status is not Status.FAILED
            and self._has_same_source(outcome)
            and self._is_intact(outcome, audited)
        )

    @staticmethod
    def _has_same_source(outcome: Outcome) -> bool:
        # A SOP Instance UID names one content for ever (PS3.5 9), and a file name does not.
        source = outcome.row.source
        return is_store_url(source) or _has_digest(Path(source), outcome.source_digest)

    def _is_intact(self, outcome: Outcome, audited: Mapping[str, Result]) -> bool:
        """Tell whether a result is there, and is what the audit log says."""
        output = outcome.row.output
        if not output:
            return True
        recorded = audited.get(output)
        return recorded is not None and _has_digest(self._folders.root / output, recorded.sha256)


def read_journal(path: Path) -> Iterator[tuple[int, Outcome]]:
    """Yield (where its line begins, outcome); later ones of a source last, torn lines left out.

    Raises
    ------
    OutputError
        If it cannot be read.
    """
    with reporting_disk_errors():
        if not path.exists():
            return
        place = 0
        with path.open("rb") as file:
            for line in file:
                with suppress(ValueError, KeyError, TypeError):  # torn by a kill or a full disk
                    yield place, Outcome.from_json(line)
                place += len(line)


def _key(source: str) -> bytes:
    """Return what stands for a source in memory, however its name is spelled."""
    return hashlib.sha256(os.fsencode(source_key(source))).digest()[:KEY_BYTES]


def _line(outcome: Outcome) -> bytes:
    return outcome.to_json().encode() + b"\n"


def _has_digest(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError:
        return False


def _lost(outcome: Outcome) -> Outcome:
    error = ImageRejected(
        "the result was removed or changed after it was written",
        "name its source again with --resume",
    )
    row = outcome.row
    return Outcome.without_result(
        row.source, Status.FAILED, error, row.sop_instance_uid, outcome.source_digest
    )
