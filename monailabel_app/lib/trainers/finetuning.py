"""One fine-tuning: the suppression stage, a bundle, its comparison with the one it started from.

Each step finds out from the folder of the run what is done already, so a run that was killed
continues where it was. Torch is loaded here, in a process of its own.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from privdiff_training.assemble import BundleConfig, assemble_bundle
from privdiff_training.cohort import Cohort, is_select_patient, read_manifest
from privdiff_training.evaluation.compare import EVALUATORS, compare_bundles
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.finetuning.roles import largest_dataset, patients
from privdiff_training.finetuning.settings import (
    adapter_rank,
    add_components_of_base,
    card_with_base,
    data_keys,
    schedule_keys,
    tuned_bundle_config,
)
from privdiff_training.images import load_images
from privdiff_training.loop import train
from privdiff_training.stages.registry import build_stage
from privdiff_training.stages.suppression import SuppressionStage

from monailabel_app.lib.models.comparison import (
    ComparisonFigures,
    ComparisonRecord,
    ModelReference,
    comparison_file,
)
from monailabel_app.lib.trainers.errors import TrainingFailed
from monailabel_app.lib.trainers.progress import RunFolder, TrainingStage, now
from monailabel_app.lib.trainers.reporter import Reporter
from monailabel_app.lib.trainers.samples import Sampler
from privdiff_infer.model.bundle import BundleInfo, read_bundle
from privdiff_infer.pipeline import ADAPTERS
from privdiff_infer.release import write_private

TEMPLATE = Path(__file__).with_name("finetune.yaml")
MIN_HELD_BACK = 2
"""Patients; linkage of one alone cannot be measured."""

TIME_OVER = "its time was over"


@dataclass(frozen=True)
class Task:
    """What a fine-tuning works with.

    Attributes
    ----------
    manifest
        CSV of the cohort.
    evaluators
        Folder of the networks that compare; None: those of a checkout, if this is one.
    models
        ``STATE/models``.
    base
        The bundle that is tuned.
    folder
        Of the run.
    reporter
        Of its progress.
    """

    manifest: Path
    evaluators: Path | None
    models: Path
    base: BundleInfo
    folder: RunFolder
    reporter: Reporter

    @property
    def adapter(self) -> str:
        """Name of the weights that are trained."""
        return self.reporter.progress.parameters.profile.value


def fine_tune(task: Task) -> None:
    """Run all that is left of a fine-tuning, then delete what it needed of the cohort.

    Raises
    ------
    TrainingFailed
        If the cohort is too small.
    PrivDiffError
        If the cohort, the bundle or the configuration cannot be used. The message may name files.
    """
    cohort = read_manifest(task.manifest)
    held_back = _held_back(cohort)
    bundle = _bundle_of_before(task)
    if bundle is None:
        _train(task, cohort, held_back)
        bundle = _assemble(task, cohort)
    _compare(task, bundle, held_back)
    for folder in (task.folder.checkpoints, task.folder.cache, task.folder.components):
        shutil.rmtree(folder, ignore_errors=True)


def _bundle_of_before(task: Task) -> BundleInfo | None:
    """Return the bundle that an earlier attempt at this run has written."""
    model = task.reporter.progress.model
    written = bool(model) and (task.models / model).is_dir()
    return read_bundle(task.models / model) if written else None


def _held_back(cohort: Cohort) -> Cohort:
    """Return the patients that nothing is trained on, of the data set that has most of them."""
    largest = largest_dataset(cohort.where(is_select_patient))
    if patients(largest) < MIN_HELD_BACK:
        raise TrainingFailed(
            f"of this cohort {patients(largest)} patient(s) are held back to compare bundles with",
            "list more patients: a tenth of them is held back, and two of one data set are needed",
        )
    return largest


def _train(task: Task, cohort: Cohort, held_back: Cohort) -> None:
    if (task.folder.components / ADAPTERS / task.adapter).is_dir():
        return  # an export is there as a whole or not at all
    task.reporter.stage(TrainingStage.PREPARING)
    text = yaml.safe_dump(_configuration(task, cohort))
    write_private(task.folder.config, text.encode())
    stage = build_stage("suppression", task.folder.config, task.folder.components, task.base.path)
    sampler = Sampler(
        cast(SuppressionStage, stage),
        task.base,
        load_images(held_back, task.base.metadata.image_size, task.folder.cache),
        task.reporter.progress.parameters.profile.profile,
        task.folder.samples,
    )
    watch = _Watch(task, sampler)
    task.reporter.stage(TrainingStage.TRAINING)
    train(stage, task.folder.checkpoints, task.folder.components, watch)


class _Watch:
    """Reports every step, and ends the training where it was asked to end or its time is over."""

    def __init__(self, task: Task, sampler: Sampler) -> None:
        self._task = task
        self._sampler = sampler
        self._seconds = task.reporter.progress.parameters.max_minutes * 60
        self._parent = os.getppid()

    def __call__(self, step: int, figures: Mapping[str, float]) -> bool:
        if os.getppid() != self._parent:
            # Nobody could end it any more, and the next server may continue it.
            raise SystemExit("the server that started this training is gone")
        reporter, folder = self._task.reporter, self._task.folder
        reporter.step(step, figures)
        if reporter.seconds > self._seconds:
            folder.ask_to_stop(TIME_OVER)
        ends = bool(folder.stop_reason()) or step == reporter.progress.steps
        if ends or self._sampler.is_due(step):
            self._sampler.draw(step)
        if ends:
            reporter.change()
        return ends


def _configuration(task: Task, cohort: Cohort) -> dict[str, Any]:
    """Return the keys of the stage: our file, the server's data, the bundle's, the request's."""
    parameters = task.reporter.progress.parameters
    keys: dict[str, Any] = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    training = cohort.where(lambda row: not is_select_patient(row))
    return keys | {
        "data": data_keys(task.manifest, training, task.base, task.folder.cache, folds=None),
        "schedule": schedule_keys(task.base),
        "rank": adapter_rank(task.base, task.adapter, otherwise=keys["rank"]),
        "spg_mode": "paper" if task.adapter == "paper" else "sg",
        "adapter": task.adapter,
        "steps": parameters.steps,
        "learning_rate": parameters.learning_rate,
        "batch_size": parameters.batch_size,
        "seed": parameters.seed,
    }


