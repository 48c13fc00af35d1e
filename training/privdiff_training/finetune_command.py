"""`privdiff finetune`: a bundle adapted to a cohort, with the evidence of what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privdiff_infer.vocabulary import DEFAULT_BUNDLE
from privdiff_training.command_options import EVALUATORS, EvaluatorsFolder
from privdiff_training.finetuning.method import Method

if TYPE_CHECKING:
    from privdiff_infer.model.bundle import BundleInfo
    from privdiff_training.cohort import Cohort
    from privdiff_training.finetuning.folder import RunFolder

CONFIG = Path("training/configs/finetune.yaml")
EXIT_REFUSED = 1
LONGEST_STEP = timedelta(hours=12)
"""How long processes wait for the first one, which does all but the training alone."""


def finetune(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new bundle.")],
    manifest: Annotated[
        Path | None, typer.Option(help="CSV: image,patient_id,findings[,sex,age,view,split].")
    ] = None,
    dicom: Annotated[Path | None, typer.Option(help="Folder of DICOM files.")] = None,
    dicomweb: Annotated[
        str | None, typer.Option(help="Query of a store: dicomweb+https://host/path?Modality=DX.")
    ] = None,
    base: Annotated[str, typer.Option(help="Bundle to adapt, by name or folder.")] = DEFAULT_BUNDLE,
    method: Annotated[
        Method, typer.Option(help="LoRA weights, or the whole denoiser.")
    ] = Method.LORA,
    config: Annotated[Path, typer.Option(help="YAML file.")] = CONFIG,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Private folder: cohort report, checkpoints [OUTPUT.private]."),
    ] = None,
    evaluators: EvaluatorsFolder = EVALUATORS,
) -> None:
    """Adapt a bundle to a cohort: check, report, train, test for memory, measure, export.

    Continues where it was interrupted. Exit code 1: the memorization test failed, nothing was
    exported.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    from privdiff_infer.errors import ExportRefused
    from privdiff_infer.model.bundle import find_bundle
    from privdiff_training.config import load_config
    from privdiff_training.finetuning.config import FinetuneConfig
    from privdiff_training.finetuning.folder import RunFolder
    from privdiff_training.finetuning.run import FinetuneOptions
    from privdiff_training.finetuning.run import finetune as run

    source, cohort = named_source(manifest, dicom, dicomweb)
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=LONGEST_STEP)
    level = logging.INFO if state.is_main_process else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("accelerate").setLevel(logging.WARNING)  # it names every checkpoint file
    options = FinetuneOptions(
        source=source,
        cohort=cohort,
        output=output,
        folder=RunFolder(run_dir or output.with_name(f"{output.name}.private")),
        base=find_bundle(base),
        method=method,
        config=load_config(config, FinetuneConfig),
        evaluators=evaluators,
    )
    try:
        bundle = run(options)
    except ExportRefused as error:
        typer.echo(f"privdiff: {error}", err=True)
        raise typer.Exit(EXIT_REFUSED) from error
    if state.is_main_process:
        typer.echo(_summary(bundle))
    state.destroy_process_group()


def named_source(
    manifest: Path | None, dicom: Path | None, dicomweb: str | None
) -> tuple[str, Callable[[RunFolder], Cohort]]:
    """Return what was named, and what reads it."""
    from privdiff_infer.errors import OptionError
    from privdiff_training.finetuning.sources import read_csv, read_dicom

    named = [value for value in (manifest, dicom, dicomweb) if value is not None]
    if len(named) != 1:
        raise OptionError(
            f"{len(named)} cohorts are named", "name one by --manifest, --dicom or --dicomweb"
        )
    if manifest is not None:
        return str(manifest), lambda folder: read_csv(manifest)
    return str(named[0]), lambda folder: read_dicom(str(named[0]), folder)


def _summary(bundle: BundleInfo) -> str:
    facts = bundle.metadata.fine_tuning
    assert facts is not None
    lines = [f"{bundle.name} {bundle.version} in {bundle.path}"]
    for name, figure in facts.evaluation.items():
        old, new = (
            "not measurable" if interval is None else "{:.3f} [{:.3f}, {:.3f}]".format(*interval)
            for interval in (figure.old, figure.new)
        )
        lines.append(f"{name:12} old {old:24} new {new}")
    lines.append(f"memorization: {facts.copies} of {facts.drawn} drawn images are near copies")
    if facts.epsilon is not None:
        lines.append(f"differential privacy: epsilon {facts.epsilon:.2f}, delta {facts.delta:.1e}")
    return "\n".join(lines)
