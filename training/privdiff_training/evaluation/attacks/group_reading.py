"""A13 with training: who owns the tool learns from copies of its own which group a copy shows.

Where a start is hardly to be seen in what was drawn from it, such as the mean of many patients, the
nearest start is a poor guess. Copies of other originals, whose groups are known to who has the
tool, teach what each group looks like when it is redrawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve
from torch import Tensor

from privdiff_infer.errors import CohortError
from privdiff_training.evaluation.attack_record import NO_GROUPS, Rung
from privdiff_training.evaluation.attacks.attack import Copies, Known, Originals, Scores
from privdiff_training.evaluation.attacks.covariance import covariance_around_zero
from privdiff_training.evaluation.attacks.embedding import FixedVerifier
from privdiff_training.evaluation.attacks.starting_points import StartingPoints, standardized
from privdiff_training.evaluation.methods.method import Starts, hash_of

TINY = 1e-6
"""Added to the spread of a feature, which may have none."""


@dataclass(frozen=True)
class GroupReading:
    """Asks how probable the group of a candidate is, given a copy.

    A linear discriminant on latents and on features of the fixed verifier is fitted to copies of
    `attacker_train`; its covariance has a floor, for a tool may show one image for all of a group.
    Candidates of a group that none of these belongs to are as improbable as the least probable.

    Attributes
    ----------
    fixed, starting_points
        Whose features are looked at.
    """

    fixed: FixedVerifier
    starting_points: StartingPoints
    rung = Rung.STARTING_POINTS
    name = "groups that copies taught it to tell"
    is_learned = False
    learns_from_copies = True
    redraws_gallery = False
    needs_groups = True

    @property
    def fingerprint(self) -> str:
        """Of both."""
        return hash_of(
            "group reading, floor", self.fixed.fingerprint, self.starting_points.fingerprint
        )

    def trained_on(self, known: Known) -> str:
        """Say how many copies."""
        versions, images = known.train_copies.pixels.shape[:2]
        return f"{versions * images} copies whose groups it knows"

    def train(self, known: Known, seed: int) -> Scores:
        """Fit the discriminant; nothing is random.

        Raises
        ------
        CohortError
            If the tool has no groups: no two originals have the same starts.
        """
        groups = _groups(known.starts(known.train))
        kinds = np.unique(groups)
        if len(kinds) in (1, len(groups)):
            raise CohortError(NO_GROUPS, "compare a copy with the starts themselves")
        features = self._features(known)
        shown = np.concatenate([features(version) for version in known.train_copies.pixels])
        groups = np.tile(groups, len(known.train_copies.pixels))
        middle, spread = shown.mean(0), shown.std(0) + TINY
        shown = (shown - middle) / spread
        centres = np.stack([shown[groups == kind].mean(0) for kind in kinds])
        left = shown - centres[np.searchsorted(kinds, groups)]
        often = np.array([np.log(np.mean(groups == kind)) for kind in kinds])
        # Log density of the normal with one covariance for all groups, but for what they share.
        towards = solve(covariance_around_zero(left, shown), centres.T, assume_a="pos").T
        offsets = often - (towards * centres).sum(1) / 2

        def link(queries: Copies, gallery: Originals) -> np.ndarray:
            seen = (features(queries.pixels[0]) - middle) / spread
            probable = seen @ towards.T + offsets
            of_gallery = _groups(known.starts(gallery))
            column = np.searchsorted(kinds, of_gallery).clip(max=len(kinds) - 1)
            found = probable[:, column]
            found[:, kinds[column] != of_gallery] = probable.min(1, keepdims=True)
            return standardized(found)

        return Scores(link)

    def _features(self, known: Known) -> Callable[[Tensor], np.ndarray]:
        verifier = self.fixed.train(known, 0)

        def features(pixels: Tensor) -> np.ndarray:
            latents = self.starting_points.latents(pixels.float() / 255)
            return np.hstack([verifier.vectors(pixels).numpy(), latents.numpy()])

        return features


def _groups(starts: Starts) -> np.ndarray:
    """Return the number of the first start of each original, which names its group."""
    return starts.stand_for.int().argmax(1).numpy()
