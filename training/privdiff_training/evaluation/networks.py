"""The project's own evaluators: networks that nothing in a bundle was trained or guided with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader

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

    @torch.no_grad()
    def findings(self, images: Tensor) -> Tensor:
        """Return logits (n, 15) of images (n, 1, h, w) in [0, 1]."""
        return torch.cat([self.classifier(part).findings for part in images.split(BATCH)])

    @torch.no_grad()
    def kernel_distance(self, real: Tensor, drawn: Tensor, seed: int) -> float:
        """Return the kernel distance (KID) of two sets of images under the classifier's features.

        Source: Binkowski et al., Demystifying MMD GANs, ICLR 2018. The feature network is this
        project's classifier, so values compare with each other only.
        """
        torch.manual_seed(seed)  # torchmetrics draws subsets from the global generator
        metric = KernelInceptionDistance(
            feature=_Features(self.classifier),
            subset_size=min(50, len(real), len(drawn)),
            normalize=False,
        )
        for images, is_real in ((real, True), (drawn, False)):
            for part in _bytes(images):
                metric.update(part, real=is_real)
        return float(metric.compute()[0])


class _Features(nn.Module):
    """Pooled features of a reader for 8-bit images, as torchmetrics hands them over."""

    num_features = 0  # not used by the kernel distance

    def __init__(self, reader: RadiographReader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, images: Tensor) -> Tensor:
        return self.reader.features(images[:, :1].float() / 255)


def _bytes(images: Tensor) -> Iterator[Tensor]:
    for part in images.split(BATCH):
        yield (part * 255).round().byte().expand(-1, 3, -1, -1)
