"""Exposure of single patients: a few who are always found, or all of them now and then."""

from __future__ import annotations

import numpy as np
import pytest
from privdiff_training.evaluation.exposure import measure_exposure

from tests.unit.test_verification_metrics import cohort_of

PATIENTS = 40


def scores_that_find(found: np.ndarray) -> np.ndarray:
    """Return scores (patients, patients) that put the right original first for some patients."""
    scores = np.random.default_rng(0).random((len(found), len(found)))
    np.fill_diagonal(scores, np.where(found, 2.0, -1.0))
    return scores


def test_a_few_who_are_always_found_bear_all_of_the_risk():
    few = np.arange(PATIENTS) < 4
    exposure = measure_exposure(cohort_of(PATIENTS), [[scores_that_find(few)]] * 2, "A0", 0)

    assert exposure.found == {"0.5": 0, "0.75": 0, "0.9": pytest.approx(0.1), "0.95": 1, "1": 1}
    assert exposure.never.value == pytest.approx(0.9)
    assert exposure.always.value == pytest.approx(0.1)
    assert exposure.of_the_most_exposed == 1
    assert exposure.of_the_most_exposed_by_chance < 0.9
    assert exposure.again == 1
    assert (exposure.patients, exposure.copies, exposure.gallery) == (PATIENTS, 2, PATIENTS)


def test_a_risk_that_is_dealt_out_by_lot_is_no_more_concentrated_than_chance():
    rng = np.random.default_rng(1)
    copies = [[scores_that_find(rng.random(200) < 0.3)] for _ in range(4)]
    exposure = measure_exposure(cohort_of(200), copies, "A0", 0)

    assert exposure.of_the_most_exposed == pytest.approx(
        exposure.of_the_most_exposed_by_chance, abs=0.06
    )
    assert exposure.again == pytest.approx(0.3, abs=0.1)


def test_nobody_is_found():
    nobody = scores_that_find(np.zeros(PATIENTS, bool))
    exposure = measure_exposure(cohort_of(PATIENTS), [[nobody]], "A0", 0)

    assert exposure.never.value == 1 and exposure.never.low < 0.95
    assert np.isnan(exposure.of_the_most_exposed)
    assert exposure.again is None


def test_quantiles_of_a_handful_of_patients_are_not_told():
    assert measure_exposure(cohort_of(9), [[np.eye(9)]], "A0", 0) is None
