"""The commands for those who train and measure models."""

from __future__ import annotations

import json
import logging
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privdiff_infer.vocabulary import DEFAULT_BUNDLE, Profile
from privdiff_training.command_options import (
    EVALUATORS,
    NIH,
    SHARED,
    CacheDir,
    Dataset,
    EvaluatorsFolder,
    Folds,
    Manifest,
    Seed,
)
from privdiff_training.evaluate_command import evaluate
from privdiff_training.finetune_command import finetune

if TYPE_CHECKING:
    from privdiff_training.cohort import Cohort
    from privdiff_training.evaluation.compare import Comparison

TEXT_LABELS = Path("docs/results/burned-in-text-labels.csv")


class Patients(str, Enum):
    """Which patients of the splits are used.

    ``SELECT``: the tenth that nothing is trained on, for choosing. ``JUDGING``: the fifth that no
    evaluator is trained on, for judging critics.
    """

    ALL = "all"
    SELECT = "select"
    JUDGING = "judging"


class Measurement(str, Enum):
    """What `privdiff measure` measures."""

    COMPONENTS = "components"
    GATES = "gates"
    DRAWING = "drawing"
    TEXT = "text"


Results = Annotated[Path, typer.Option("--output", "-o", help="JSON file of the figures.")]
PatientsOption = Annotated[Patients, typer.Option("--patients", help="Patients of these splits.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this package to `privdiff`."""
    app.command("train")(train_stage)
    app.command("fit-clusters")(fit_clusters)
    app.command("finetune")(finetune)
    app.command("assemble")(assemble)
    app.command("compare")(compare)
    app.command("sweep")(sweep)
    app.command("evaluate")(evaluate)
    app.command("measure")(measure)
    app.command("draw-sample")(draw_sample)
    app.command("grid")(grid)
    app.command("plot-progress")(plot_progress)


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
    from accelerate import PartialState

    from privdiff_training.loop import train
    from privdiff_training.stages.registry import build_stage

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train(
        build_stage(stage, config, bundle, init_from),
        run_dir or Path("runs") / config.parent.name / config.stem,
        bundle,
    )
    PartialState().destroy_process_group()


def fit_clusters(
    config: Annotated[Path, typer.Option(help="clusters.yaml: whose groups, and of how many.")],
    bundle: Annotated[
        Path, typer.Option("--bundle", "-o", help="Bundle that is being built, stage by stage.")
    ],
) -> None:
    """Group the training patients by their findings and draw exemplars of every group: where the
    profiles standard and fast start from. A run that was interrupted goes on.
    """
    from privdiff_training.clusters import ClustersConfig
    from privdiff_training.config import load_config
    from privdiff_training.exemplars import export_clusters

    clusters = export_clusters(bundle, load_config(config, ClustersConfig))
    sizes = clusters.patients
    typer.echo(f"{len(sizes)} groups of {sizes.min()} to {sizes.max()} patients in {bundle}")


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
    patients: PatientsOption = Patients.SELECT,
    old_profile: Annotated[Profile, typer.Option(help="Way of sampling.")] = Profile.STANDARD,
    new_profile: Annotated[Profile, typer.Option(help="Way of sampling.")] = Profile.STANDARD,
    old_strength: Annotated[float | None, typer.Option(help="[operating point]")] = None,
    new_strength: Annotated[float | None, typer.Option(help="[operating point]")] = None,
    evaluators: EvaluatorsFolder = EVALUATORS,
    cache_dir: CacheDir = Path("runs/cache"),
    seed: Seed = 0,
) -> None:
    """Measure linkage and kept findings of two bundles with the project's own evaluators."""
    from privdiff_infer.model.bundle import find_bundle
    from privdiff_training.evaluation.compare import compare_bundles
    from privdiff_training.evaluation.networks import Evaluators

    comparison = compare_bundles(
        find_bundle(old),
        find_bundle(new),
        _cohort(manifest, dataset, fold, patients),
        evaluators=Evaluators.load(evaluators),
        cache_dir=cache_dir,
        profiles=(old_profile, new_profile),
        strengths=(old_strength, new_strength),
        seed=seed,
    )
    _write(output, comparison.to_record())
    typer.echo(_table(comparison))


def sweep(
    output: Results,
    model: Annotated[str, typer.Option(help="Bundle by name or folder.")] = DEFAULT_BUNDLE,
    manifest: Manifest = SHARED,
    dataset: Dataset = NIH,
    fold: Folds = None,
    patients: PatientsOption = Patients.SELECT,
    profile: Annotated[list[Profile] | None, typer.Option(help="Ways of sampling [all].")] = None,
    strength: Annotated[
        list[float] | None, typer.Option(help="Strengths [0.2 0.4 0.6 0.8 1.0].")
    ] = None,
    evaluators: EvaluatorsFolder = EVALUATORS,
    cache_dir: CacheDir = Path("runs/cache"),
    seed: Seed = 0,
) -> None:
    """Measure every profile of a bundle at every strength; writes JSON and prints a table."""
    from privdiff_infer.model.bundle import find_bundle
    from privdiff_training.evaluation.networks import Evaluators
    from privdiff_training.evaluation.sweep import STRENGTHS, sweep_bundle

    result = sweep_bundle(
        find_bundle(model),
        _cohort(manifest, dataset, fold, patients),
        evaluators=Evaluators.load(evaluators),
        cache_dir=cache_dir,
        profiles=profile or list(Profile),
        strengths=strength or STRENGTHS,
        seed=seed,
    )
    _write(output, result.to_record())
    typer.echo(result.to_markdown(), nl=False)


def measure(
    what: Annotated[Measurement, typer.Argument(help="What of the bundle to measure.")],
    output: Results,
    model: Annotated[str, typer.Option(help="Bundle by name or folder.")] = DEFAULT_BUNDLE,
    manifest: Manifest = SHARED,
    dataset: Dataset = NIH,
    fold: Folds = None,
    patients: PatientsOption = Patients.ALL,
    evaluators: EvaluatorsFolder = EVALUATORS,
    cache_dir: CacheDir = Path("runs/cache"),
    text_labels: Annotated[
        Path, typer.Option(help="CSV of real text that was marked by eye, for `text`.")
    ] = TEXT_LABELS,
    seed: Seed = 0,
) -> None:
    """Measure the networks of a bundle one by one, its gates, how real its drawings are, or how
    much burned-in text is found.
    """
    from privdiff_infer.model.bundle import find_bundle
    from privdiff_training.evaluation.components import measure_components
    from privdiff_training.evaluation.drawing import measure_drawing
    from privdiff_training.evaluation.gates import measure_gates
    from privdiff_training.evaluation.networks import Evaluators
    from privdiff_training.evaluation.text import measure_text

    bundle, cohort = find_bundle(model), _cohort(manifest, dataset, fold, patients)
    if what is Measurement.COMPONENTS:
        record = measure_components(bundle, cohort, cache_dir, seed).to_record()
    elif what is Measurement.GATES:
        record = measure_gates(bundle, cohort, cache_dir, seed).to_record()
    elif what is Measurement.TEXT:
        record = measure_text(bundle, cohort, text_labels, seed).to_record()
    else:
        networks = Evaluators.load(evaluators)
        record = measure_drawing(bundle, cohort, networks, cache_dir, seed=seed).to_record()
    _write(output, record)
    typer.echo(json.dumps(record, indent=2))


def grid(
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file.")],
    image: Annotated[list[str], typer.Option(help="Images of the manifest, one line each.")],
    model: Annotated[str, typer.Option(help="Bundle by name or folder.")] = DEFAULT_BUNDLE,
    manifest: Manifest = SHARED,
    profile: Annotated[Profile, typer.Option(help="Way of sampling.")] = Profile.STANDARD,
    cache_dir: CacheDir = Path("runs/cache"),
    seed: Seed = 0,
) -> None:
    """Draw a picture: each image, its reconstruction, and redrawn at strengths 0.2 to 1."""
    from privdiff_infer.model.bundle import find_bundle, read_bundle
    from privdiff_training.cohort import read_manifest
    from privdiff_training.evaluation.pictures import redrawn_grid
    from privdiff_training.evaluation.sweep import STRENGTHS
    from privdiff_training.images import load_images

    bundle = find_bundle(model)
    cohort = read_manifest(manifest).where(lambda row: row.image.name in image)
    pixels = load_images(cohort, read_bundle(bundle).metadata.image_size, cache_dir)
    picture = redrawn_grid(bundle, pixels.unsqueeze(1).float() / 255, profile, STRENGTHS, seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    picture.save(output)


def plot_progress(
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG or SVG file.")],
    figures: Annotated[
        Path, typer.Argument(help="Folder of `measure drawing` files named by samples seen.")
    ],
) -> None:
    """Plot how real drawings are over the samples that the denoiser has seen."""
    from privdiff_training.evaluation.pictures import progress_plot

    progress_plot({int(path.stem): path for path in figures.glob("*.json")}, output)


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
    from privdiff_infer.model.bundle import find_bundle
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


def _cohort(manifest: Path, dataset: str, folds: list[str] | None, patients: Patients) -> Cohort:
    from privdiff_training.cohort import is_judging_patient, is_select_patient, read_manifest

    belongs = {
        Patients.ALL: lambda row: True,
        Patients.SELECT: is_select_patient,
        Patients.JUDGING: is_judging_patient,
    }[patients]
    return read_manifest(manifest).where(
        lambda row: row.dataset == dataset and (not folds or row.fold in folds) and belongs(row)
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
