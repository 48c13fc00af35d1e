"""`privdiff anonymize` and `privdiff demo`: images in, reviewed results out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privdiff_infer.commands.options import (
    EXIT_DONE,
    EXIT_INCOMPLETE,
    EXIT_STOPPED,
    SAMPLE,
    Clean,
    Device,
    Json,
    Model,
    PrecisionOption,
    ProfileOption,
    Retain,
    Scheduler,
    Threads,
    Workers,
    profile_options,
)
from privdiff_infer.commands.progress import following, progress_bar
from privdiff_infer.commands.stopping import stopped_by_signals
from privdiff_infer.errors import OutputError
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.release import Status
from privdiff_infer.sources import Source, find_sources
from privdiff_infer.vocabulary import DEFAULT_BUNDLE, OutputSize, Precision, Profile, SideMarkers

if TYPE_CHECKING:
    from privdiff_infer.gallery import Gallery
    from privdiff_infer.run import Run

DEMO_SEED = 1


def anonymize(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders or patterns of DICOM, PNG, JPEG, NIfTI or NRRD images; or "
            "dicomweb+https://HOST/PATH?Modality=DX,CR, a query of a store."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of this run.")],
    model: Model = DEFAULT_BUNDLE,
    profile: ProfileOption = Profile.STANDARD,
    strength: Annotated[
        float | None,
        typer.Option(help="Noise from 0 (excluded) to 1; the bundle's own choice by default."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Inference steps; the profile's by default.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Makes the run repeatable; secret like a key.")
    ] = None,
    output_format: Annotated[
        OutputFormat, typer.Option("--format", help="auto: DICOM for DICOM, NRRD for volumes, PNG.")
    ] = OutputFormat.AUTO,
    output_size: Annotated[
        OutputSize, typer.Option(help="The model's resolution, or the original matrix.")
    ] = OutputSize.MODEL,
    retain: Retain = None,
    clean: Clean = None,
    device: Device = "auto",
    precision: PrecisionOption = Precision.FLOAT32,
    workers: Workers = 1,
    scheduler: Scheduler = "",
    threads: Threads = 1,
    side_markers: Annotated[
        SideMarkers, typer.Option(help="A lone L or R is removed, or a new letter drawn for it.")
    ] = SideMarkers.REDRAW,
    accept_unchecked_text: Annotated[
        bool,
        typer.Option(
            "--accept-unchecked-text",
            help="Do not hold images for burned-in text if the text detector does not load.",
        ),
    ] = False,
    gallery: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images of other people, at least 20: a result is held if a search "
            "among them would find its source."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that stopped.")] = False,
    as_json: Json = False,
) -> None:
    """Redraw chest X-rays; results in OUT/release, what must not leave in OUT/private."""
    from privdiff_infer.model.bundle import find_bundle

    files = find_sources(sources, absolute=bool(scheduler))
    bundle = find_bundle(model)
    from privdiff_infer.anonymizer import AnonymizerOptions
    from privdiff_infer.run import Run, RunOptions

    options = RunOptions(
        out=output,
        bundle=bundle,
        anonymizer=AnonymizerOptions(
            profile,
            strength,
            steps,
            device,
            precision,
            output_size,
            threads,
            side_markers,
            accept_unchecked_text,
            _embedded(gallery, bundle, quiet=as_json) if gallery else None,
        ),
        output_format=output_format,
        seed=seed,
        workers=workers,
        scheduler=scheduler,
        resume=resume,
        retain=profile_options(retain, clean),
    )
    with Run(options) as run:
        raise typer.Exit(_perform(run, files, as_json))


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder; an earlier demo in it is replaced.")
    ] = Path("privdiff-demo"),
    as_json: Json = False,
) -> None:
    """Redraw the embedded sample: chest X-rays that our own model drew, of nobody.

    An image that a gate holds belongs to the demonstration, so the exit code is 0 then too.
    """
    from privdiff_infer.model.bundle import find_bundle
    from privdiff_infer.run import Run, RunOptions, discard_demo

    bundle = find_bundle(DEFAULT_BUNDLE)
    discard_demo(output)
    expected = (Status.RELEASED, Status.HELD)
    options = RunOptions(output, bundle, output_format=OutputFormat.PNG, seed=DEMO_SEED, demo=True)
    with Run(options) as run:
        raise typer.Exit(_perform(run, find_sources([str(SAMPLE)]), as_json, expected))


def _embedded(folder: Path, bundle: Path, *, quiet: bool) -> Gallery:
    from privdiff_infer.gallery import read_gallery

    with progress_bar(quiet=quiet) as bar:
        task = bar.add_task("gallery", total=None)
        return read_gallery(
            folder, bundle, lambda done, total: bar.update(task, completed=done, total=total)
        )


def _perform(
    run: Run,
    files: Sequence[Source],
    as_json: bool,
    expected: Collection[Status] = (Status.RELEASED,),
) -> int:
    """Do all images under a progress bar, write the reports and return the exit code.

    The code tells of every image of the run, also of those that an earlier start did.
    """
    stopped = False
    try:
        with stopped_by_signals():
            _follow(run, files, quiet=as_json)
    except KeyboardInterrupt:
        stopped = True
    complete = _write_reports(run)
    counts = Counter(outcome.row.status for outcome in run.journal)
    if as_json:
        typer.echo(json.dumps(_run_record(run, counts), indent=2))
    else:
        typer.echo(", ".join(f"{counts[status]} {status.value}" for status in Status))
        typer.echo(f"review (private): {run.folders.review_page}")
        typer.echo(f"report: {run.folders.report}")
    if stopped:
        left = sum(path not in run.journal for path in files)
        typer.echo(f"stopped with {left} images left; continue with --resume", err=True)
        return EXIT_STOPPED
    return EXIT_DONE if complete and set(counts) <= set(expected) else EXIT_INCOMPLETE


def _follow(run: Run, files: Sequence[Source], *, quiet: bool) -> None:
    """Show progress on stderr and print one line per image that was not done."""
    with (
        following("Images", len(files), quiet=quiet) as progress,
        closing(run.outcomes(files, progress.step)) as outcomes,
    ):
        for outcome in outcomes:
            progress.advance()
            if outcome.row.status is not Status.RELEASED:
                progress.say(f"{outcome.row.source}: {outcome.row.reason}")


def _write_reports(run: Run) -> bool:
    """Write what can be written; tell whether that was everything."""
    try:
        run.finish()
    except OutputError as error:
        typer.echo(f"privdiff: crosswalk or reports are not up to date: {error}", err=True)
        return False
    return True


def _run_record(run: Run, counts: Counter[Status]) -> dict[str, Any]:
    return {
        "out": str(run.folders.root),
        "report": str(run.folders.report),
        "review": str(run.folders.review_page),
        "crosswalk": str(run.folders.crosswalk),
        "counts": {status.value: counts[status] for status in Status},
        "images": [
            {
                "source": outcome.row.source,
                "output": outcome.row.output,
                "status": outcome.row.status.value,
                "reason": outcome.row.reason,
            }
            for outcome in run.journal
        ],
    }
