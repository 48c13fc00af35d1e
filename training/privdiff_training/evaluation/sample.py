"""Radiographs of nobody: drawn from noise, compared with every training image, then kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from privdiff_infer.errors import CohortError
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.image_files import encode_image
from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.release import write_atomically
from privdiff_infer.vocabulary import FINDING_TOKENS, NO_FINDING, FindingState, Profile
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.copies import CopyThresholds, NearestNeighbours, TrainingSet
from privdiff_training.images import load_images
from privdiff_training.sampling import generator_for

BATCH = 8
DRAWN_FINDINGS: tuple[str, ...] = (
    NO_FINDING,
    "Effusion",
    "Cardiomegaly",
    "Infiltration",
    "Atelectasis",
    NO_FINDING,
    "Consolidation",
    "Emphysema",
)
"""Conditions that the drawn images take in turn."""


@dataclass(frozen=True)
class SampleFigures:
    """What was measured on drawn images.

    Attributes
    ----------
    drawn
        Number of images drawn.
    copies
        How many of them were discarded as too close to a training image.
    not_frontal
        How many the frontal gate would hold.
    thresholds
        1 % quantiles of real images of other patients, by distance: the largest of all data sets.
    nearest_drawn
        Smallest and median nearest-neighbour distances of drawn images, by distance.
    nearest_real
        The same of real images, by data set and distance.
    training_images, real_images
        Numbers behind them.
    """

    drawn: int
    copies: int
    not_frontal: int
    thresholds: dict[str, float]
    nearest_drawn: dict[str, dict[str, float]]
    nearest_real: dict[str, dict[str, dict[str, float]]]
    training_images: int
    real_images: int

    def to_record(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


def draw_sample(
    bundle: Path,
    training: Cohort,
    unseen: Cohort,
    output: Path,
    *,
    keep: int,
    check: int,
    cache_dir: Path,
    seed: int,
) -> SampleFigures:
    """Draw images at strength 1, discard copies of training images and write the first good ones.

    Parameters
    ----------
    bundle
        Folder of the bundle.
    training
        Every image that the bundle was trained on.
    unseen
        Real images of other patients: how close strangers are.
    output
        Folder for `keep` PNG files.
    keep, check
        How many images to write, and how many further ones to compare.
    cache_dir
        Where prepared images are kept.
    seed
        Of all noise.

    Raises
    ------
    CohortError
        If too few drawn images are good.
    """
    pipeline = PrivDiffPipeline.from_pretrained(bundle)
    size = read_bundle(bundle).metadata.image_size
    threshold = read_bundle(bundle).metadata.gates.frontal_logit
    index = TrainingSet(_images(training, size, cache_dir), pipeline.identity)
    groups = {
        dataset: index.nearest(_images(part, size, cache_dir))
        for dataset, part in unseen.by_dataset().items()
    }
    thresholds = CopyThresholds.of(list(groups.values()))

    drawn = drawn_images(pipeline, keep + check, size, seed)
    nearest = index.nearest(drawn)
    copies = thresholds.is_copy(nearest)
    with torch.no_grad():
        frontal = pipeline.reader(drawn).frontal >= threshold
    good = (~copies & frontal).nonzero()[:, 0].tolist()
    if len(good) < keep:
        raise CohortError(
            f"{len(good)} of {len(drawn)} drawn images are good, {keep} are needed", "draw more"
        )
    _write(drawn, good[:keep], output)
    return SampleFigures(
        drawn=len(drawn),
        copies=int(copies.sum()),
        not_frontal=int((~frontal).sum()),
        thresholds={"embedding": thresholds.embedding, "pixels": thresholds.pixels},
        nearest_drawn=_summary(nearest),
        nearest_real={dataset: _summary(real) for dataset, real in groups.items()},
        training_images=len(training),
        real_images=len(unseen),
    )


def drawn_images(pipeline: PrivDiffPipeline, count: int, size: int, seed: int) -> Tensor:
    """Return images (count, 1, size, size) of strength 1, which owe nothing to a source.

    Parameters
    ----------
    pipeline
        Of a bundle.
    count
        How many; they take the conditions of `DRAWN_FINDINGS` in turn.
    size
        Side of the model grid in pixels.
    seed
        Of all noise.
    """
    drawn = []
    for rows in track(torch.arange(count).split(BATCH), "Drawing"):
        names = [DRAWN_FINDINGS[int(row) % len(DRAWN_FINDINGS)] for row in rows]
        output = pipeline(
            torch.zeros(len(rows), 1, size, size),
            profile=Profile.VANILLA,
            strength=1.0,
            generators=[generator_for(seed, "draw", int(row)) for row in rows],
            findings=torch.tensor([_states(name) for name in names]),
        )
        drawn.append(output.images)
    return torch.cat(drawn)


def _states(finding: str) -> list[int]:
    return [
        (FindingState.PRESENT if token == finding else FindingState.ABSENT).value
        for token in FINDING_TOKENS
    ]


def _write(drawn: Tensor, rows: Sequence[int], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows, start=1):
        content = encode_image(drawn[row, 0].numpy(), None, OutputFormat.PNG)
        write_atomically(output / f"drawn-{number}.png", content)


def _images(cohort: Cohort, size: int, cache_dir: Path) -> Tensor:
    return load_images(cohort, size, cache_dir).unsqueeze(1).float() / 255


def _summary(nearest: NearestNeighbours) -> dict[str, dict[str, float]]:
    return {
        name: {"smallest": float(values.min()), "median": float(values.median())}
        for name, values in (("embedding", nearest.embedding), ("pixels", nearest.pixels))
    }
