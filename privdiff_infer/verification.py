"""Checks a run against its audit log: every entry, every file that may leave, every record.

What is found is told in plain words and of one of three kinds: `changed` cannot come of a command
that was stopped, `incomplete` can, but a log whose end was cut off looks the same, and `unchecked`
says what could not be told without the key.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from privdiff_infer.audit import (
    FIRST_PREVIOUS,
    Anchor,
    Entry,
    Event,
    digests,
    file_digest,
    read_anchor,
    released_files,
)
from privdiff_infer.errors import OutputError
from privdiff_infer.release import PARTIAL, OutputFolders
from privdiff_infer.result_states import decisions_of, results
from privdiff_infer.seeds import RELEASE_NAME

LOG = "private/audit.jsonl"
CROSSWALK = "private/crosswalk.csv"
REPORTS = ("release/report.json", "release/report.html")
"""Files of release/ that no entry but a seal tells of."""


class Kind(str, Enum):
    """What a finding means."""

    CHANGED = "changed"
    INCOMPLETE = "incomplete"
    UNCHECKED = "unchecked"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes
    ----------
    kind
        What it means.
    subject
        The entry, or the file by its path below OUT.
    problem
        What is wrong with it.

    Examples
    --------
    >>> print(Finding(Kind.CHANGED, "entry 3", "is missing"))
    changed: entry 3 is missing
    """

    kind: Kind
    subject: str
    problem: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.subject} {self.problem}"


@dataclass(frozen=True)
class Verification:
    """What `verify` checked and found.

    Attributes
    ----------
    entries
        Number of entries that are as they were written.
    files
        Number of files in release/.
    sealed
        Time of the seal at the end of the log, or empty.
    recovered
        Number of interrupted writes that a later command put aside.
    findings
        Everything that is not as it should be; empty only if everything was checked.
    """

    entries: int
    files: int
    sealed: str
    recovered: int
    findings: Sequence[Finding]


@dataclass(frozen=True)
class Chain:
    """The lines of a log of which anything may have been changed.

    Attributes
    ----------
    entries
        Those that are genuine, each once, by index.
    findings
        What is wrong with the others.
    is_torn
        Whether the last line is half of one.
    is_foreign
        Whether no line at all was made with the key.
    """

    entries: Sequence[Entry]
    findings: Sequence[Finding]
    is_torn: bool
    is_foreign: bool = False

    @property
    def next_index(self) -> int:
        """Index of the entry that comes next."""
        return self.entries[-1].index + 1 if self.entries else 0

    @property
    def seal(self) -> Entry | None:
        """The seal at the end, if nothing comes after it."""
        last = self.entries[-1] if self.entries else None
        return last if last and last.event is Event.SEALED and not self.is_torn else None


def verify(out: Path, key: bytes | None) -> Verification:
    """Check a run against its audit log.

    Nothing is written and nothing is waited for: a command at work looks like one that was stopped.

    Parameters
    ----------
    out
        Folder of the run.
    key
        The audit key. Without it, links between entries and all files are compared, but not
        whether entries are genuine.

    Raises
    ------
    OutputError
        If the folder holds no run, or a file of it cannot be read.
    """
    folders = OutputFolders(out)
    if not (folders.private.is_dir() and folders.release.is_dir()):
        raise OutputError(f"{out} holds no run", "name the folder of a run")
    try:
        return _verification(folders, key)
    except OSError as error:
        raise OutputError(
            f"a file of the run cannot be read ({error.strerror})", "check permissions"
        ) from error


def _verification(folders: OutputFolders, key: bytes | None) -> Verification:
    disk = digests(folders.root, released_files(folders))
    if not folders.audit.is_file():
        missing = Finding(Kind.CHANGED, LOG, "is missing: nothing of this run can be checked")
        return Verification(0, len(disk), "", 0, [missing])
    chain = read_chain(folders.audit, key, LOG)
    if chain.is_foreign:
        return Verification(0, len(disk), "", 0, chain.findings)
    findings = [
        *chain.findings,
        *_check_end(chain, read_anchor(folders)),
        *_check_files(chain, folders, disk),
        *_check_records(chain, folders),
        *unchecked(key, LOG),
    ]
    return Verification(
        entries=len(chain.entries),
        files=len(disk),
        sealed=chain.seal.time if chain.seal else "",
        recovered=sum(entry.event is Event.RECOVERED for entry in chain.entries),
        findings=findings,
    )


