"""The training images and labels of a stage, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor

from privdiff_training.cohort import Cohort
from privdiff_training.config import DataConfig
from privdiff_training.images import load_images
from privdiff_training.sampling import Share


@dataclass
class TrainingImages:
    """Rows of all sources, one after the other, with their pixels.

    Attributes
    ----------
    cohort
        Labels and names of all rows.
    pixels
        Shape (images, size, size), uint8, 0 = black = air; in host memory, which a cohort may fill.
    shares
        The rows of each source and their part of every batch.
    device
        Where the networks are; what a step picks is moved to it.
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
        return cls(cohort, pixels, shares, process_device())

    def images(self, rows: Tensor) -> Tensor:
        """Return images of shape (n, 1, size, size), float32 in [0, 1], on `device`."""
        return self.pixels[rows].unsqueeze(1).to(self.device).float() / 255

    def batches(self, limit: int | None = None, batch_size: int = 32) -> Iterator[Tensor]:
        """Yield the images in order, or `limit` of them spread evenly over the cohort."""
        count = len(self.pixels) if limit is None else min(limit, len(self.pixels))
        rows = torch.linspace(0, len(self.pixels) - 1, count).long()
        for part in rows.split(batch_size):
            yield self.images(part)


def process_device() -> torch.device:
    """Return where accelerate runs the networks of this process, before the loop has started it."""
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    return torch.device(state.device)
