"""The folder of a run: begun once, or continued with the same decisions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from typing_extensions import Self

from privdiff_infer.audit import AuditLog, Event, continued_log, load_audit_key
from privdiff_infer.errors import OptionError, OutputError
from privdiff_infer.journal import Journal
from privdiff_infer.records import write_records
from privdiff_infer.release import OutputFolders, json_bytes, reporting_disk_errors, write_private
from privdiff_infer.seeds import run_seed


class HeldRun:
    """A run in a folder that no other command works in meanwhile; a context manager.

    Parameters
    ----------
    out
        Folder of the run.
    decisions
        What a continued run must have in common with its first start, but for the seed; as JSON
        gives it back.
    seed
        Of the user, if there is one.
    resume
        Whether to continue a run.

    Attributes
    ----------
    folders
        Below `out`.
    seed
        Of the run; see `seeds.run_seed`.
    log
        What is done.
    journal
        What became of every source.

    Raises
    ------
    OptionError
        If a decision differs from that of the run that is continued.
    OutputError
        If the folder is in use or cannot be written, or holds no run to continue.
    AuditError
        If the audit log of the run that is continued was changed.
    SecretError
        If there is no audit key.
    """

    def __init__(
        self, out: Path, decisions: Mapping[str, Any], seed: int | None, *, resume: bool
    ) -> None:
        self.folders = OutputFolders(out)
        self._held = ExitStack()
        try:
            self.seed, self.log = _open(self.folders, decisions, seed, self._held, resume=resume)
            self.journal = Journal(self.folders, self.log)
        except BaseException:  # Ctrl-C too: nobody else would let the folder go
            self._held.close()
            raise

    def __enter__(self) -> Self:
        """Return itself; the folder is held since the start."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let other commands work in the folder."""
        self._held.close()

    def finish(self) -> None:
        """Write crosswalk and reports of everything in the journal, and seal them.

        Raises
        ------
        OutputError
            If one cannot be written; the others are, and nothing is sealed.
        """
        write_records(self.folders, self.journal.outcomes, self.log)


def _open(
    folders: OutputFolders,
    decisions: Mapping[str, Any],
    seed: int | None,
    held: ExitStack,
    *,
    resume: bool,
) -> tuple[str, AuditLog]:
    """Create or reopen the folders; return the seed of the run and its audit log."""
    if resume:
        return _reopen(folders, decisions, seed, held)
    with reporting_disk_errors():
        if folders.root.exists() and any(folders.root.iterdir()):
            raise OutputError(
                f"output folder {folders.root} is not empty",
                "name another folder, or continue its run with --resume",
            )
    key = load_audit_key()
    folders.create()
    text = run_seed(seed)
    write_private(folders.run, json_bytes({**decisions, "seed": text}))
    log = held.enter_context(AuditLog(folders.audit, key))
    log.append(Event.RUN_STARTED, options=decisions, resumed=False)
    return text, log


def _reopen(
    folders: OutputFolders, decisions: Mapping[str, Any], seed: int | None, held: ExitStack
) -> tuple[str, AuditLog]:
    try:
        recorded = json.loads(folders.run.read_text(encoding="utf-8"))
        text = str(recorded.pop("seed"))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise OutputError(
            f"{folders.root} holds no run that can be continued", "start it without --resume"
        ) from error
    if seed is not None and run_seed(seed) != text:
        raise OptionError("--seed differs from that of the run", "leave it out with --resume")
    for name, value in decisions.items():
        if recorded.get(name) != value:
            raise OptionError(
                f"{name} is {value!r} but the run was started with {recorded.get(name)!r}",
                "repeat the options of the first start, or name another folder",
            )
    log = held.enter_context(continued_log(folders))
    log.append(Event.RUN_STARTED, options=decisions, resumed=True)
    return text, log
