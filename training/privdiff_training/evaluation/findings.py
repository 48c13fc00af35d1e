"""How well findings can still be read from images, against the labels of a cohort."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from privdiff_infer.vocabulary import FINDINGS, FindingState
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.statistics import auc

MIN_POSITIVES = 10
"""A finding with fewer positive images, or no negative one, is left out of the macro AUC."""


class FindingsTrial:
    """Labels of one cohort, grouped by patient.

    Parameters
    ----------
    cohort
        Row i of every matrix of logits belongs to row i.
    """

    def __init__(self, cohort: Cohort) -> None:
        self.states = np.array([[int(state) for state in row.findings] for row in cohort])
        present = (self.states == FindingState.PRESENT).sum(0)
        absent = (self.states == FindingState.ABSENT).sum(0)
        self.indices = [
            i for i in range(len(FINDINGS)) if present[i] >= MIN_POSITIVES and absent[i]
        ]
        units = np.array([row.unit for row in cohort])
        self.rows_of_patient = [np.flatnonzero(units == unit) for unit in dict.fromkeys(units)]

    @property
    def patients(self) -> int:
        """Number of patients."""
        return len(self.rows_of_patient)

    @property
    def counted(self) -> tuple[str, ...]:
        """Names of the findings that the macro AUC is a mean of."""
        return tuple(FINDINGS[index] for index in self.indices)

    def auc(self, logits: np.ndarray, patients: Sequence[int]) -> float:
        """Return the macro AUC over the images of patients, or NaN if no finding can be counted.

        Parameters
        ----------
        logits
            Shape (images, at least 14); higher means present.
        patients
            Indices of patients, with repetitions in a bootstrap.
        """
        rows = self.rows(patients)
        areas = [self.area(index, logits, rows) for index in self.indices]
        return float(np.nanmean(areas)) if np.isfinite(areas).any() else float("nan")

    def area(self, index: int, logits: np.ndarray, rows: np.ndarray) -> float:
        """Return the AUC of one finding over rows of the cohort, or NaN."""
        states = self.states[rows, index]
        return auc(
            logits[rows[states == FindingState.PRESENT], index],
            logits[rows[states == FindingState.ABSENT], index],
        )

    def rows(self, patients: Sequence[int]) -> np.ndarray:
        """Return the rows of the images of patients, repeated as these are."""
        return np.concatenate([self.rows_of_patient[patient] for patient in patients])
