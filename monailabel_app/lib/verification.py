"""Checks a state folder: the server's chain, every job's own, and one against the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.audit import Entry, Event
from privdiff_infer.errors import OutputError
from privdiff_infer.result_states import results
from privdiff_infer.verification import Finding, Kind, read_chain, unchecked, verify

LOG = "audit.jsonl"

WITH_RESULT = frozenset({Event.IMAGE_RELEASED, Event.IMAGE_HELD, Event.APPROVED})
"""Events of a job whose bytes lie in its folder."""


@dataclass(frozen=True)
class StateVerification:
    """What was checked and found.

    Attributes
    ----------
    entries
        Of the server's chain, those that are as they were written.
    jobs
        Number of folders of jobs that were checked.
    unfinished
        How many of them belong to jobs that have no result: in work, failed or cancelled. Nothing
        seals those.
    findings
        Everything that is not as it should be; empty only if everything was checked.
    """

    entries: int
    jobs: int
    unfinished: int
    findings: list[Finding] = field(default_factory=list)


@dataclass
class _Job:
    """What the server's chain says of a job."""

    sha256: str = ""
    has_result: bool = False
    is_gone: bool = False


def verify_state(state: Path, key: bytes | None) -> StateVerification:
    """Check a state folder against its audit logs.

    Nothing is written and nothing is waited for, so it may be asked while the server runs.

    Parameters
    ----------
    state
        STATE.
    key
        The audit key; without it, chains are read but not proven.

    Raises
    ------
    OutputError
        If the folder is no state folder, or a file of it cannot be read.
    """
    folder = StateFolder(state)
    if not folder.jobs.is_dir():
        raise OutputError(f"{state} is no state folder of a server", "name the one of --state")
    if not folder.audit.is_file():
        missing = Finding(Kind.CHANGED, LOG, "is missing: nothing of this server can be checked")
        return StateVerification(0, 0, 0, [missing])
    try:
        return _verification(folder, key)
    except OSError as error:
        raise OutputError(
            f"a file of the server cannot be read ({error.strerror})", "check permissions"
        ) from error


def _verification(folder: StateFolder, key: bytes | None) -> StateVerification:
    # Folders first: a job that is queued while we read has its entry before it has a folder.
    present = {path.name for path in folder.jobs.iterdir() if path.is_dir()}
    chain = read_chain(folder.audit, key, LOG)
    known = _jobs(chain.entries)
    findings = [*chain.findings, *unchecked(key, LOG)]
    unfinished = 0
    for name in sorted(present):
        job = known.get(name, _Job())
        unfinished += not job.has_result
        findings += _check_job(folder, name, job, key)
    if not chain.is_foreign:
        findings += _check_presence(known, present)
    return StateVerification(len(chain.entries), len(present), unfinished, findings)


def _jobs(entries: Iterable[Entry]) -> dict[str, _Job]:
    jobs: dict[str, _Job] = {}
    for entry in entries:
        name = entry.facts.get("job")
        if not name:
            continue
        job = jobs.setdefault(name, _Job())
        if entry.event in WITH_RESULT:
            job.has_result = True
            job.sha256 = entry.facts.get("sha256", "")
        elif entry.event in (Event.JOB_EXPIRED, Event.JOB_CANCELLED):
            job.is_gone = True
    return jobs


def _check_presence(known: dict[str, _Job], present: set[str]) -> Iterator[Finding]:
    for name, job in sorted(known.items()):
        if job.has_result and not job.is_gone and name not in present:
            yield Finding(
                Kind.CHANGED, f"jobs/{name}", "is missing, and the server did not delete it"
            )
    for name in sorted(present - known.keys()):
        problem = "has no entry: it was added, or the end of the server's log was cut off"
        yield Finding(Kind.CHANGED, f"jobs/{name}", problem)


def _check_job(folder: StateFolder, name: str, job: _Job, key: bytes | None) -> Iterator[Finding]:
    """Check the chain of a job; what an unfinished one lacks is no finding."""
    folders = folder.job(name)
    try:
        found = verify(folders.root, key).findings
    except OutputError:
        found = []
        if job.has_result:
            yield Finding(Kind.CHANGED, f"jobs/{name}", "holds no run")
    for finding in found:
        if finding.kind is Kind.CHANGED or (finding.kind is Kind.INCOMPLETE and job.has_result):
            yield replace(finding, subject=f"jobs/{name}: {finding.subject}")
    if job.sha256 and not job.is_gone and folders.audit.is_file():
        entries = read_chain(folders.audit, key, LOG).entries
        if {result.sha256 for result in results(entries).values()} != {job.sha256}:
            yield Finding(
                Kind.CHANGED, f"jobs/{name}", "has another result than the server's log says"
            )
