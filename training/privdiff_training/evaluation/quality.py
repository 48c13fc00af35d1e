"""How real copies look, and how much of their source they keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from privdiff_infer.model.critics import RadiographReader
from privdiff_training.evaluation.feature_distance import frechet_distance, kernel_distance
from privdiff_training.evaluation.lung_fields import dice, lung_fields
from privdiff_training.evaluation.networks import BATCH, read_features
from privdiff_training.evaluation.record import Quality

LEAST_SIDE = 161
"""MS-SSIM halves an image four times and lays a window of 11 pixels over what is left."""


class Encoder(Protocol):
    """A frozen network whose features tell images apart."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """Return features (n, d), float32, of images (n, 1, s, s), float32 in [0, 1]."""
        ...


@dataclass(frozen=True)
class ClassifierEncoder:
    """The pooled features of the project's own classifier."""

    classifier: RadiographReader
    name: str = "the project's classifier"

    def features(self, images: Tensor) -> Tensor:
        """Return features (n, d) of images (n, 1, s, s) in [0, 1]."""
        return read_features(self.classifier, images)


def measure_quality(
    originals: Tensor,
    copies: Tensor,
    encoders: Sequence[Encoder],
    seed: int,
    fields: Sequence[np.ndarray | None],
) -> Quality:
    """Compare copies with their originals, as sets and one by one.

    Parameters
    ----------
    originals, copies
        Shape (n, 1, s, s), float32 in [0, 1]; copy i is made from original i.
    encoders
        Whose features the distances of the two sets are taken in.
    seed
        Of the subsets of the kernel distance.
    fields
        The `lung_fields` of each original, which all methods are compared with.
    """
    kernel, frechet = {}, {}
    for encoder in encoders:
        real, drawn = encoder.features(originals), encoder.features(copies)
        kernel[encoder.name] = kernel_distance(real, drawn, seed)
        distance = frechet_distance(real, drawn)
        if distance is not None:
            frechet[encoder.name] = distance
    overlaps = _overlaps(fields, copies)
    return Quality(
        kernel_distance=kernel,
        frechet_distance=frechet,
        images=len(originals),
        ms_ssim=_ms_ssim(originals, copies),
        geometry=float(np.mean(overlaps)) if overlaps else None,
        geometry_images=len(overlaps),
    )


def _ms_ssim(originals: Tensor, copies: Tensor) -> float:
    """Return the mean likeness of copies and their sources; NaN for images that are too small.

    Source: Wang, Simoncelli and Bovik, Multiscale structural similarity, Asilomar 2003.
    """
    if min(originals.shape[-2:]) < LEAST_SIDE:
        return float("nan")
    total = 0.0
    for real, drawn in zip(originals.split(BATCH), copies.split(BATCH), strict=True):
        likeness = multiscale_structural_similarity_index_measure(drawn, real, data_range=1.0)
        total += float(likeness) * len(real)
    return total / len(originals)


def _overlaps(fields: Sequence[np.ndarray | None], copies: Tensor) -> list[float]:
    """Return the Dice of the lung fields, for the originals in which there are some.

    A copy without any where its original has them overlaps by 0.
    """
    overlaps = []
    for of_original, copy in zip(fields, copies[:, 0].numpy(), strict=True):
        if of_original is not None:
            of_copy = lung_fields(copy)
            overlaps.append(0.0 if of_copy is None else dice(of_original, of_copy))
    return overlaps
