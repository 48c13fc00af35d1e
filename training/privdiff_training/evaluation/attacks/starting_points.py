"""A13: who has the tool and its weights looks what a copy was started from.

A tool that puts something else in the place of an original, such as one of a few images that stand
for a group of patients, shows by its choice what it saw in the original. The choice can be made
again for every candidate; the copy shows it as far as it still looks like its start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from privdiff_infer.model.stable_diffusion import load_autoencoder
from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import Copies, Known, Originals, Scores
from privdiff_training.evaluation.attacks.embedding import weights_fingerprint
from privdiff_training.evaluation.attacks.kept import Kept
from privdiff_training.evaluation.methods.method import Starts, hash_of

BATCH = 32


@dataclass(frozen=True)
class StartingPoints:
    """Compares a copy with all that a candidate may have been replaced by, in latents.

    The score is the highest cosine with one of them, less what is usual for the copy among all
    candidates, in units of its spread. For a tool that starts from the original this compares the
    copy with the original.

    Attributes
    ----------
    autoencoder
        Folder of the tool's own.
    kept
        Latents.
    """

    autoencoder: Path
    kept: Kept[Tensor] = field(default_factory=Kept, init=False, compare=False, repr=False)
    rung = Rung.STARTING_POINTS
    name = "latents of what the tool may start from"
    is_learned = False
    learns_from_copies = False
    redraws_gallery = False
    needs_groups = False

    @property
    def fingerprint(self) -> str:
        """Of the autoencoder."""
        return hash_of("starting points", weights_fingerprint(self.autoencoder))

    def trained_on(self, known: Known) -> str:
        """Say that nothing was."""
        return "nothing; it knows the weights of the tool"

    def train(self, known: Known, seed: int) -> Scores:
        """Train nothing."""

        def link(queries: Copies, gallery: Originals) -> np.ndarray:
            return self.scores(queries.pixels[0].float() / 255, known.starts(gallery))

        return Scores(link)

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """Return flat latents (n, d) of images (n, 1, s, s), float32 in [0, 1]."""
        encode = load_autoencoder(self.autoencoder).eval().encode
        return self.kept(
            images, lambda all: torch.cat([encode(part).flatten(1) for part in all.split(BATCH)])
        )

    def scores(self, copies: Tensor, starts: Starts) -> np.ndarray:
        """Score copies against candidates.

        Parameters
        ----------
        copies
            Shape (n, 1, s, s), float32 in [0, 1].
        starts
            Of m candidates.

        Returns
        -------
        ndarray
            Shape (n, m), float64.
        """
        of_starts, of_copies = self.latents(starts.pixels), self.latents(copies)
        usual = of_starts.mean(0)
        likeness = normalize(of_copies - usual) @ normalize(of_starts - usual).mT
        sets, which = starts.stand_for.unique(dim=0, return_inverse=True)
        best = torch.stack([likeness[:, each].amax(1) for each in sets], dim=1)
        return standardized(best[:, which].double().numpy())


def standardized(scores: np.ndarray) -> np.ndarray:
    """Return scores (queries, gallery) with zero mean and unit variance for each query."""
    spread = scores.std(axis=1, keepdims=True)
    return np.asarray((scores - scores.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-9))
