"""The training images and labels of a stage, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from privdiff_training.cohort import Cohort
from privdiff_training.config import DataConfig
from privdiff_training.images import load_images
from privdiff_training.sampling import Share


@dataclass
class TrainingImages:
    """Rows of all sources, one after the other, with their pixels.

    `pixels` has the shape (images, size, size) and the dtype uint8, 0 = black = air.
    """

    cohort: Cohort
    pixels: Tensor
    shares: list[Share]
    device: torch.device

    @classmethod
    def load(cls, config: DataConfig) -> TrainingImages:
        """Read the sources of a configuration, through the pixel cache."""
        sources = config.read_sources()
        cohort = Cohort(sources[0].root, tuple(row for source in sources for row in source))
        shares, first = [], 0
        for source, entry in zip(sources, config.sources, strict=True):
            shares.append(Share(torch.arange(first, first + len(source)), entry.share))
            first += len(source)
        pixels = load_images(cohort, config.image_size, config.cache_dir)
        return cls(cohort, pixels, shares, torch.device("cpu"))

    def images(self, rows: Tensor) -> Tensor:
        """Return images of shape (n, 1, size, size), float32 in [0, 1]."""
        return self.pixels[rows].unsqueeze(1).to(self.device).float() / 255

    def batches(self, limit: int | None = None, batch_size: int = 32) -> Iterator[Tensor]:
        """Yield the images in order, or `limit` of them spread evenly over the cohort."""
        count = len(self.pixels) if limit is None else min(limit, len(self.pixels))
        rows = torch.linspace(0, len(self.pixels) - 1, count).long()
        for part in rows.split(batch_size):
            yield self.images(part)
