"""Whether a redrawn image can be linked to an original, by the scores of one attacker."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np

from privdiff_infer.vocabulary import FindingState
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.statistics import auc


class Linkage(str, Enum):
    """What the attacker's gallery holds.

    ``SAME_IMAGE``: the very original that was redrawn. ``FOLLOW_UP``: another image of the person.
    """

    SAME_IMAGE = "same_image"
    FOLLOW_UP = "follow_up"


class LinkageTrial:
    """Pairs of queries and originals of one cohort.

    Negatives are pairs of different patients of the same data set and view: otherwise an attacker
    scores by recognising the scanner.

    Parameters
    ----------
    cohort
        Query i is made from, and gallery image i is, row i.
    kind
        Which pairs are positive.
    """

    def __init__(self, cohort: Cohort, kind: Linkage) -> None:
        units = np.array([row.unit for row in cohort])
        domains = np.array([f"{row.dataset}:{row.view}" for row in cohort])
        same_person = units[:, None] == units[None, :]
        itself = np.eye(len(cohort), dtype=bool)
        self.positive = itself if kind is Linkage.SAME_IMAGE else same_person & ~itself
        self.negative = ~same_person & (domains[:, None] == domains[None, :])
        with_pairs = (self.positive.any(1)) & (self.negative.any(1))
        self.rows_of_patient = [
            np.flatnonzero((units == unit) & with_pairs)
            for unit in dict.fromkeys(units[with_pairs].tolist())
        ]

    @property
    def patients(self) -> int:
        """Number of patients with at least one positive pair."""
        return len(self.rows_of_patient)

    def auc(self, scores: np.ndarray, patients: Sequence[int], rng: np.random.Generator) -> float:
        """Return the AUC over patients, each with one positive pair drawn by `rng`.

        Parameters
        ----------
        scores
            Shape (queries, gallery); higher means more alike.
        patients
            Indices of patients, with repetitions in a bootstrap.
        """
        positive, negative = [], []
        for patient in patients:
            query = rng.choice(self.rows_of_patient[patient])
            positive.append(scores[query, rng.choice(np.flatnonzero(self.positive[query]))])
            negative.append(scores[query, self.negative[query]])
        return auc(np.array(positive), np.concatenate(negative)) if positive else float("nan")


def metadata_scores(cohort: Cohort) -> np.ndarray:
    """Return how alike the kept labels of two images are, shape (images, images).

    The floor of any linkage figure: an attacker who is told the findings, which are kept on
    purpose, and nothing of the pixels.
    """
    states = np.array([[state is FindingState.PRESENT for state in row.findings] for row in cohort])
    both = states.astype(float) @ states.T
    either = states.sum(1)[:, None] + states.sum(1)[None, :] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)
