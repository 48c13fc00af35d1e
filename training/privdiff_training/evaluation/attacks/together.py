"""A14: what several attackers found, weighed against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from privdiff_infer.errors import CohortError
from privdiff_training.cohort import Cohort
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
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.methods.method import hash_of

FOLDS = 5
FEWEST = 4


@dataclass(frozen=True)
class Together:
    """Logistic regression of \"these two are of one person\" on scores of others.

    Scores of a copy are standardized over the candidates. The weights are learned on pairs of
    copies and originals of `attacker_train`, fold by fold: what a part was fitted to is not what
    it is weighed by, for there it looks better than it is (stacking: Wolpert, Neural Networks 5,
    1992).

    Attributes
    ----------
    parts
        Attackers in whom nothing is random and no network is trained.
    looks_for
        Which pairs are those of one person: a copy and its very original, or a copy and another
        image of the person. Pairs of the other kind are left out.
    """

    parts: tuple[Attack, ...]
    looks_for: Linkage = Linkage.SAME_IMAGE
    rung = Rung.TOGETHER
    is_learned = False
    learns_from_copies = True
    redraws_gallery = False
    needs_groups = False

    @property
    def name(self) -> str:
        """The rungs that are weighed, and for what."""
        rungs = dict.fromkeys(part.rung.value for part in self.parts)
        aim = "" if self.looks_for is Linkage.SAME_IMAGE else ", for another image"
        return f"{', '.join(rungs)} together{aim}"

    @property
    def fingerprint(self) -> str:
        """Of all parts, and of the aim."""
        parts = (part.fingerprint for part in self.parts)
        return hash_of("together, fold by fold", self.looks_for.value, *parts)

    def trained_on(self, known: Known) -> str:
        """Say how many pairs."""
        versions, images = known.train_copies.pixels.shape[:2]
        return f"scores of pairs of {versions * images} copies and {images} originals, fold by fold"

    def train(self, known: Known, seed: int) -> Scores:
        """Learn the weights; nothing is random.

        Raises
        ------
        CohortError
            If another image is looked for and no patient has one, or there are too few patients.
        """
        same, stranger = _pairs(known.train.cohort, self.looks_for)
        if len({row.unit for row in known.train.cohort}) < FEWEST:
            raise CohortError(
                f"fewer than {FEWEST} patients to weigh attackers by",
                "give attackers more patients",
            )
        if not same.any():
            raise CohortError(
                "no patient has two images", "give attackers patients with several images"
            )
        scores, is_same = [], []
        for held in _folds(known.train.cohort):
            rest = frozenset(range(len(known.train))) - set(held.tolist())
            linkers = self._linkers(replace(known, fitted_rows=rest), seed)
            block = np.ix_(held, held)
            counts = (same | stranger)[block]
            for version in known.train_copies.pixels:
                copies = Copies(known.train.cohort, version[None])
                scores.append(_features(linkers, copies, known.train)[block][counts])
                is_same.append(same[block][counts])
        regression = LogisticRegression(class_weight="balanced").fit(
            np.concatenate(scores), np.concatenate(is_same)
        )
        linkers = self._linkers(known, seed)

        def link(queries: Copies, gallery: Originals) -> np.ndarray:
            features = _features(linkers, queries, gallery)
            found = regression.decision_function(features.reshape(-1, len(linkers)))
            return np.asarray(found.reshape(features.shape[:2]))

        return Scores(link)

    def _linkers(self, known: Known, seed: int) -> list[Linker]:
        return [part.train(known, seed) for part in self.parts]


def _features(linkers: Sequence[Linker], queries: Copies, gallery: Originals) -> np.ndarray:
    """Return the scores of all linkers, shape (queries, gallery, linkers)."""
    return np.stack([standardized(linker(queries, gallery)) for linker in linkers], axis=-1)


def _pairs(cohort: Cohort, looks_for: Linkage) -> tuple[np.ndarray, np.ndarray]:
    """Return which pairs of rows (n, n) are of one person in the sense asked for, and of two."""
    units = np.array([row.unit for row in cohort])
    of_one = units[:, None] == units[None, :]
    itself = np.eye(len(units), dtype=bool)
    return (itself if looks_for is Linkage.SAME_IMAGE else of_one & ~itself), ~of_one


def _folds(cohort: Cohort) -> list[np.ndarray]:
    """Return the rows of each fold; a patient is in one, and some fold has several patients."""
    units = [row.unit for row in cohort]
    splits = GroupKFold(min(FOLDS, len(set(units)) // 2)).split(units, groups=units)
    return [held for _, held in splits]
