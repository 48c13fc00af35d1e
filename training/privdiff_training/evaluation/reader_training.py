"""Small readers of findings, one trained on originals and one on their copies."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from privdiff_infer.model.critics import RadiographReader
from privdiff_training.cohort import Cohort
from privdiff_training.loop import train
from privdiff_training.sampling import Share
from privdiff_training.stages.backbones import BackboneConfig
from privdiff_training.stages.data import TrainingImages, process_device
from privdiff_training.stages.reader import ReaderConfig, ReaderStage


@dataclass(frozen=True)
class TrainedReaders:
    """Two readers that differ in nothing but the images they were trained on.

    Attributes
    ----------
    on_copies, on_originals
        In evaluation mode.
    trained_on
        In words, for the report.
    """

    on_copies: RadiographReader
    on_originals: RadiographReader
    trained_on: str


def small_reader(steps: int, seed: int) -> ReaderConfig:
    """Return the configuration of a reader that a few minutes on a CPU train."""
    return ReaderConfig(
        steps=steps,
        batch_size=16,
        learning_rate=1e-3,
        weight_decay=5e-2,
        warmup_steps=steps // 10,
        decay="cosine",
        ema_decay=0.99,
        backbone=BackboneConfig(kind="resnet", layers=(1, 1, 1, 1), widths=(16, 32, 64, 128)),
        critic_image_size=96,
        attribute_weight=0,
        frontal_weight=0,
        impostor_fraction=0,
        checkpoint_every=50,
        seed=seed,
    )


def train_readers(
    cohort: Cohort, originals: Tensor, copies: Tensor, config: ReaderConfig, runs_dir: Path
) -> TrainedReaders:
    """Train a reader on originals and another on their copies, from the same first weights.

    A run that was killed continues from its last checkpoint, and one that is done is not done
    again: so the reader of the originals is trained once for all methods.

    Parameters
    ----------
    cohort
        Row i tells the labels of original i and of its copy.
    originals, copies
        Shape (n, 1, s, s), float32 in [0, 1].
    config
        Of both; its `data` is not read.
    runs_dir
        Where the runs are kept, in folders named by the images.
    """
    patients = len({row.unit for row in cohort})
    return TrainedReaders(
        on_copies=_trained(cohort, copies, config, runs_dir),
        on_originals=_trained(cohort, originals, config, runs_dir),
        trained_on=(
            f"{len(cohort)} images of {patients} patients and the copy of each, "
            f"{config.steps} steps of {config.batch_size} images, seed {config.seed}"
        ),
    )


def _trained(
    cohort: Cohort, images: Tensor, config: ReaderConfig, runs_dir: Path
) -> RadiographReader:
    pixels = (images.squeeze(1) * 255).round().byte()
    run_dir = runs_dir / f"reader-{_key(cohort, pixels, config)}"
    whole = [Share(torch.arange(len(cohort)), 1.0)]
    stage = ReaderStage(config, None, TrainingImages(cohort, pixels, whole, process_device()))
    train(stage, run_dir, run_dir)
    return RadiographReader.from_pretrained(run_dir / "reader").eval()


def _key(cohort: Cohort, pixels: Tensor, config: ReaderConfig) -> str:
    labels = repr([row.findings for row in cohort])
    digest = hashlib.sha256(f"{config.model_dump_json()}:{labels}".encode())
    digest.update(pixels.numpy().tobytes())
    return digest.hexdigest()[:16]
