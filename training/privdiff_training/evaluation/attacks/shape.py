"""A5: the shape of the lungs alone, for what a redrawing keeps of the outline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import Copies, Known, Originals, Scores
from privdiff_training.evaluation.attacks.fitting import resampled
from privdiff_training.evaluation.lung_fields import lung_fields
from privdiff_training.evaluation.methods.method import hash_of


@dataclass(frozen=True)
class ShapeAttack:
    """Takes the original whose lung fields overlap most with those of the copy (Dice).

    The limits of the masks are those of `lung_fields`: threshold and shape, no network. An image
    without a mask overlaps with none.

    Attributes
    ----------
    image_size
        Side in pixels at which masks are made.
    """

    image_size: int = 128
    rung = Rung.SHAPE
    name = "overlap of the lung fields"
    is_learned = False
    learns_from_copies = False
    redraws_gallery = False
    needs_groups = False

    @property
    def fingerprint(self) -> str:
        """Of the side."""
        return hash_of("shape", self.image_size)

    def trained_on(self, known: Known) -> str:
        """Say that nothing is learned."""
        return "nothing; masks by threshold and shape"

    def train(self, known: Known, seed: int) -> Scores:
        """Train nothing."""

        def link(queries: Copies, gallery: Originals) -> np.ndarray:
            first = self._masks(queries.pixels[0])
            second = self._masks(gallery.pixels)
            total = first.sum(1)[:, None] + second.sum(1)[None, :]
            both = 2 * first @ second.T
            return np.divide(both, total, out=np.zeros_like(both), where=total > 0)

        return Scores(link)

    def _masks(self, pixels: Tensor) -> np.ndarray:
        """Return masks (n, image_size ** 2), float64, of images (n, 1, s, s), uint8."""
        images = resampled(pixels, self.image_size)[:, 0].numpy() / 255
        empty = np.zeros((self.image_size,) * 2, bool)
        found = [lung_fields(image) for image in images]
        masks = [empty if mask is None else mask for mask in found]
        return np.stack(masks).reshape(len(masks), -1).astype(float)