def _genuine(lines: Iterable[bytes], key: bytes | None) -> Iterator[Entry | None]:
    """Yield the entry of each line, or None where it is none or was not made with the key."""
    for line in lines:
        try:
            entry = Entry.from_line(line + b"\n")
        except ValueError:
            yield None
            continue
        yield entry if key is None or entry.is_signed_with(key) else None


def read_chain(log: Path, key: bytes | None, name: str) -> Chain:
    """Read a log of which anything may have been changed; see `Chain`.

    Parameters
    ----------
    log
        The file.
    key
        The audit key, or None.
    name
        What findings call the file.
    """
    *lines, torn = log.read_bytes().split(b"\n")
    parsed = list(_genuine(lines, key))
    if key and lines and not any(parsed):
        foreign = (
            "holds no entry that was made with this key: it is the key of another run, or the "
            "whole log was written anew"
        )
        return Chain([], [Finding(Kind.CHANGED, name, foreign)], bool(torn), is_foreign=True)
    present: dict[int, Entry] = {}
    findings: list[Finding] = []
    spoilt, last = 0, None  # lines since the last entry that are none; the last one in order
    indices = {entry.index for entry in parsed if entry}
    for entry in parsed:
        expected = last.index + 1 if last else 0
        if entry is None:
            spoilt += 1
        elif entry.index < expected:
            problem = "is repeated" if entry.index in present else "is out of order"
            findings.append(Finding(Kind.CHANGED, f"entry {entry.index}", problem))
            present.setdefault(entry.index, entry)
        else:
            gap = _without(range(expected, entry.index), indices)
            findings += _spoilt_and_missing(gap, spoilt, entry.index, name)
            if not spoilt and entry.index == expected and not _follows(entry, last):
                findings.append(
                    Finding(
                        Kind.CHANGED,
                        f"entry {entry.index}",
                        "does not follow the one before it: one of them is of another log",
                    )
                )
            present[entry.index] = last = entry
            spoilt = 0
    end = last.index + 1 if last else 0
    findings += _spoilt_and_missing([range(end, end + spoilt)] if spoilt else [], spoilt, end, name)
    if torn:
        findings.append(
            Finding(
                Kind.INCOMPLETE,
                f"entry {end + spoilt}",
                f"is only {len(torn)} bytes of a line: a command was stopped while it wrote, or "
                "the end was cut off",
            )
        )
    return Chain([present[index] for index in sorted(present)], findings, bool(torn))


def _follows(entry: Entry, last: Entry | None) -> bool:
    return entry.previous == (last.hmac if last else FIRST_PREVIOUS)


def _without(gap: range, indices: set[int]) -> list[range]:
    """Return what is left of a range of indices without those that stand somewhere else."""
    left, start = [], gap.start
    for index in (*sorted(i for i in indices if i in gap), gap.stop) if gap else ():
        if index > start:
            left.append(range(start, index))
        start = index + 1
    return left


def _spoilt_and_missing(gap: Sequence[range], spoilt: int, before: int, log: str) -> list[Finding]:
    """Tell the indices of a gap, in which so many lines stand that are no entries.

    A line that is no entry is taken for the entry in whose place it stands.
    """
    findings = []
    for part in gap:
        changed, missing = part[:spoilt], part[spoilt:]
        spoilt -= len(changed)
        if changed:
            findings.append(Finding(Kind.CHANGED, _entries(changed), "was changed"))
        if missing:
            findings.append(Finding(Kind.CHANGED, _entries(missing), "is missing"))
    if spoilt:
        lines = "a line" if spoilt == 1 else f"{spoilt} lines"
        findings.append(
            Finding(Kind.CHANGED, log, f"holds {lines} before entry {before} that is none")
        )
    return findings


def _entries(indices: range) -> str:
    first, last = indices[0], indices[-1]
    return f"entry {first}" if first == last else f"each of entries {first} to {last}"


