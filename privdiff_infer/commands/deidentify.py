"""`privdiff deidentify`: header and burned-in text of DICOM objects, without redrawing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privdiff_infer.commands.options import (
    EXIT_DONE,
    EXIT_INCOMPLETE,
    EXIT_STOPPED,
    Clean,
    Json,
    Retain,
    Scheduler,
    Workers,
    profile_options,
)
from privdiff_infer.commands.progress import following
from privdiff_infer.commands.stopping import stopped_by_signals
from privdiff_infer.release import Status
from privdiff_infer.sources import Source, find_sources

if TYPE_CHECKING:
    from privdiff_infer.deidentify import Deidentification


def deidentify(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="DICOM files, folders or patterns, of any modality; or "
            "dicomweb+https://HOST/PATH?Modality=DX,CR, a query of a store."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of this run.")],
    retain: Retain = None,
    clean: Clean = None,
    accept_unchecked_text: Annotated[
        bool,
        typer.Option(
            "--accept-unchecked-text",
            help="Release images also if their pixels cannot be searched for burned-in text.",
        ),
    ] = False,
    workers: Workers = 1,
    scheduler: Scheduler = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that stopped.")] = False,
    as_json: Json = False,
) -> None:
    """Clean header and burned-in text of DICOM files; the pixels stay, and can be recognized."""
    files = find_sources(sources, absolute=bool(scheduler))
    from privdiff_infer.deidentify import Deidentification, DeidentifyOptions

    options = DeidentifyOptions(
        output, profile_options(retain, clean), accept_unchecked_text, workers, scheduler, resume
    )
    with Deidentification(options) as run:
        raise typer.Exit(_perform(run, files, as_json))


def _perform(run: Deidentification, files: Sequence[Source], as_json: bool) -> int:
    """Do all files under a progress bar, write the report and return the exit code."""
    stopped = False
    try:
        with stopped_by_signals():
            _follow(run, files, quiet=as_json)
    except KeyboardInterrupt:
        stopped = True
    run.finish()
    counts = Counter(outcome.row.status for outcome in run.journal)
    if as_json:
        record = {
            "out": str(run.folders.root),
            "report": str(run.folders.report),
            "crosswalk": str(run.folders.crosswalk),
            "counts": {status.value: counts[status] for status in Status},
        }
        typer.echo(json.dumps(record, indent=2))
    else:
        typer.echo(", ".join(f"{counts[status]} {status.value}" for status in Status))
        typer.echo(f"crosswalk (private): {run.folders.crosswalk}")
        typer.echo(f"report: {run.folders.report}")
    if stopped:
        typer.echo("stopped; continue with --resume", err=True)
        return EXIT_STOPPED
    return EXIT_DONE if set(counts) <= {Status.RELEASED} else EXIT_INCOMPLETE


def _follow(run: Deidentification, files: Sequence[Source], *, quiet: bool) -> None:
    """Show progress on stderr and print one line per file that was not released."""
    with (
        following("Files", len(files), quiet=quiet) as progress,
        closing(run.outcomes(files)) as outcomes,
    ):
        for outcome in outcomes:
            progress.advance()
            if outcome.row.status is not Status.RELEASED:
                progress.say(f"{outcome.row.source}: {outcome.row.reason}")
