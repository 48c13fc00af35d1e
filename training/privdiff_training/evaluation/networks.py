"""The project's own evaluators: networks that nothing in a bundle was trained or guided with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_training.evaluation.feature_distance import kernel_distance

BATCH = 32


@dataclass(frozen=True)
class Evaluators:
    """A verifier of identity and a classifier of findings.

    Their architecture (DenseNet) and seeds differ from those of every critic and gate.
    """

    verifier: IdentityEmbedder
    classifier: RadiographReader

    @classmethod
    def load(cls, folder: Path) -> Evaluators:
        """Load both from a folder that the stages `identity` and `reader` exported to.

        Raises
        ------
        BundleError
            If a network is missing or its weights do not fit.
        """
        return cls(
            IdentityEmbedder.from_pretrained(folder / "identity").eval(),
            RadiographReader.from_pretrained(folder / "reader").eval(),
        )

    @torch.no_grad()
    def embeddings(self, images: Tensor) -> Tensor:
        """Return unit vectors (n, d) of images (n, 1, h, w) in [0, 1]."""
        return torch.cat([self.verifier(part) for part in images.split(BATCH)])

    def findings(self, images: Tensor) -> Tensor:
        """Return logits (n, 15) of images (n, 1, h, w) in [0, 1]."""
        return read_findings(self.classifier, images)

    def kernel_distance(self, real: Tensor, drawn: Tensor, seed: int) -> float:
        """Return the kernel distance (KID) of two sets of images under the classifier's features.

        The feature network is this project's classifier, so values compare with each other only.
        """
        of_real, of_drawn = (read_features(self.classifier, images) for images in (real, drawn))
        return kernel_distance(of_real, of_drawn, seed)


@torch.no_grad()
def read_findings(reader: RadiographReader, images: Tensor) -> Tensor:
    """Return a reader's logits (n, 15) of images (n, 1, h, w) in [0, 1]."""
    return torch.cat([reader(part).findings for part in images.split(BATCH)])


@torch.no_grad()
def read_features(reader: RadiographReader, images: Tensor) -> Tensor:
    """Return a reader's pooled features (n, d) of images (n, 1, h, w) in [0, 1], of 8 bits.

    Copies are kept in 8 bits, so originals are looked at in 8 bits too.
    """
    return torch.cat(
        [reader.features((part * 255).round().byte().float() / 255) for part in images.split(BATCH)]
    )
