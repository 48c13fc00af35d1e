"""A14: what several attackers found, weighed against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import (
    Attack,
    Copies,
    Known,
    Linker,
    Originals,
    Scores,
)
from privdiff_training.evaluation.attacks.starting_points import standardized
from privdiff_training.evaluation.methods.method import hash_of


@dataclass(frozen=True)
class Together:
    """Logistic regression of \"the copy was made from this original\" on scores of others.

    Scores of a copy are standardized over the candidates. The weights are learned on pairs of
    copies and originals of `attacker_train`.

    Attributes
    ----------
    parts
        Attackers in whom nothing is random.
    """

    parts: tuple[Attack, ...]
    rung = Rung.TOGETHER
    is_learned = False
    learns_from_copies = True
    redraws_gallery = False
    needs_groups = False

    @property
    def name(self) -> str:
        """The rungs that are weighed."""
        rungs = dict.fromkeys(part.rung.value for part in self.parts)
        return f"{', '.join(rungs)} together"

    @property
    def fingerprint(self) -> str:
        """Of all parts."""
        return hash_of("together", *(part.fingerprint for part in self.parts))

    def trained_on(self, known: Known) -> str:
        """Say how many pairs."""
        versions, images = known.train_copies.pixels.shape[:2]
        return f"scores of {versions * images * images} pairs of a copy and an original"

    def train(self, known: Known, seed: int) -> Scores:
        """Learn the weights; nothing is random."""
        linkers = [part.train(known, seed) for part in self.parts]
        copies = known.train_copies
        of_versions = [
            _features(linkers, Copies(copies.cohort, version[None]), known.train)
            for version in copies.pixels
        ]
        same = np.eye(len(known.train), dtype=bool).ravel()
        regression = LogisticRegression(class_weight="balanced").fit(
            np.concatenate(of_versions), np.tile(same, len(of_versions))
        )

        def link(queries: Copies, gallery: Originals) -> np.ndarray:
            found = regression.decision_function(_features(linkers, queries, gallery))
            return np.asarray(found.reshape(len(queries.cohort), len(gallery)))

        return Scores(link)


def _features(linkers: Sequence[Linker], queries: Copies, gallery: Originals) -> np.ndarray:
    """Return the scores of all linkers, shape (queries * gallery, linkers)."""
    found = [standardized(linker(queries, gallery)) for linker in linkers]
    return np.stack(found, axis=-1).reshape(-1, len(linkers))
