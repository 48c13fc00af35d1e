"""Whether a redrawn image can be linked to an original, by the scores of one attacker."""

from __future__ import annotations

import copy
from collections.abc import Sequence
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
    """Which strangers the person has to be told from; always of the view that is sought."""

    ANY = "any"
    SAME_SEX = "same_sex"
    SAME_SEX_AND_AGE = "same_sex_and_age"


class LinkageTrial:
    """Pairs of queries and originals of one cohort.

    Strangers match the image that is sought, not the query: they are of its data set and view.
    Where a follow-up is of another view than the query, strangers of the query's view would differ
    from it in the view alone, and an attacker would score by recognising the projection. So a query
    whose follow-ups are of two views makes two rows, each with strangers of its own.

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
    queries
        The query of each row, shape (rows,). For the same image row i is query i.
    positive, negative
        Which gallery images count as what, shape (rows, gallery).
    pairs_of_patient
        Positive pairs of each patient who has any with strangers, shape (pairs, 2) each: row,
        gallery image.
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
        sought = itself if kind is Linkage.SAME_IMAGE else same_person & ~itself
        groups = _groups(gallery, negatives)
        rows = [
            (query, group)
            for query in range(number)
            for group in dict.fromkeys(groups[sought[query]].tolist())
        ]
        self.queries = np.array([query for query, _ in rows], int)
        alike = np.array([group for _, group in rows], int)[:, None] == groups[None, :]
        self.positive = sought[self.queries] & alike
        self.negative = ~same_person[self.queries] & alike & (groups >= 0)[None, :]
        usable = np.flatnonzero(self.negative.any(1))
        of_patient = units[self.queries[usable]]
        self.pairs_of_patient = [
            self._pairs(usable[of_patient == unit]) for unit in dict.fromkeys(of_patient.tolist())
        ]
        self.gallery_units = np.unique(units, return_inverse=True)[1]

    @property
    def patients(self) -> int:
        """Number of patients with at least one positive pair."""
        return len(self.pairs_of_patient)

    @property
    def gallery_sizes(self) -> np.ndarray:
        """Number of originals that are sought and of their strangers, shape (rows,)."""
        sizes: np.ndarray = (self.positive | self.negative).sum(1)
        return sizes

    @property
    def rows_of_patient(self) -> list[np.ndarray]:
        """The rows of each patient that have a positive and a negative pair."""
        return [np.unique(pairs[:, 0]) for pairs in self.pairs_of_patient]

    def of_queries(self, queries: np.ndarray) -> LinkageTrial:
        """Return the trial of some queries against the same gallery.

        Parameters
        ----------
        queries
            Shape (images,), bool.
        """
        return self.of_rows(queries[self.queries])

    def of_rows(self, rows: np.ndarray) -> LinkageTrial:
        """Return the trial of some rows alone, `rows` of shape (rows,), bool."""
        trial = copy.copy(self)
        kept = [pairs[rows[pairs[:, 0]]] for pairs in self.pairs_of_patient]
        trial.pairs_of_patient = [pairs for pairs in kept if len(pairs)]
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
            pairs = self.pairs_of_patient[patient]
            row, image = pairs[rng.integers(len(pairs))]
            of_query = scores[self.queries[row]]
            positive.append(of_query[image])
            negative.append(of_query[self.negative[row]])
        return auc(np.array(positive), np.concatenate(negative)) if positive else float("nan")

    def _pairs(self, rows: np.ndarray) -> np.ndarray:
        places, images = np.nonzero(self.positive[rows])
        return np.stack((rows[places], images), axis=1)


def _groups(gallery: Sequence[CohortImage], negatives: Negatives) -> np.ndarray:
    """Return the number of the group that strangers of an image share, -1 if it is not known."""
    facts: list[list[str | int | None]] = [[f"{row.dataset}:{row.view}" for row in gallery]]
    if negatives is not Negatives.ANY:
        facts.append([None if row.sex is None else row.sex.name for row in gallery])
    if negatives is Negatives.SAME_SEX_AND_AGE:
        facts.append([None if row.age_years is None else age_bin(row.age_years) for row in gallery])
    of_image = list(zip(*facts, strict=True))
    number = {group: index for index, group in enumerate(dict.fromkeys(of_image))}
    return np.array([-1 if None in group else number[group] for group in of_image], int)


def metadata_scores(cohort: Cohort) -> np.ndarray:
    """Return how alike the kept labels of two images are, shape (images, images).

    The floor of any linkage figure: an attacker who is told the findings, which are kept on
    purpose, and nothing of the pixels.
    """
    states = np.array([[state is FindingState.PRESENT for state in row.findings] for row in cohort])
    both = states.astype(float) @ states.T
    either = states.sum(1)[:, None] + states.sum(1)[None, :] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)
