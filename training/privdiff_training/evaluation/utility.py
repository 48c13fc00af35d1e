"""What is left of the findings in copies, for a classifier that never saw one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from privdiff_infer.model.critics import RadiographReader
from privdiff_infer.vocabulary import FINDINGS, FindingState
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.findings import FindingsTrial
from privdiff_training.evaluation.networks import read_findings
from privdiff_training.evaluation.reader_training import TrainedReaders
from privdiff_training.evaluation.record import FindingFigures, Utility
from privdiff_training.evaluation.statistics import (
    Estimate,
    bootstrap,
    bootstrap_difference,
    of_patients,
)

CALIBRATION_BINS = 15

OfPatients = Callable[[Sequence[int], np.random.Generator], float]


def measure_utility(
    cohort: Cohort,
    originals: Tensor,
    copies: Tensor,
    classifier: RadiographReader,
    seed: int,
    *,
    select: Cohort,
    select_originals: Tensor,
    trained: TrainedReaders | str,
) -> Utility:
    """Measure a fixed classifier on copies against the originals, and readers trained on each.

    A verdict is `present` above a threshold that calls as many originals of the select patients
    positive as their labels do. (Youden's index would need more positive images per finding than
    those few patients have.) Losses and gains are changes of that verdict, not of the truth.

    Parameters
    ----------
    cohort
        Row i tells of original i and of its copy.
    originals, copies
        Shape (n, 1, s, s), float32 in [0, 1].
    classifier
        Trained on originals of other patients; no part of what made the copies.
    seed
        Of the bootstraps.
    select, select_originals
        The attacker's selection patients, where thresholds are fixed.
    trained
        Readers of `train_readers` that saw none of these patients; or in words why there are none.
    """
    trial = FindingsTrial(cohort)
    before, after = (read_findings(classifier, images).numpy() for images in (originals, copies))
    limits = thresholds(select, read_findings(classifier, select_originals).numpy())

    def macro(logits: np.ndarray) -> OfPatients:
        return lambda patients, rng: trial.auc(logits, patients)

    utility = Utility(
        macro=bootstrap(macro(after), trial.patients, seed),
        difference=bootstrap_difference(macro(after), macro(before), trial.patients, seed),
        findings=tuple(
            _finding(trial, index, before, after, limits[index], seed) for index in trial.indices
        ),
        trained_on_copies=None,
        trained_on_originals=None,
        calibration_error=_calibration_error(trial, after),
        calibration_error_of_originals=_calibration_error(trial, before),
        training=trained if isinstance(trained, str) else trained.trained_on,
    )
    if isinstance(trained, str):
        return utility
    of_copies = macro(read_findings(trained.on_copies, originals).numpy())
    of_originals = macro(read_findings(trained.on_originals, originals).numpy())
    return replace(
        utility,
        trained_on_copies=bootstrap(of_copies, trial.patients, seed),
        trained_on_originals=bootstrap(of_originals, trial.patients, seed),
        trained_difference=bootstrap_difference(of_copies, of_originals, trial.patients, seed),
    )


def thresholds(select: Cohort, logits: np.ndarray) -> np.ndarray:
    """Return the logit of each finding above which as many images lie as have it by their labels.

    Laplace's rule keeps the part of a finding that no or every label names inside (0, 1).

    Parameters
    ----------
    select
        Row i tells the labels of row i of `logits`.
    logits
        Shape (images, at least 14).

    Returns
    -------
    np.ndarray
        Shape (14,); infinite where no label says anything.
    """
    states = np.array([[int(state) for state in row.findings] for row in select])
    limits = np.full(len(FINDINGS), np.inf)
    for index in range(len(FINDINGS)):
        known = states[:, index] != FindingState.UNKNOWN
        if known.any():
            present = (states[known, index] == FindingState.PRESENT).sum()
            prevalence = (present + 1) / (known.sum() + 2)
            limits[index] = np.quantile(logits[known, index], 1 - prevalence)
    return limits


def share_of_images(
    events: np.ndarray, at_risk: np.ndarray, rows_of_patient: Sequence[np.ndarray], seed: int
) -> Estimate:
    """Return the part of images at risk with an event, with a bootstrap over patients.

    Where few patients have one, or all but few, the interval is Wilson's over the patients at risk
    at least; see `of_patients`.

    Parameters
    ----------
    events, at_risk
        Shape (images,), bool; an event counts only at risk.
    rows_of_patient
        The images of each patient.
    seed
        Of the bootstrap.
    """
    exposed = [rows[at_risk[rows]] for rows in rows_of_patient if at_risk[rows].any()]
    counts = np.array([[events[rows].sum(), len(rows)] for rows in exposed]).reshape(-1, 2)

    def part(patients: Sequence[int], rng: np.random.Generator) -> float:
        happened, number = counts[list(patients)].sum(0)
        return float(happened / number)

    return of_patients(bootstrap(part, len(exposed), seed))


def _finding(
    trial: FindingsTrial,
    index: int,
    before: np.ndarray,
    after: np.ndarray,
    threshold: float,
    seed: int,
) -> FindingFigures:
    def area(logits: np.ndarray) -> OfPatients:
        return lambda patients, rng: trial.area(index, logits, trial.rows(patients))

    was, is_now = before[:, index] > threshold, after[:, index] > threshold
    return FindingFigures(
        finding=FINDINGS[index],
        positives=int((trial.states[:, index] == FindingState.PRESENT).sum()),
        originals=bootstrap(area(before), trial.patients, seed),
        copies=bootstrap(area(after), trial.patients, seed),
        difference=bootstrap_difference(area(after), area(before), trial.patients, seed),
        lost=share_of_images(~is_now, was, trial.rows_of_patient, seed),
        gained=share_of_images(is_now, ~was, trial.rows_of_patient, seed),
    )


def _calibration_error(trial: FindingsTrial, logits: np.ndarray) -> float:
    """Return the expected calibration error over all counted findings of all images."""
    if not trial.indices:
        return float("nan")
    states = trial.states[:, trial.indices]
    known = states != FindingState.UNKNOWN
    present = torch.from_numpy(states[known] == FindingState.PRESENT).long()
    probabilities = torch.from_numpy(logits[:, trial.indices][known]).sigmoid()
    return float(binary_calibration_error(probabilities, present, n_bins=CALIBRATION_BINS))
