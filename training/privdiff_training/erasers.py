"""Fits the erasers of a bundle's denoiser to its own training images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from scipy.linalg import eigh
from torch import Tensor, nn

from privdiff_infer.errors import CohortError
from privdiff_infer.model.conditioning import CategoryEmbeddings, Condition
from privdiff_infer.model.erasers import FeatureEraser, TokenEraser
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.vocabulary import AGE_BINS, Sex, age_bin
from privdiff_training.cohort import Cohort
from privdiff_training.sampling import generator_for

BATCH = 32
NEGLIGIBLE = 1e-9
"""Singular values below this part of the largest one count as zero."""


@dataclass(frozen=True)
class SubspaceSettings:
    """How the subspace in which patients differ is found, and how much of it is erased.

    Attributes
    ----------
    rank
        Directions per layer and part of the schedule; below the number of patients.
    buckets
        Parts of the schedule, each with directions of its own.
    draws
        Noise draws per image and part.
    ridge
        gamma, relative to the mean eigenvalue of the scatter within patients.
    strength
        g in [0, 1].
    seed
        Of the noise.
    """

    rank: int = 16
    buckets: int = 4
    draws: int = 2
    ridge: float = 1e-2
    strength: float = 1.0
    seed: int = 0


def fit_leace(samples: Tensor, concepts: Tensor) -> TokenEraser:
    """Return the smallest affine edit after which no linear classifier tells the concepts.

    Source: Belrose et al., arXiv 2306.03819, theorem 4.3. With W the pseudo-inverse root of the
    covariance of the samples and U the left singular vectors of W Cov(x, z),

        r(x) = x - M (x - mu),      M = W^+ U U^T W.

    Parameters
    ----------
    samples
        x, shape (n, d).
    concepts
        z, shape (n, k), for example one-hot classes.
    """
    x, z = samples.double(), concepts.double()
    mean = x.mean(0)
    centred = x - mean
    covariance = centred.mT @ centred / len(x)
    cross = centred.mT @ (z - z.mean(0)) / len(x)
    values, vectors = torch.linalg.eigh(covariance)
    varies = values > NEGLIGIBLE * values.amax()
    values, vectors = values[varies], vectors[:, varies]
    whitening = vectors @ torch.diag(values.rsqrt()) @ vectors.mT
    colouring = vectors @ torch.diag(values.sqrt()) @ vectors.mT
    left, singular, _ = torch.linalg.svd(whitening @ cross, full_matrices=False)
    told = left[:, singular > NEGLIGIBLE * singular.amax()]
    matrix = colouring @ told @ told.mT @ whitening
    return TokenEraser(matrix.float(), mean.float())


def fit_context_eraser(
    embeddings: CategoryEmbeddings, findings: Tensor, cohort: Cohort
) -> TokenEraser:
    """Return the eraser of age and sex for the findings tokens, one for all positions.

    One per position would collapse a token that has but two values and any correlation at all.

    Parameters
    ----------
    embeddings
        Of the denoiser.
    findings
        States (n, 15) that images are conditioned on.
    cohort
        Whose age and sex it is; rows without them are left out.

    Raises
    ------
    CohortError
        If no row has age and sex.
    """
    known = rows_with_attributes(cohort)
    if not known:
        raise CohortError("no image has age and sex", "complete the manifest")
    concepts = torch.stack([_age_and_sex(cohort, number) for number in known])
    tokens = embeddings.finding_tokens(findings[known]).detach()  # (n, 15, d)
    return fit_leace(tokens.flatten(0, 1), concepts.repeat_interleave(tokens.shape[1], dim=0))


@torch.no_grad()
def fit_feature_erasers(
    pipeline: PrivDiffPipeline, pixels: Tensor, units: Sequence[str], settings: SubspaceSettings
) -> dict[str, FeatureEraser]:
    """Return erasers of the subspaces in which patients differ, by name of the UNet's block.

    Fitted to the outputs of the middle and the upward blocks, in the branch of the findings, for
    patients with at least two images: from one image nobody can tell what of it is the person.

    Parameters
    ----------
    pipeline
        Of a bundle.
    pixels
        Shape (n, s, s), uint8.
    units
        Whose image it is.
    settings
        How to find the subspace.

    Raises
    ------
    CohortError
        If there are no more such patients than directions.
    """
    names = patients_with_several(units)
    number = {unit: index for index, unit in enumerate(names)}
    several = torch.tensor([row for row, unit in enumerate(units) if unit in number]).long()
    if len(names) <= settings.rank:
        raise CohortError(
            f"{len(names)} patients with several images give no {settings.rank} directions",
            "lower the rank or add patients",
        )
    patients = torch.tensor([number[units[row]] for row in several.tolist()])
    fitted: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for bucket in range(settings.buckets):
        features = _features(pipeline, pixels[several], bucket, settings)
        for name, values in features.items():
            subspace = between_patients(
                values, patients.repeat(settings.draws), settings.rank, settings.ridge
            )
            fitted.setdefault(name, []).append(subspace)
    return {
        name: FeatureEraser(
            torch.stack([matrix for matrix, _ in subspaces]),
            torch.stack([mean for _, mean in subspaces]),
            settings.strength,
        )
        for name, subspaces in fitted.items()
    }


def between_patients(
    features: Tensor, patients: Tensor, rank: int, ridge: float
) -> tuple[Tensor, Tensor]:
    """Return the oblique projection onto what differs most between patients, and the mean map.

    With the scatter S_B of the patients' mean maps and S_W within patients, both over all
    locations, T = S_W + gamma I and S_B U = T U Lambda with U^T T U = I, the projection is
    P = T U U^T: it is idempotent and U^T P = U^T, so that h - P (h - mu) has nothing left along U.

    Parameters
    ----------
    features
        Shape (n, C, h, w).
    patients
        Whose features, shape (n,), numbers from any range.
    rank
        Columns of U.
    ridge
        gamma over the mean eigenvalue of S_W.

    Returns
    -------
    tuple
        P, shape (C, C), and mu, shape (C, h, w), float32.
    """
    mean = features.mean(0)
    numbers, group = patients.unique(return_inverse=True)
    sums = torch.zeros(len(numbers), *mean.shape).index_add_(0, group, features)
    own = sums / group.bincount().view(-1, 1, 1, 1)
    between, within = _scatter(own - mean), _scatter(features - own[group])
    channels = len(within)
    total = within + ridge * within.trace() / channels * torch.eye(channels, dtype=within.dtype)
    rank = min(rank, channels)
    _, vectors = eigh(
        between.numpy(), total.numpy(), subset_by_index=(channels - rank, channels - 1)
    )
    directions = torch.from_numpy(vectors)
    return (total @ directions @ directions.mT).float(), mean


def rows_with_attributes(cohort: Cohort) -> list[int]:
    """Return the numbers of the rows of which age and sex are known."""
    return [
        number
        for number, row in enumerate(cohort)
        if row.age_years is not None and row.sex is not None
    ]


def patients_with_several(units: Sequence[str]) -> list[str]:
    """Return those who have several images; `units` tells of each image whose it is.

    Examples
    --------
    >>> patients_with_several(["a", "b", "a", "c", "c", "c"])
    ['a', 'c']
    """
    return [unit for unit, count in Counter(units).items() if count > 1]


def _age_and_sex(cohort: Cohort, number: int) -> Tensor:
    """Return the one-hot classes of age and sex side by side, shape (7,)."""
    row = cohort.rows[number]
    encoded = torch.zeros(AGE_BINS + len(Sex))
    encoded[age_bin(row.age_years or 0.0)] = 1
    encoded[AGE_BINS + int(row.sex or 0)] = 1
    return encoded


def _scatter(maps: Tensor) -> Tensor:
    """Return the mean outer product of channel vectors over images and locations, (C, C)."""
    vectors = maps.movedim(1, -1).flatten(0, -2).double()
    return vectors.mT @ vectors / len(vectors)


def _features(
    pipeline: PrivDiffPipeline, pixels: Tensor, bucket: int, settings: SubspaceSettings
) -> dict[str, Tensor]:
    """Return outputs of the blocks for all images under each noise draw, (draws * n, C, h, w)."""
    length = pipeline.scheduler.config.num_train_timesteps
    low, high = (length * edge // settings.buckets for edge in (bucket, bucket + 1))
    collected: dict[str, list[Tensor]] = {}
    for draw in range(settings.draws):
        for number, stored in enumerate(pixels.split(BATCH)):
            part = stored.unsqueeze(1).float() / 255
            generator = generator_for(settings.seed, "subspace", bucket, draw, number)
            latents = pipeline.autoencoder.encode(part)
            timesteps = torch.randint(low, high, (len(part),), generator=generator)
            noise = torch.randn(latents.shape, generator=generator)
            noisy = pipeline.scheduler.add_noise(latents, noise, timesteps)
            findings = Condition.of_findings(pipeline.read_findings(part))
            with _outputs_of_blocks(pipeline.denoiser.unet) as outputs:
                pipeline.denoiser(noisy, timesteps, findings)
            for name, values in outputs.items():
                collected.setdefault(name, []).append(values)
    return {name: torch.cat(parts) for name, parts in collected.items()}


@contextmanager
def _outputs_of_blocks(unet: UNet2DConditionModel) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that a call of the UNet fills with what its blocks give.

    The blocks are the middle and the upward ones: identity that is erased before passes by them.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, arguments: object, output: Tensor) -> None:
        outputs[name] = output

    names = ["mid_block", *(f"up_blocks.{number}" for number in range(len(unet.up_blocks)))]
    handles = [
        unet.get_submodule(name).register_forward_hook(partial(keep, name)) for name in names
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