def _check_end(chain: Chain, anchor: Anchor | None) -> Iterator[Finding]:
    """Compare the end of the log with what ``release/report.json`` repeats of it."""
    report = REPORTS[0]
    by_index = {entry.index: entry for entry in chain.entries}
    if anchor and anchor.entries > chain.next_index:
        missing = range(chain.next_index, anchor.entries)
        yield Finding(
            Kind.CHANGED, _entries(missing), f"is missing at the end: {report} knows of it"
        )
    elif anchor and anchor.entries - 1 in by_index:
        if by_index[anchor.entries - 1].hmac != anchor.head:
            yield Finding(
                Kind.CHANGED, report, f"knows another entry {anchor.entries - 1} than the log"
            )
    if chain.seal or chain.is_torn or (anchor and anchor.entries > chain.next_index):
        return
    if anchor and anchor.entries == chain.next_index:
        problem = (
            f"is missing, though {report} was written for it: the seal was cut off, or a command "
            "was stopped in the moment before"
        )
        yield Finding(Kind.INCOMPLETE, f"entry {chain.next_index}", problem)
        return
    yield Finding(
        Kind.INCOMPLETE,
        LOG,
        "does not end with a seal: a command was stopped or is at work, or the end was cut off; "
        "reports are not covered",
    )


def _check_files(chain: Chain, folders: OutputFolders, disk: dict[str, str]) -> Iterator[Finding]:
    """Compare results with the entries that tell of them, and reports with the seal."""
    expected = _recorded_files(chain.entries, folders)
    if chain.seal:
        sealed = chain.seal.facts.get("files", {})
        expected |= {name: sealed[name] for name in REPORTS if name in sealed}
    for name in sorted(expected):
        digest = disk[name] if name in disk else file_digest(folders.root / name)
        if digest is None:
            yield Finding(Kind.CHANGED, name, "is missing")
        elif digest != expected[name]:
            yield Finding(Kind.CHANGED, name, "is not the file that was written")
    for name in sorted(disk.keys() - expected.keys()):
        if chain.seal or not _may_be_unfinished(name):
            yield Finding(Kind.CHANGED, name, "was added: no entry knows of it")
        elif name not in REPORTS:
            yield Finding(
                Kind.INCOMPLETE, name, "has no entry yet: its command was stopped, or it was added"
            )


def _recorded_files(entries: Iterable[Entry], folders: OutputFolders) -> dict[str, str]:
    """Return the SHA-256 of every result and preview by the entries."""
    files = {}
    for output, result in results(entries).items():
        files[output] = result.sha256
        preview = folders.preview(output)
        if preview and result.preview_sha256:
            files[preview.relative_to(folders.root).as_posix()] = result.preview_sha256
    return files


def _may_be_unfinished(name: str) -> bool:
    file = Path(name).name
    return name in REPORTS or file.startswith(PARTIAL) or bool(RELEASE_NAME.match(file))


def _check_records(chain: Chain, folders: OutputFolders) -> Iterator[Finding]:
    """Compare what private/ says of the run with the seal, and the crosswalk with the entries."""
    if chain.seal is None:
        return
    for name, digest in sorted(chain.seal.facts.get("records", {}).items()):
        found = file_digest(folders.root / name)
        if found is None:
            yield Finding(Kind.CHANGED, name, "is missing")
        elif found != digest:
            yield Finding(Kind.CHANGED, name, "was changed after it was sealed")
    if folders.crosswalk.is_file():
        yield from _check_crosswalk(chain.entries, folders.crosswalk)


def _check_crosswalk(entries: Sequence[Entry], crosswalk: Path) -> Iterator[Finding]:
    decided = decisions_of(entries)
    text = crosswalk.read_text(encoding="utf-8", errors="replace")
    rows = {row.get("output"): row for row in csv.DictReader(io.StringIO(text, newline=""))}
    for output in sorted(decided):
        decision, row = decided[output], rows.get(output)
        if row is None:
            yield Finding(Kind.CHANGED, CROSSWALK, f"has no row of {output}")
        elif (row.get("sha256"), row.get("review")) != (decision.sha256, decision.state.value):
            yield Finding(Kind.CHANGED, CROSSWALK, f"says of {output} what no entry says")
    for output in sorted({str(name) for name in rows if name} - decided.keys()):
        yield Finding(Kind.CHANGED, CROSSWALK, f"names {output}, which no entry knows")


def unchecked(key: bytes | None, log: str) -> Iterator[Finding]:
    """Tell that there was no key, where there was none."""
    if key is None:
        yield Finding(
            Kind.UNCHECKED,
            log,
            "was not checked against the audit key, which is not here: entries may have been "
            "edited or written anew, and files with them",
        )
