"""Linking by the cosine of embeddings; A0, and A8, which averages several copies first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.nn import functional

from privdiff_infer.model.bundle import file_sha256
from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import (
    Copies,
    Curve,
    Known,
    Originals,
)
from privdiff_training.evaluation.attacks.fitting import in_batches
from privdiff_training.evaluation.attacks.kept import Kept
from privdiff_training.evaluation.methods.method import hash_of

Embed = Callable[[Tensor], Tensor]
"""From images (n, 1, s, s), float32 in [0, 1], to vectors (n, d)."""


@dataclass(frozen=True)
class CosineLinker:
    """Compares vectors of the first copy and of the originals.

    Attributes
    ----------
    embed
        Makes vectors.
    curve
        How it was trained.
    kept
        Vectors that this network made before.
    """

    embed: Embed
    curve: Curve = ()
    kept: Kept[Tensor] = field(default_factory=Kept, repr=False)

    def __call__(self, queries: Copies, gallery: Originals) -> np.ndarray:
        """Return cosines; see `Linker`."""
        return cosines(self.vectors(queries.pixels[0]), self.vectors(gallery.pixels))

    def vectors(self, pixels: Tensor) -> Tensor:
        """Return the vectors (n, d) of images (n, 1, s, s), uint8."""
        return self.kept(pixels, lambda images: in_batches(self.embed, images))


def cosines(queries: Tensor, gallery: Tensor) -> np.ndarray:
    """Return the cosines (n, m) of vectors (n, d) and (m, d), float64."""
    first, second = (functional.normalize(each.double(), dim=-1) for each in (queries, gallery))
    return (first @ second.mT).numpy()


@dataclass(frozen=True)
class FixedVerifier:
    """A0: a verifier that was trained on originals, long before.

    Attributes
    ----------
    folder
        Of the verifier, as the stage `identity` exports it.
    kept
        Its vectors.
    """

    folder: Path
    kept: Kept[Tensor] = field(default_factory=Kept, init=False, compare=False, repr=False)
    rung = Rung.FIXED
    name = "fixed verifier"
    is_learned = False
    learns_from_copies = False
    redraws_gallery = False
    needs_groups = False

    @property
    def fingerprint(self) -> str:
        """Of the weights."""
        return weights_fingerprint(self.folder)

    def verifier(self) -> IdentityEmbedder:
        """Load it."""
        return IdentityEmbedder.from_pretrained(self.folder).eval()

    def trained_on(self, known: Known) -> str:
        """Say that it saw no copy."""
        return "originals alone, no copy"

    def train(self, known: Known, seed: int) -> CosineLinker:
        """Train nothing."""
        return CosineLinker(self.verifier(), kept=self.kept)


def weights_fingerprint(path: Path) -> str:
    """Return a hash of a file, or of all files of a folder."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return hash_of(*((file.name, file_sha256(file)) for file in files))