def _assemble(task: Task, cohort: Cohort) -> BundleInfo:
    """Write the bundle under a version of its own; it is listed at once, but not yet compared."""
    version = _next_version(task)
    output = task.models / f"{task.base.name}-{version}"
    task.reporter.change(stage=TrainingStage.ASSEMBLING, model=output.name, eta_seconds=None)
    add_components_of_base(task.base, task.folder.components)
    assemble_bundle(task.folder.components, _bundle_config(task, version, cohort), output)
    return read_bundle(output)


def _next_version(task: Task) -> str:
    """Return the base's version with the first number that is free: 0.6.0-ft1.

    Ids are parts of addresses, where a plus sign would not come through as it is.
    """
    release = re.sub(r"-ft[0-9]+$", "", task.base.version)
    number = 1
    while (task.models / f"{task.base.name}-{release}-ft{number}").exists():
        number += 1
    return f"{release}-ft{number}"


def _bundle_config(task: Task, version: str, cohort: Cohort) -> BundleConfig:
    base, steps = task.base, task.reporter.progress.step
    trained = cohort.where(lambda row: not is_select_patient(row))
    origin = (
        f"Adapter {task.adapter} fine-tuned on a server for {steps} steps from {base.name} "
        f"{base.version} (SHA-256 {base.sha256})"
    )
    data = f"{len(trained)} images of {patients(trained)} patients of the server's own cohort"
    write_private(task.folder.card, card_with_base(base, f"{origin}, on {data}.").encode())
    return tuned_bundle_config(
        base,
        name=base.name,
        version=version,
        origin=origin,
        data=data,
        card=task.folder.card,
    )


def _compare(task: Task, bundle: BundleInfo, held_back: Cohort) -> None:
    """Measure old and new on patients that nothing was trained on, or say why it cannot be done."""
    task.reporter.stage(TrainingStage.COMPARING)
    profile = task.reporter.progress.parameters.profile.profile
    evaluators = task.evaluators or EVALUATORS
    figures, reason = None, ""
    if evaluators.is_dir():
        comparison = compare_bundles(
            task.base.path,
            bundle.path,
            held_back,
            evaluators=Evaluators.load(evaluators),
            cache_dir=task.folder.cache,
            profiles=(profile, profile),
            seed=task.reporter.progress.parameters.seed,
        )
        figures = ComparisonFigures.model_validate(comparison.to_record())
    else:
        reason = "there are no evaluators on this server"
    record = ComparisonRecord(
        old=task.reporter.progress.base,
        new=ModelReference(id=bundle.path.name, sha256=bundle.sha256),
        profile=profile,
        time=now(),
        reason=reason,
        figures=figures,
    )
    write_private(comparison_file(bundle.path), record.model_dump_json(indent=2).encode())
