"""What is written of a run from its journal and its audit log, and the seal over it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from privdiff_infer.audit import AuditLog, Event
from privdiff_infer.errors import OutputError
from privdiff_infer.header_report import write_header_report
from privdiff_infer.journal import Outcome
from privdiff_infer.release import OutputFolders, write_crosswalk
from privdiff_infer.report import RunFacts, write_release_report, write_review
from privdiff_infer.result_states import Result, decisions_of, results

DEIDENTIFY = "deidentify"
"""The command in ``private/run.json`` of a run that redraws nothing."""


def write_records(folders: OutputFolders, outcomes: Sequence[Outcome], log: AuditLog) -> None:
    """Write crosswalk, reports and review page, then seal the files of the run.

    Parameters
    ----------
    folders
        Of the run.
    outcomes
        Everything in its journal.
    log
        Its audit log; no other command can write between the reports and the seal.

    Raises
    ------
    OutputError
        If one cannot be written; the others are, but nothing is sealed.
    """
    with log:
        _withdraw(log, {outcome.row.output for outcome in outcomes})
        outcomes = _with_recorded_bytes(outcomes, results(log))
        run, decided = _run_record(folders), decisions_of(log.entries)
        reviews = {output: decision.state for output, decision in decided.items()}
        rows = [outcome.row for outcome in outcomes]
        writers: list[Callable[[], None]] = [
            partial(write_crosswalk, folders.crosswalk, rows, reviews)
        ]
        if run.get("command") == DEIDENTIFY:
            writers.append(
                partial(write_header_report, folders, run, outcomes, reviews, log.anchor)
            )
        else:
            facts = _facts(folders, run)
            writers.append(
                partial(write_release_report, folders, facts, outcomes, reviews, log.anchor)
            )
            writers.append(partial(write_review, folders, facts, outcomes, decided))
        failures = [failure for write in writers if (failure := _failure(write))]
        if failures:
            raise failures[0]
        log.seal(folders)


def _withdraw(log: AuditLog, outputs: set[str]) -> None:
    """Tell of results that were deleted, for they have no row any more."""
    for output in sorted(set(results(log)) - outputs):
        log.append(Event.IMAGE_WITHDRAWN, output=output)


def _with_recorded_bytes(
    outcomes: Sequence[Outcome], recorded: Mapping[str, Result]
) -> list[Outcome]:
    """Take the SHA-256 from the log: a decision can have given a result another header."""
    return [
        replace(outcome, row=replace(outcome.row, sha256=recorded[outcome.row.output].sha256))
        if outcome.row.output in recorded
        else outcome
        for outcome in outcomes
    ]


def _run_record(folders: OutputFolders) -> dict[str, Any]:
    try:
        record = json.loads(folders.run.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(folders) from error
    if not isinstance(record, dict):
        raise _unreadable(folders)
    return record


def _facts(folders: OutputFolders, run: Mapping[str, Any]) -> RunFacts:
    try:
        return RunFacts.from_record(run)
    except (KeyError, TypeError) as error:
        raise _unreadable(folders) from error


def _unreadable(folders: OutputFolders) -> OutputError:
    return OutputError(f"{folders.root} holds no run that can be read", "restore private/run.json")


def _failure(write: Callable[[], None]) -> OutputError | None:
    try:
        write()
    except OutputError as error:
        return error
    return None
