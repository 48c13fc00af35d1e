"""A10: whether a generator gives away what it was trained on.

Two ways: images that it draws are compared with its training images, and its loss on training
images is compared with that on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from privdiff_infer.model.conditioning import Condition
from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_infer.model.sas import SASSettings
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.attacks.attack import Originals
from privdiff_training.evaluation.copies import CopyThresholds, TrainingSet
from privdiff_training.evaluation.record import Memorization
from privdiff_training.evaluation.sample import drawn_images
from privdiff_training.evaluation.statistics import (
    Estimate,
    Share,
    auc,
    bootstrap_figures,
    wilson,
)
from privdiff_training.sampling import generator_for

BATCH = 16
NOISE_LEVELS = (0.1, 0.3, 0.5)
"""Parts of the schedule at which the loss is taken: where the anatomy of one person shows."""


def measure_memorization(
    bundle: Path,
    training: Originals,
    strangers: Originals,
    embedder: IdentityEmbedder,
    *,
    drawn: int,
    members: int,
    seed: int,
) -> Memorization:
    """Draw images of nobody and look for training images among them; infer membership by the loss.

    Parameters
    ----------
    bundle
        Folder of the generator.
    training
        What it was trained on.
    strangers
        Images of other patients of the same data set.
    embedder
        An identity network that is no part of the bundle.
    drawn
        Number of images to draw.
    members
        Number of training images, and of others, whose loss is taken.
    seed
        Of noise, subsets and bootstrap.
    """
    pipeline = PrivDiffPipeline.from_pretrained(bundle)
    images = drawn_images(pipeline, drawn, training.pixels.shape[-1], seed)
    share = copies_among(images, training, strangers, embedder)
    inside, outside = (_some(part, members) for part in (training, strangers))
    return Memorization(
        copies=round(share.value * drawn),
        drawn=drawn,
        copies_upper=share.high,
        membership_auc=membership(
            inside.cohort,
            -denoising_losses(pipeline, inside.pixels, seed, "Loss of training images"),
            outside.cohort,
            -denoising_losses(pipeline, outside.pixels, seed, "Loss of other images"),
            seed,
        ),
    )


def copies_among(
    drawn: Tensor, training: Originals, strangers: Originals, embedder: IdentityEmbedder
) -> Share:
    """Return the part of drawn images that are nearer to a training image than strangers are.

    Parameters
    ----------
    drawn
        Shape (n, 1, s, s), float32 in [0, 1].
    training, strangers
        What was trained on, and images of other patients.
    embedder
        One of the two distances; see `copies`.
    """
    index = TrainingSet(training.pixels.float() / 255, embedder)
    thresholds = CopyThresholds.of([index.nearest(strangers.pixels.float() / 255)])
    return wilson(thresholds.is_copy(index.nearest(drawn)).tolist())


@torch.no_grad()
def denoising_losses(
    pipeline: PrivDiffPipeline, pixels: Tensor, seed: int, title: str
) -> np.ndarray:
    """Return the denoising loss of every image, mean over noise levels, shape (n,).

    All images get the same noise at a level, so that it does not tell them apart. The findings are
    those that the pipeline reads.

    Parameters
    ----------
    pipeline
        Of a bundle.
    pixels
        Shape (n, 1, s, s), uint8.
    seed
        Of the noise.
    title
        For the progress bar.
    """
    scheduler = pipeline.scheduler
    losses = []
    for part in track(pixels.split(BATCH), title):
        images = part.float() / 255
        latents = pipeline.autoencoder.encode(images)
        condition = Condition.of_findings(pipeline.read_findings(images))
        errors = []
        for level in NOISE_LEVELS:
            generator = generator_for(seed, "membership", str(level))
            noise = torch.randn(latents.shape[1:], generator=generator).expand_as(latents)
            times = torch.full((len(latents),), round(level * scheduler.config.num_train_timesteps))
            predicted = pipeline.denoiser(
                scheduler.add_noise(latents, noise, times), times, condition, SASSettings()
            )
            is_velocity = scheduler.config.prediction_type == "v_prediction"
            target = scheduler.get_velocity(latents, noise, times) if is_velocity else noise
            errors.append((predicted - target).square().mean(dim=(1, 2, 3)))
        losses.append(torch.stack(errors).mean(0))
    return torch.cat(losses).double().numpy()


def membership(
    inside: Cohort, of_inside: np.ndarray, outside: Cohort, of_outside: np.ndarray, seed: int
) -> Estimate:
    """Return the AUC of scores in telling training images from others; patients count equally.

    Parameters
    ----------
    inside, outside
        Rows of training images and of others.
    of_inside, of_outside
        Their scores, shape (n,) each; higher means trained on.
    seed
        Of the bootstrap.
    """
    groups = [_by_patient(inside, of_inside), _by_patient(outside, of_outside)]
    means = [np.array([scores.mean() for scores in group]) for group in groups]

    def resample(rng: np.random.Generator) -> dict[str, float]:
        drawn = [
            np.array([rng.choice(group[k]) for k in rng.integers(len(group), size=len(group))])
            for group in groups
        ]
        return {"auc": auc(*drawn)}

    patients = sum(map(len, groups))
    return bootstrap_figures({"auc": auc(*means)}, resample, patients, seed)["auc"]


def _by_patient(cohort: Cohort, scores: np.ndarray) -> Sequence[np.ndarray]:
    units = np.array([row.unit for row in cohort])
    return [scores[units == unit] for unit in dict.fromkeys(units.tolist())]


def _some(images: Originals, count: int) -> Originals:
    """Return `count` of the images, spread evenly."""
    rows = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int))
    kept = tuple(images.cohort.rows[row] for row in rows)
    return Originals(Cohort(images.cohort.root, kept), images.pixels[torch.from_numpy(rows)])
