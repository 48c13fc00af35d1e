"""ROC curves of linkage, with as many points as an eye needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from privdiff_training.evaluation.attack_record import RocCurve
from privdiff_training.evaluation.linkage import LinkageTrial

RATES = np.concatenate([[0.0], np.logspace(-4, 0, 49)])


def roc_curve(trial: LinkageTrial, scores: Sequence[np.ndarray]) -> RocCurve:
    """Return the mean curve over the seeds of one attacker.

    Every patient counts equally among the positive pairs. False positive rates that are above zero
    and below one error among all negative pairs are left out.

    Parameters
    ----------
    trial
        Which pairs are positive and negative.
    scores
        One matrix per seed, shape (queries, gallery); higher means more alike.
    """
    rows = np.concatenate([*trial.rows_of_patient, np.empty(0, int)])
    number = int(trial.negative[rows].sum())
    if not number:
        return RocCurve((), ())
    rates = RATES[(RATES == 0) | (RATES * number >= 1)]
    curves = [_true_positive_rate(trial, matrix[trial.queries], rows, rates) for matrix in scores]
    return RocCurve(tuple(rates.tolist()), tuple(np.mean(curves, axis=0).tolist()))


def _true_positive_rate(
    trial: LinkageTrial, scores: np.ndarray, rows: np.ndarray, rates: np.ndarray
) -> np.ndarray:
    negative = np.sort(scores[rows][trial.negative[rows]])[::-1]
    # A pair is called one person above the score that lets through the part `rate` of strangers.
    allowed = np.floor(rates * len(negative) + 1e-9).astype(int)
    limits = np.append(negative, -np.inf)[allowed]
    parts = [(scores[tuple(pairs.T)][:, None] > limits).mean(0) for pairs in trial.pairs_of_patient]
    return np.asarray(np.mean(parts, axis=0))
