"""`privdiff verify`: whether anything of a run was changed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privdiff_infer.commands.options import EXIT_DONE, EXIT_INCOMPLETE, Json

if TYPE_CHECKING:
    from privdiff_infer.verification import Verification


def verify(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a run.")],
    as_json: Json = False,
) -> None:
    """Check audit log, released files and records of a run.

    Exit code 0 says that everything was checked, with the audit key, and nothing was changed.
    """
    from privdiff_infer.audit import find_audit_key
    from privdiff_infer.verification import verify

    verification = verify(out, find_audit_key())
    typer.echo(_as_json(verification) if as_json else _as_text(verification))
    raise typer.Exit(EXIT_INCOMPLETE if verification.findings else EXIT_DONE)


def _as_json(verification: Verification) -> str:
    return json.dumps({"passed": not verification.findings} | asdict(verification), indent=2)


def _as_text(verification: Verification) -> str:
    lines = [str(finding) for finding in verification.findings]
    checked = f"{verification.entries} entries, {verification.files} files in release/"
    if verification.recovered:
        checked += f", {verification.recovered} interrupted writes put aside"
    if not lines:
        checked += f"; nothing was changed since the seal of {verification.sealed}"
    return "\n".join([*lines, checked])
