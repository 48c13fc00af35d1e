"""Statistics of reader studies, with simulated readers whose accuracy is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from monailabel_app.lib.study.statistics import (
    adequacy,
    agreement,
    bootstrap_interval,
    cohen_kappa,
    finding_statistics,
    fleiss_kappa,
    table,
)

STUDIES = 400


def readers(chance: np.random.Generator, items: int, count: int, *, truth=0.8, accuracy=0.9):
    """Return answers of independent readers who see the truth with a known probability."""
    adequate = chance.random(items) < truth
    right = chance.random((items, count)) < accuracy
    return np.where(right, adequate[:, None], ~adequate[:, None])


def true_kappa(truth=0.8, accuracy=0.9) -> float:
    """Return what kappa of two such readers tends to."""
    share = truth * accuracy + (1 - truth) * (1 - accuracy)
    observed = accuracy**2 + (1 - accuracy) ** 2
    expected = share**2 + (1 - share) ** 2
    return (observed - expected) / (1 - expected)


@pytest.mark.parametrize(("items", "bound"), [(10, 0.2589), (50, 0.0582), (300, 0.00994)])
def test_no_failure_in_n_bounds_the_rate_by_the_rule_of_three(items, bound):
    rate = adequacy([True] * items)

    assert rate.inadequacy_bound == pytest.approx(bound, rel=1e-2)
    assert rate.inadequacy_bound == pytest.approx(3 / items, rel=0.15)
    assert rate.interval == pytest.approx((0.025 ** (1 / items), 1.0))


def test_known_interval():
    rate = adequacy([True] * 8 + [False] * 2)  # R: binom.test(8, 10)
    assert rate.interval == pytest.approx((0.4439, 0.9748), abs=1e-4)
    assert rate.inadequacy_bound == pytest.approx(0.5069, abs=1e-4)


@pytest.mark.parametrize("truth", [0.5, 0.9, 0.98])
def test_intervals_hold_the_true_rate_as_often_as_they_say(truth):
    chance = np.random.default_rng(1)
    rates = [adequacy(list(chance.random(50) < truth)) for _ in range(STUDIES)]

    inside = [rate.interval[0] <= truth <= rate.interval[1] for rate in rates]
    bounded = [rate.inadequacy_bound >= 1 - truth for rate in rates]

    assert np.mean(inside) >= 0.94  # exact intervals hold at least 95 %, less the chance of 400
    assert np.mean(bounded) >= 0.925


@pytest.mark.parametrize("count", [2, 5])
def test_kappa_of_simulated_readers_tends_to_the_true_one(count):
    answers = readers(np.random.default_rng(2), 20_000, count)
    found = agreement(answers[:2000]).kappa

    kappa = (cohen_kappa if count == 2 else fleiss_kappa)(answers)
    assert float(kappa) == pytest.approx(true_kappa(), abs=0.02)
    assert found == pytest.approx(true_kappa(), abs=0.06)


@pytest.mark.parametrize(("count", "kappa"), [(2, cohen_kappa), (3, fleiss_kappa)])
def test_bootstrap_intervals_hold_the_true_kappa_about_as_often_as_they_say(count, kappa):
    chance = np.random.default_rng(3)
    intervals = [
        bootstrap_interval(readers(chance, 100, count), kappa) for _ in range(STUDIES // 4)
    ]
    inside = [low <= true_kappa() <= high for low, high in intervals]
    assert 0.88 <= np.mean(inside) <= 1.0


def test_cohen_kappa_is_that_of_scikit_learn():
    answers = readers(np.random.default_rng(4), 60, 2)
    expected = cohen_kappa_score(answers[:, 0], answers[:, 1])
    assert float(cohen_kappa(answers)) == pytest.approx(expected)


def test_fleiss_kappa_of_a_table_worked_by_hand():
    # 4 items, 3 readers: agreement (1 + 1/3 + 1/3 + 1) / 4, share of yes 6 / 12.
    answers = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    assert float(fleiss_kappa(answers)) == pytest.approx((2 / 3 - 1 / 2) / (1 / 2))


@pytest.mark.parametrize("answer", [True, False])
@pytest.mark.parametrize("count", [2, 4])
def test_kappa_of_equal_answers_is_undefined_and_agreement_is_not(answer, count):
    found = agreement(np.full((20, count), answer))
    assert (found.agreement, found.kappa, found.interval) == (1.0, None, None)


def test_interval_is_left_out_where_most_resamples_have_no_kappa():
    answers = np.ones((20, 2), bool)
    answers[0] = False  # a third of the resamples lack this item
    found = agreement(answers)
    assert found.kappa == 1.0
    assert found.interval is None


def test_nothing_judged_gives_no_number():
    rate = adequacy([])
    assert (rate.rate, rate.interval, rate.inadequacy_bound) == (None, None, None)
    found = finding_statistics({"R1": {}, "R2": {}})
    assert found.all_readers is not None
    assert (found.all_readers.items, found.all_readers.kappa) == (0, None)
    assert finding_statistics({}).unanimous.judged == 0


def test_unanimous_counts_a_pair_once_and_needs_every_reader():
    found = finding_statistics(
        {"R1": {0: True, 1: True, 2: False}, "R2": {0: True, 1: False, 3: True}}
    )
    assert (found.unanimous.adequate, found.unanimous.judged) == (2, 4)
    assert found.by_reader["R1"].judged == 3
    assert found.pairs["R1", "R2"].items == 2
    assert found.pairs["R1", "R2"].agreement == 0.5


def test_one_reader_agrees_with_nobody():
    found = finding_statistics({"R1": {0: True}})
    assert found.all_readers is None
    assert found.pairs == {}


def test_table_holds_the_items_that_all_judged():
    assert table({"a": {1: True, 2: False}, "b": {2: True, 3: True}}).tolist() == [[False, True]]


def test_the_same_seed_gives_the_same_interval():
    answers = readers(np.random.default_rng(5), 50, 3)
    assert bootstrap_interval(answers, fleiss_kappa, 7) == bootstrap_interval(
        answers, fleiss_kappa, 7
    )
