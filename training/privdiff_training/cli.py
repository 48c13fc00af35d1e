"""The commands for those who train and measure models."""

from __future__ import annotations

import json
import logging
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privdiff_infer.model.bundle import DEFAULT_BUNDLE, find_bundle
from privdiff_infer.vocabulary import Profile

if TYPE_CHECKING:
    from privdiff_training.cohort import Cohort
    from privdiff_training.evaluation.compare import Comparison

Manifest = Annotated[Path, typer.Option(help="CSV of the cohort.")]
Dataset = Annotated[str, typer.Option(help="Data set of the manifest to use.")]
Folds = Annotated[list[str] | None, typer.Option("--fold", help="Splits to use [all].")]
CacheDir = Annotated[Path, typer.Option(help="Where prepared and redrawn images are kept.")]
Results = Annotated[Path, typer.Option("--output", "-o", help="JSON file of the figures.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]

SHARED = Path("../shared/data/metadata.csv")
NIH = "nih-chestxray14"


class Measurement(str, Enum):
    """What `privdiff measure` measures."""

    COMPONENTS = "components"
    GATES = "gates"


def register(app: typer.Typer) -> None:
    """Add the commands of this package to `privdiff`."""
    app.command("train")(train_stage)
    app.command("assemble")(assemble)
    app.command("compare")(compare)
    app.command("measure")(measure)
    app.command("draw-sample")(draw_sample)


def train_stage(
    stage: Annotated[str, typer.Argument(help="Name of the stage, as in its configuration.")],
    config: Annotated[Path, typer.Option(help="YAML file of the stage.")],
    bundle: Annotated[
        Path, typer.Option("--bundle", "-o", help="Bundle that is being built, stage by stage.")
    ],
    init_from: Annotated[
        Path | None, typer.Option(help="Bundle whose weights this leg starts from.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and logs [runs/<configuration>].")
    ] = None,
) -> None:
    """Train one stage; a run that was interrupted continues from its last checkpoint."""
    from privdiff_training.loop import train
    from privdiff_training.stages.registry import build_stage

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train(
        build_stage(stage, config, bundle, init_from),
        run_dir or Path("runs") / config.parent.name / config.stem,
        bundle,
    )


def assemble(
    components: Annotated[Path, typer.Argument(help="Folder that the stages exported to.")],
    config: Annotated[Path, typer.Option(help="bundle.yaml: name, licence, operating points.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle.")],
) -> None:
    """Make a bundle of the components: float16 weights, hashes, model card."""
    from privdiff_training.assemble import BundleConfig, assemble_bundle
    from privdiff_training.config import load_config

    metadata = assemble_bundle(components, load_config(config, BundleConfig), output)
    typer.echo(f"{metadata.name} {metadata.version}: {len(metadata.files)} files in {output}")


def compare(
    old: Annotated[str, typer.Argument(help="Bundle by name or folder.")],
    new: Annotated[str, typer.Argument(help="Bundle by name or folder.")],
    output: Results,
    manifest: Manifest = SHARED,
    dataset: Dataset = NIH,
    fold: Folds = None,
    select_patients: Annotated[
        bool, typer.Option(help="Use the tenth of the patients that nothing is trained on.")
    ] = True,
    old_profile: Annotated[Profile, typer.Option(help="Way of sampling.")] = Profile.STANDARD,
    new_profile: Annotated[Profile, typer.Option(help="Way of sampling.")] = Profile.STANDARD,
    old_strength: Annotated[float | None, typer.Option(help="[operating point]")] = None,
    new_strength: Annotated[float | None, typer.Option(help="[operating point]")] = None,
    evaluators: Annotated[Path, typer.Option(help="Folder of verifier and classifier.")] = Path(
        "training/evaluators"
    ),
    cache_dir: CacheDir = Path("runs/cache"),
    seed: Seed = 0,
) -> None:
    """Measure linkage and kept findings of two bundles with the project's own evaluators."""
    from privdiff_training.evaluation.compare import compare_bundles
    from privdiff_training.evaluation.networks import Evaluators

    comparison = compare_bundles(
        find_bundle(old),
        find_bundle(new),
        _cohort(manifest, dataset, fold, select=select_patients),
        evaluators=Evaluators.load(evaluators),
        cache_dir=cache_dir,
        profiles=(old_profile, new_profile),
        strengths=(old_strength, new_strength),
        seed=seed,
    )
    _write(output, comparison.to_record())
    typer.echo(_table(comparison))


def measure(
    what: Annotated[Measurement, typer.Argument(help="What of the bundle to measure.")],
    output: Results,
    model: Annotated[str, typer.Option(help="Bundle by name or folder.")] = DEFAULT_BUNDLE,
    manifest: Manifest = SHARED,
    dataset: Dataset = NIH,
    fold: Folds = None,
    cache_dir: CacheDir = Path("runs/cache"),
    seed: Seed = 0,
) -> None:
    """Measure the networks of a bundle one by one, or what its gates let through and hold."""
    from privdiff_training.evaluation.components import measure_components
    from privdiff_training.evaluation.gates import measure_gates

    function = measure_gates if what is Measurement.GATES else measure_components
    figures = function(find_bundle(model), _cohort(manifest, dataset, fold), cache_dir, seed)
    _write(output, figures.to_record())
    typer.echo(json.dumps(figures.to_record(), indent=2))


def draw_sample(
    images: Annotated[Path, typer.Argument(help="Folder for the images that are kept.")],
    config: Annotated[Path, typer.Option(help="YAML file of the stage that names the images.")],
    output: Results,
    model: Annotated[str, typer.Option(help="Bundle by name or folder.")] = DEFAULT_BUNDLE,
    unseen_fold: Annotated[str, typer.Option(help="Split of real images of other patients.")] = "3",
    keep: Annotated[int, typer.Option(min=1, help="Images to keep.")] = 8,
    check: Annotated[int, typer.Option(min=0, help="Further images to compare.")] = 200,
    cache_dir: CacheDir = Path("runs/cache"),
    seed: Seed = 0,
) -> None:
    """Draw images of nobody and compare each with every training image."""
    from privdiff_training.cohort import Cohort, read_manifest
    from privdiff_training.config import load_config
    from privdiff_training.evaluation import sample
    from privdiff_training.stages.diffusion import DiffusionConfig

    data = load_config(config, DiffusionConfig).data
    parts = data.read_sources()
    training = Cohort(parts[0].root, tuple(row for part in parts for row in part))
    datasets = {source.dataset for source in data.sources}
    unseen = read_manifest(data.manifest).where(
        lambda row: row.fold == unseen_fold and row.dataset in datasets
    )
    figures = sample.draw_sample(
        find_bundle(model),
        training,
        unseen.without_units_of(training),
        images,
        keep=keep,
        check=check,
        cache_dir=cache_dir,
        seed=seed,
    )
    _write(output, figures.to_record())
    typer.echo(json.dumps(figures.to_record(), indent=2))


def _cohort(
    manifest: Path, dataset: str, folds: list[str] | None, *, select: bool = False
) -> Cohort:
    from privdiff_training.cohort import is_select_patient, read_manifest

    return read_manifest(manifest).where(
        lambda row: (
            row.dataset == dataset
            and (not folds or row.fold in folds)
            and (not select or is_select_patient(row))
        )
    )


def _write(path: Path, record: dict[str, Any]) -> None:
    from privdiff_infer.release import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)


def _table(comparison: Comparison) -> str:
    columns = {
        "originals": comparison.originals,
        "old": comparison.old,
        "new": comparison.new,
    }
    lines = [f"{comparison.images} images of {comparison.patients} patients"]
    lines.append(f"{'':16}" + "".join(f"{name:>24}" for name in (*columns, "new - old")))
    for name, difference in comparison.new_minus_old.items():
        cells = [*(getattr(figures, name) for figures in columns.values()), difference]
        lines.append(f"{name:16}" + "".join(f"{cell!s:>24}" for cell in cells))
    for name in ("kernel_distance", "similarity"):
        cells = [f"{getattr(figures, name):.4f}" for figures in columns.values()]
        lines.append(f"{name:16}" + "".join(f"{cell:>24}" for cell in cells))
    lines.append(f"follow-up linkage by the labels alone: {comparison.labels_only}")
    return "\n".join(lines)
