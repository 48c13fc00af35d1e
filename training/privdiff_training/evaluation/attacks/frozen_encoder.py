"""A4: the features of a public encoder, as they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import Known
from privdiff_training.evaluation.attacks.config import EncoderConfig
from privdiff_training.evaluation.attacks.embedding import CosineLinker, weights_fingerprint
from privdiff_training.evaluation.attacks.kept import Kept
from privdiff_training.evaluation.methods.method import hash_of
from privdiff_training.evaluation.public_encoders import load_encoder


@dataclass(frozen=True)
class FrozenEncoder:
    """Cosine of features; RAD-DINO was trained on images of NIH, so its figures there are its own.

    Attributes
    ----------
    config
        Where the encoder is.
    kept
        Its vectors.
    """

    config: EncoderConfig
    kept: Kept[Tensor] = field(default_factory=Kept, init=False, compare=False, repr=False)
    rung = Rung.FROZEN_ENCODER
    is_learned = False
    learns_from_copies = False
    redraws_gallery = False
    needs_groups = False

    @property
    def name(self) -> str:
        """Of the encoder."""
        return self.config.name or self.config.path.name

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights."""
        return hash_of(self.config.kind, weights_fingerprint(self.config.path))

    def trained_on(self, known: Known) -> str:
        """Say that it is as it was published."""
        return "as published, no copy"

    def train(self, known: Known, seed: int) -> CosineLinker:
        """Train nothing."""
        return CosineLinker(load_encoder(self.config).features, kept=self.kept)
