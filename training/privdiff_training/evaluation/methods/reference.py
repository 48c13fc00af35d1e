"""The originals that baselines are made from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from privdiff_training.cohort import Cohort
from privdiff_training.images import load_images


@dataclass(frozen=True)
class Reference:
    """Images on the model grid, read when they are first needed.

    Attributes
    ----------
    cohort
        Their rows, `Roles.reference`.
    size
        Side of the model grid in pixels.
    cache_dir
        Where prepared images are kept.
    """

    cohort: Cohort
    size: int
    cache_dir: Path

    @cached_property
    def pixels(self) -> Tensor:
        """Shape (n, size, size), uint8, 0 = black = air."""
        return load_images(self.cohort, self.size, self.cache_dir)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all pixels, of whose they are, and of age and sex."""
        whose = [(row.unit, row.age_years, row.sex) for row in self.cohort]
        digest = hashlib.sha256(repr(whose).encode())
        digest.update(self.pixels.numpy().data)
        return digest.hexdigest()[:16]

    def images(self, rows: Tensor) -> Tensor:
        """Return images of shape (n, 1, size, size), float32 in [0, 1]."""
        return self.pixels[rows].unsqueeze(1).float() / 255
