"""ROC curves of attackers that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial
from privdiff_training.evaluation.roc import roc_curve
from sklearn.metrics import auc

from tests.unit.cohort_factory import write_cohort


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return read_manifest(write_cohort(tmp_path, patients=24, images_per_patient=2, size=8))


def test_perfect_attacker_finds_all_without_an_error(cohort):
    curve = roc_curve(LinkageTrial(cohort, Linkage.SAME_IMAGE), [np.eye(48)])
    assert set(curve.true_positive_rate) == {1.0}
    assert curve.false_positive_rate[0] == 0


def test_blind_attacker_lies_on_the_diagonal(cohort):
    scores = np.random.default_rng(0).random((48, 48))
    curve = roc_curve(LinkageTrial(cohort, Linkage.SAME_IMAGE), [scores])
    gaps = np.subtract(curve.true_positive_rate, curve.false_positive_rate)
    assert abs(gaps).max() < 0.25
    area = auc(curve.false_positive_rate, curve.true_positive_rate)
    assert area == pytest.approx(0.5, abs=0.1)


def test_ties_are_no_success(cohort):
    curve = roc_curve(LinkageTrial(cohort, Linkage.FOLLOW_UP), [np.zeros((48, 48))])
    assert curve.true_positive_rate[:-1] == (0,) * (len(curve.true_positive_rate) - 1)
    assert curve.true_positive_rate[-1] == 1


def test_rates_below_one_error_are_left_out(cohort):
    trial = LinkageTrial(cohort, Linkage.SAME_IMAGE)
    rates = roc_curve(trial, [np.eye(48)]).false_positive_rate
    assert min(rate for rate in rates if rate) >= 1 / (48 * 46)
    assert len(rates) < 50


def test_seeds_are_averaged(cohort):
    trial = LinkageTrial(cohort, Linkage.SAME_IMAGE)
    curve = roc_curve(trial, [np.eye(48), -np.eye(48)])
    assert curve.true_positive_rate[0] == 0.5


def test_no_pairs_have_no_curve(cohort):
    alone = Cohort(cohort.root, cohort.rows[:2])
    assert roc_curve(LinkageTrial(alone, Linkage.SAME_IMAGE), [np.eye(2)]).true_positive_rate == ()
