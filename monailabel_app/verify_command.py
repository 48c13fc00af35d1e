"""`privdiff verify-server`: whether anything of a server's state was changed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from privdiff_infer.commands.options import EXIT_DONE, EXIT_INCOMPLETE, Json


def verify_server(
    state: Annotated[Path, typer.Argument(metavar="STATE", help="State folder of a server.")],
    as_json: Json = False,
) -> None:
    """Check the audit log of a server, and the log and files of every job.

    Exit code 0 says that everything was checked, with the audit key, and nothing was changed.
    """
    from monailabel_app.lib.verification import verify_state
    from privdiff_infer.audit import find_audit_key

    found = verify_state(state, find_audit_key())
    if as_json:
        typer.echo(json.dumps({"passed": not found.findings} | asdict(found), indent=2))
    else:
        for finding in found.findings:
            typer.echo(str(finding))
        typer.echo(
            f"{found.entries} entries, {found.jobs} folders of jobs, {found.unfinished} of them "
            "without a result" + ("" if found.findings else "; nothing was changed")
        )
    raise typer.Exit(EXIT_INCOMPLETE if found.findings else EXIT_DONE)
