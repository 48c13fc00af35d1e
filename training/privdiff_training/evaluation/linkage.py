"""Whether a redrawn image can be linked to an original, by the scores of one attacker."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from enum import Enum

import numpy as np

from privdiff_infer.vocabulary import FindingState, age_bin
from privdiff_training.cohort import Cohort, CohortImage
from privdiff_training.evaluation.statistics import auc


class Linkage(str, Enum):
    """What the attacker's gallery holds.

    ``SAME_IMAGE``: the very original that was redrawn. ``FOLLOW_UP``: another image of the person.
    """

    SAME_IMAGE = "same_image"
    FOLLOW_UP = "follow_up"


class Negatives(str, Enum):
    """Which strangers the attacker has to tell the person from; always of the same view."""

    ANY = "any"
    SAME_SEX = "same_sex"
    SAME_SEX_AND_AGE = "same_sex_and_age"


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
    negatives
        Which strangers are compared with; where sex or age are matched, an image without them has
        no strangers.
    others
        Further originals of other patients, which follow those of `cohort` in the gallery.

    Attributes
    ----------
    positive, negative
        Which pairs count as what, shape (queries, gallery).
    rows_of_patient
        The queries of each patient that have a positive and a negative pair.
    gallery_units
        Number of the patient of each gallery image, shape (gallery,).
    """

    def __init__(
        self,
        cohort: Cohort,
        kind: Linkage,
        negatives: Negatives = Negatives.ANY,
        others: Cohort | None = None,
    ) -> None:
        gallery = [*cohort.rows, *(others.rows if others else ())]
        units = np.array([row.unit for row in gallery])
        number = len(cohort)
        same_person = units[:number, None] == units[None, :]
        itself = np.eye(number, len(gallery), dtype=bool)
        self.positive = itself if kind is Linkage.SAME_IMAGE else same_person & ~itself
        self.negative = ~same_person
        for groups in _groups(gallery, negatives):
            known = np.array([group is not None for group in groups])
            labels = np.array([str(group) for group in groups])
            alike = (labels[:number, None] == labels[None, :]) & known[None, :]
            self.negative &= alike & known[:number, None]
        with_pairs = (self.positive.any(1)) & (self.negative.any(1))
        queries = units[:number]
        self.rows_of_patient = [
            np.flatnonzero((queries == unit) & with_pairs)
            for unit in dict.fromkeys(queries[with_pairs].tolist())
        ]
        self.gallery_units = np.unique(units, return_inverse=True)[1]

    @property
    def patients(self) -> int:
        """Number of patients with at least one positive pair."""
        return len(self.rows_of_patient)

    def of_queries(self, queries: np.ndarray) -> LinkageTrial:
        """Return the trial of some queries against the same gallery.

        Parameters
        ----------
        queries
            Shape (images,), bool.
        """
        trial = copy.copy(self)
        rows = [rows[queries[rows]] for rows in self.rows_of_patient]
        trial.rows_of_patient = [kept for kept in rows if len(kept)]
        return trial

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


def _groups(
    gallery: Sequence[CohortImage], negatives: Negatives
) -> Iterator[list[str | int | None]]:
    """Yield what two strangers have to share, one value per image; None where it is not known."""
    yield [f"{row.dataset}:{row.view}" for row in gallery]
    if negatives is not Negatives.ANY:
        yield [None if row.sex is None else row.sex.name for row in gallery]
    if negatives is Negatives.SAME_SEX_AND_AGE:
        yield [None if row.age_years is None else age_bin(row.age_years) for row in gallery]


def metadata_scores(cohort: Cohort) -> np.ndarray:
    """Return how alike the kept labels of two images are, shape (images, images).

    The floor of any linkage figure: an attacker who is told the findings, which are kept on
    purpose, and nothing of the pixels.
    """
    states = np.array([[state is FindingState.PRESENT for state in row.findings] for row in cohort])
    both = states.astype(float) @ states.T
    either = states.sum(1)[:, None] + states.sum(1)[None, :] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)
