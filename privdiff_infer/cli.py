"""`privdiff`: the commands. Exit code 0: all done, 1: some held or failed, 2: wrong usage.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from importlib.metadata import entry_points
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privdiff_infer import __version__
from privdiff_infer.errors import OutputError, PrivDiffError
from privdiff_infer.image_files import OutputFormat
from privdiff_infer.model.bundle import (
    DEFAULT_BUNDLE,
    BundleInfo,
    find_bundle,
    list_bundles,
    verify_bundle,
)
from privdiff_infer.model_grid import OutputSize
from privdiff_infer.release import Status
from privdiff_infer.sources import find_sources
from privdiff_infer.vocabulary import Precision, Profile

if TYPE_CHECKING:
    from privdiff_infer.run import Run

COMMANDS = "privdiff.commands"
SAMPLE = Path(__file__).resolve().parent / "sample"
DEMO_SEED = 1

EXIT_DONE = 0
EXIT_INCOMPLETE = 1
EXIT_USAGE = 2
EXIT_STOPPED = 130

app = typer.Typer(
    help="Redraws chest X-rays so that the findings stay and the person goes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str, typer.Option("--model", help="Bundle by name or folder.")]
ProfileOption = Annotated[Profile, typer.Option(help="Way of sampling.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Number format of the networks.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that share the images.")]
Threads = Annotated[
    int, typer.Option(min=1, help="CPU threads of one process; more are faster, other last bits.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"privdiff {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is done.")] = False,
) -> None:
    """Redraws chest X-rays so that the findings stay and the person goes."""
    if verbose:
        handler = logging.StreamHandler()
        # Other libraries log values of headers and names of files.
        handler.addFilter(lambda record: record.name.startswith("privdiff_"))
        logging.basicConfig(
            level=logging.DEBUG, format="%(asctime)s %(name)s %(message)s", handlers=[handler]
        )


@app.command()
def anonymize(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders or patterns of DICOM, PNG, JPEG, NIfTI or NRRD images."
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
        OutputFormat, typer.Option("--format", help="auto: NRRD for volumes, else 8-bit PNG.")
    ] = OutputFormat.AUTO,
    output_size: Annotated[
        OutputSize, typer.Option(help="The model's resolution, or the original matrix.")
    ] = OutputSize.MODEL,
    device: Device = "auto",
    precision: PrecisionOption = Precision.FLOAT32,
    workers: Workers = 1,
    threads: Threads = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that stopped.")] = False,
    as_json: Json = False,
) -> None:
    """Redraw chest X-rays; results in OUT/release, what must not leave in OUT/private."""
    files = find_sources(sources)
    bundle = find_bundle(model)
    from privdiff_infer.anonymizer import AnonymizerOptions
    from privdiff_infer.run import Run, RunOptions

    options = RunOptions(
        out=output,
        bundle=bundle,
        anonymizer=AnonymizerOptions(
            profile, strength, steps, device, precision, output_size, threads
        ),
        output_format=output_format,
        seed=seed,
        workers=workers,
        resume=resume,
    )
    raise typer.Exit(_perform(Run(options), files, as_json))


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder; an earlier demo in it is replaced.")
    ] = Path("privdiff-demo"),
    as_json: Json = False,
) -> None:
    """Redraw the embedded sample: chest X-rays that our own model drew, of nobody.

    An image that a gate holds belongs to the demonstration, so the exit code is 0 then too.
    """
    from privdiff_infer.run import Run, RunOptions, discard_demo

    bundle = find_bundle(DEFAULT_BUNDLE)
    discard_demo(output)
    run = Run(RunOptions(out=output, bundle=bundle, seed=DEMO_SEED, demo=True))
    expected = (Status.RELEASED, Status.HELD)
    raise typer.Exit(_perform(run, find_sources([str(SAMPLE)]), as_json, expected))


@app.command()
def models(as_json: Json = False) -> None:
    """List the embedded bundles and compare every file with its hash."""
    bundles = [verify_bundle(info.path) for info in list_bundles()]
    if as_json:
        typer.echo(json.dumps([_bundle_record(info) for info in bundles], indent=2))
        return
    for info in bundles:
        typer.echo(
            f"{info.name} {info.version}  {info.size_bytes / 1e6:.1f} MB  {info.licence}  "
            f"{len(info.metadata.files)} files match their hashes"
        )
        for profile, point in info.metadata.operating_points.items():
            typer.echo(f"  {profile.value:10} strength {point.strength:.2f}")
        typer.echo(f"  {info.path}\n  {info.metadata.summary}\n  metadata {info.sha256}")


@app.command()
def benchmark(
    model: Model = DEFAULT_BUNDLE,
    repeat: Annotated[int, typer.Option(min=1, help="Timed calls of each kind.")] = 3,
    soak: Annotated[
        int, typer.Option(min=0, help="Images to redraw in a row to watch the memory.")
    ] = 0,
    threads: Threads = 1,
    device: Device = "auto",
    precision: PrecisionOption = Precision.FLOAT32,
    as_json: Json = False,
) -> None:
    """Time every profile of a bundle, and the paper's own sampler, on this machine."""
    from privdiff_infer.benchmark import BenchmarkOptions, format_table, run_benchmark

    options = BenchmarkOptions(
        repeat=repeat, soak=soak, device=device, precision=precision, threads=threads
    )
    result = run_benchmark(find_bundle(model), find_sources([str(SAMPLE)]), options)
    typer.echo(json.dumps(result.to_record(), indent=2) if as_json else format_table(result))


def main() -> None:
    """Run `privdiff`; errors that were foreseen are one line and an exit code."""
    if isinstance(sys.stdout, TextIOWrapper):  # a file name can hold bytes that are no UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except PrivDiffError as error:
        typer.echo(f"privdiff: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except ModuleNotFoundError as error:  # of an extra that is not installed
        remedy = "install the extra with pip install 'privdiff[train]'"
        typer.echo(f"privdiff: the module {error.name} is missing; {remedy}", err=True)
        sys.exit(EXIT_USAGE)


def _perform(
    run: Run,
    files: Sequence[Path],
    as_json: bool,
    expected: Collection[Status] = (Status.RELEASED,),
) -> int:
    """Do all images under a progress bar, write the reports and return the exit code.

    The code tells of every image of the run, also of those that an earlier start did.
    """
    stopped = False
    try:
        _follow(run, files, quiet=as_json)
    except KeyboardInterrupt:
        stopped = True
    complete = _write_reports(run)
    counts = Counter(outcome.row.status for outcome in run.journal.outcomes)
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


def _follow(run: Run, files: Sequence[Path], *, quiet: bool) -> None:
    """Show progress on stderr and print one line per image that was not done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, highlight=False, markup=False)
    with Progress(*columns, console=console, disable=quiet) as progress:
        images = progress.add_task("Images", total=len(files))
        steps = progress.add_task("  this image", total=None, visible=run.options.workers == 1)

        def step_progress(done: int, total: int) -> None:
            progress.update(steps, completed=done, total=total)

        with closing(run.outcomes(files, step_progress)) as outcomes:
            for outcome in outcomes:
                progress.advance(images)
                if outcome.row.status is not Status.RELEASED:
                    console.print(f"{outcome.row.source}: {outcome.row.reason}", soft_wrap=True)


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
            for outcome in run.journal.outcomes
        ],
    }


def _bundle_record(info: BundleInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "version": info.version,
        "path": str(info.path),
        "sha256": info.sha256,
        "licence": info.licence,
        "size_bytes": info.size_bytes,
        "metadata": info.metadata.model_dump(mode="json"),
    }


for _command in entry_points(group=COMMANDS):
    _command.load()(app)
