"""Whether drawn images are copies of training images: nearest neighbours, mirrored ones too.

An image is called a copy if it lies closer to a training image than all but a hundredth of the
real images of other patients of some data set do, under either of two distances: 1 - cosine of an
identity network, and the root mean square of pixels at 64 x 64 after each image is scaled to zero
mean and unit variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from privdiff_infer.model.critics import IdentityEmbedder

BATCH = 64
PIXEL_SIDE = 64
QUANTILE = 0.01


@dataclass(frozen=True)
class NearestNeighbours:
    """Distance of each image to its nearest training image, shape (n,) each."""

    embedding: Tensor
    pixels: Tensor


@dataclass(frozen=True)
class CopyThresholds:
    """The 1 % quantile of the nearest-neighbour distances of real images of other patients."""

    embedding: float
    pixels: float

    @classmethod
    def of(cls, real: Sequence[NearestNeighbours]) -> CopyThresholds:
        """Take the quantiles of images that are certainly no copies, the largest of all groups.

        Radiographs of one data set lie closer to each other than those of another: a threshold of
        all together would be too lax for the rest.
        """
        return cls(
            max(float(group.embedding.quantile(QUANTILE)) for group in real),
            max(float(group.pixels.quantile(QUANTILE)) for group in real),
        )

    def is_copy(self, images: NearestNeighbours) -> Tensor:
        """Tell for each image whether it is too close under either distance, shape (n,)."""
        return (images.embedding < self.embedding) | (images.pixels < self.pixels)


class TrainingSet:
    """All training images as an index for nearest neighbours.

    Parameters
    ----------
    images
        Shape (n, 1, s, s), float in [0, 1].
    embedder
        Identity network for the embedding distance.
    """

    def __init__(self, images: Tensor, embedder: IdentityEmbedder) -> None:
        self.embedder = embedder
        mirrored = images.flip(-1)
        self.embeddings = torch.cat((self._embeddings(images), self._embeddings(mirrored)))
        self.vectors = torch.cat((pixel_vectors(images), pixel_vectors(mirrored)))

    def nearest(self, images: Tensor) -> NearestNeighbours:
        """Return the distances of images (n, 1, s, s) to their nearest training images."""
        cosine = self._embeddings(images) @ self.embeddings.mT
        pixels = torch.cdist(pixel_vectors(images), self.vectors) / PIXEL_SIDE
        return NearestNeighbours((1 - cosine).amin(dim=1), pixels.amin(dim=1))

    @torch.no_grad()
    def _embeddings(self, images: Tensor) -> Tensor:
        return torch.cat([self.embedder(part) for part in images.split(BATCH)])


def pixel_vectors(images: Tensor) -> Tensor:
    """Return (n, PIXEL_SIDE ** 2) values of zero mean and unit variance per image."""
    small = torch.cat(
        [
            functional.interpolate(part, (PIXEL_SIDE, PIXEL_SIDE), mode="area").flatten(1)
            for part in images.split(BATCH)
        ]
    )
    return (small - small.mean(1, keepdim=True)) / small.std(1, keepdim=True).clamp_min(1e-6)
