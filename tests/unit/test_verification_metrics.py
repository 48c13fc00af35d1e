"""Metrics of verification and retrieval agree with general routines and with chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from privdiff_training.cohort import Cohort, CohortImage
from privdiff_training.evaluation import statistics
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial, Negatives
from privdiff_training.evaluation.linkage_figures import linkage_figures
from privdiff_training.evaluation.retrieval import retrieval
from privdiff_training.evaluation.statistics import wilson
from privdiff_training.evaluation.verification_metrics import (
    SortedPairs,
    auc_difference,
    oriented,
    seed_auc,
    verification,
)
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve

from privdiff_infer.vocabulary import FINDING_TOKENS, FindingState, Sex


def cohort_of(patients: int, images: int = 1, dataset: str = "cohort") -> Cohort:
    """Return a cohort without files: sexes alternate, ages come in tens."""
    rows = [
        CohortImage(
            image=Path(f"{patient}_{number}.png"),
            dataset=dataset,
            patient_id=f"p{patient}",
            unit=f"{dataset}:p{patient}",
            findings=(FindingState.ABSENT,) * len(FINDING_TOKENS),
            sex=Sex(patient % 2),
            age_years=float(20 + 10 * (patient % 6)),
            view="PA",
            fold="4",
        )
        for patient in range(patients)
        for number in range(images)
    ]
    return Cohort(Path(), tuple(rows))


def scores_of(cohort: Cohort, signal: float, seed: int = 0, others: int = 0) -> np.ndarray:
    units = np.array([row.unit for row in cohort])
    noise = np.random.default_rng(seed).normal(size=(len(cohort), len(cohort) + others))
    noise[:, : len(cohort)] += signal * (units[:, None] == units[None, :])
    return noise


def in_both_views(cohort: Cohort) -> Cohort:
    """Return a cohort whose images are of one view and the other in turn."""
    rows = [replace(row, view=("PA", "AP")[number % 2]) for number, row in enumerate(cohort)]
    return Cohort(Path(), tuple(rows))


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 100)


class TestVerification:
    def test_figures_agree_with_general_routines(self):
        cohort = cohort_of(40)
        scores = scores_of(cohort, 1.5).round(1)  # with ties
        truth = np.eye(40, dtype=bool).ravel()
        false, true, _ = roc_curve(truth, scores.ravel(), drop_intermediate=False)

        found = SortedPairs(LinkageTrial(cohort, Linkage.SAME_IMAGE), scores).whole()

        assert found["auc"] == pytest.approx(roc_auc_score(truth, scores.ravel()))
        expected = brentq(lambda rate: 1 - rate - np.interp(rate, false, true), 0, 1)
        assert found["equal_error_rate"] == pytest.approx(expected)
        assert found["0.01"] == pytest.approx(true[false <= 0.01].max())

    def test_every_patient_weighs_the_same(self):
        cohort = cohort_of(10, images=2)
        many = [replace(cohort.rows[0], image=Path(f"more{n}.png")) for n in range(30)]
        crowded = Cohort(Path(), (*cohort.rows, *many))
        scores = np.random.default_rng(0).random((50, 50))
        scores[[0, *range(20, 50)]] = -1  # one patient with many images is never found
        scores[:, [0, *range(20, 50)]] = -1
        same = np.array([row.unit for row in crowded])
        scores[2:20, 2:20] += 5 * (same[2:20, None] == same[None, 2:20])

        found = SortedPairs(LinkageTrial(crowded, Linkage.FOLLOW_UP), scores).whole()

        assert found["auc"] > 0.9

    @pytest.mark.parametrize("kind", list(Linkage))
    def test_perfect_attacker(self, kind):
        cohort = cohort_of(30, images=2)
        found = verification(cohort, [scores_of(cohort, 100.0)], kind, seed=0)
        assert (found.auc.value, found.auc.low, found.auc.high) == pytest.approx((1, 1, 1))
        assert found.equal_error_rate.value == pytest.approx(0)
        assert found.tpr_at_fpr["0.01"].value == 1
        assert found.auc.patients == 30

    def test_blind_attacker_and_its_floor(self):
        cohort = cohort_of(60)
        found = verification(cohort, [scores_of(cohort, 0.0, 3)], Linkage.SAME_IMAGE, seed=0)
        assert found.auc.low < 0.5 < found.auc.high
        assert found.folded_auc.value >= 0.5
        # the standard error of an AUC of 60 positives is 0.037, its mean absolute value 0.030
        assert found.folded_auc_of_strangers == pytest.approx(0.530, abs=0.012)

    def test_constant_scores_are_chance(self):
        cohort = cohort_of(40)
        found = verification(cohort, [np.ones((40, 40))], Linkage.SAME_IMAGE, seed=0)
        assert (found.auc.value, found.auc.low, found.auc.high) == pytest.approx((0.5,) * 3)
        assert found.equal_error_rate.value == pytest.approx(0.5)
        assert found.tpr_at_fpr["0.01"].value == 0

    def test_rates_that_the_negatives_cannot_show_are_left_out(self):
        small, large = cohort_of(34), cohort_of(110)  # 1122 and 11990 pairs of strangers
        found = [
            verification(cohort, [scores_of(cohort, 1.0)], Linkage.SAME_IMAGE, 0).tpr_at_fpr
            for cohort in (small, large)
        ]
        assert list(found[0]) == ["0.01"]
        assert list(found[1]) == ["0.01", "0.001"]

    def test_an_attacker_who_knows_the_sex_gains_nothing_against_strangers_of_it(self):
        cohort = cohort_of(48)
        sex = np.array([int(row.sex) for row in cohort])
        scores = scores_of(cohort, 0.0) * 0.01 + (sex[:, None] == sex[None, :])
        found = verification(cohort, [scores], Linkage.SAME_IMAGE, 0).auc_by_negatives
        assert found[Negatives.ANY].value == pytest.approx(0.5 + 0.5 * 24 / 47, abs=0.04)
        assert found[Negatives.SAME_SEX].low < 0.5 < found[Negatives.SAME_SEX].high

    def test_age_is_matched_within_bins(self):
        cohort = cohort_of(12)
        trial = LinkageTrial(cohort, Linkage.SAME_IMAGE, Negatives.SAME_SEX_AND_AGE)
        # ages 20 to 70 in steps of ten: patient 0 (female, 20) has 6 of her age bin and sex
        assert np.flatnonzero(trial.negative[0]).tolist() == [6]
        assert np.flatnonzero(trial.negative[2]).tolist() == [8]

    def test_unknown_sex_is_not_matched(self):
        rows = [replace(row, sex=None) for row in cohort_of(12)]
        trial = LinkageTrial(Cohort(Path(), tuple(rows)), Linkage.SAME_IMAGE, Negatives.SAME_SEX)
        assert trial.patients == 0

    def test_seeds_are_a_second_level(self):
        cohort = cohort_of(60)
        differing = [scores_of(cohort, signal, 5) for signal in (0.0, 3.0)]
        found = verification(cohort, differing, Linkage.SAME_IMAGE, 0).auc
        alone = [seed_auc(cohort, scores, Linkage.SAME_IMAGE) for scores in differing]
        assert found.value == pytest.approx(np.mean(alone))
        assert found.low < 0.6 and found.high > 0.9

    def test_seeds_that_agree_narrow_nothing(self):
        cohort, scores = cohort_of(60), scores_of(cohort_of(60), 1.0)
        one = verification(cohort, [scores], Linkage.SAME_IMAGE, 0).auc
        five = verification(cohort, [scores] * 5, Linkage.SAME_IMAGE, 0).auc
        assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.3)

    def test_intervals_cover_the_truth(self):
        truth, covered = 0.7602, 0  # Phi(1 / sqrt 2)
        cohort = cohort_of(40)
        for seed in range(25):
            scores = scores_of(cohort, 1.0, seed)
            auc = verification(cohort, [scores], Linkage.SAME_IMAGE, seed).auc
            covered += auc.low <= truth <= auc.high
        assert covered >= 21

    def test_scores_are_turned_only_if_clearly_upside_down(self):
        cohort = cohort_of(40)
        assert oriented(cohort, scores_of(cohort, -2.0), 0) == -1
        assert oriented(cohort, scores_of(cohort, 0.0), 0) == 1
        assert oriented(cohort, scores_of(cohort, 2.0), 0) == 1

    @pytest.mark.parametrize("kind", list(Linkage))
    def test_the_view_alone_tells_nobody(self, kind):
        cohort = in_both_views(cohort_of(40, images=2))
        view = np.array([row.view for row in cohort])
        scores = (view[:, None] != view[None, :]).astype(
            float
        )  # "it is the other view, so it is he"
        found = verification(cohort, [scores], kind, seed=0)
        assert (found.auc.value, found.auc.low, found.auc.high) == pytest.approx((0.5,) * 3)
        (search,) = retrieval(cohort, [scores], kind, 0)
        assert search.rank_1.low <= search.chance <= search.rank_1.high

    def test_strangers_are_of_the_view_that_is_sought(self):
        cohort = in_both_views(cohort_of(4, images=2))
        trial = LinkageTrial(cohort, Linkage.FOLLOW_UP)
        views = np.array([row.view for row in cohort])
        for row, query in enumerate(trial.queries):
            (sought,) = set(views[trial.positive[row]])
            assert sought != views[query]
            assert set(views[trial.negative[row]]) == {sought}

    def test_follow_ups_of_two_views_have_strangers_of_their_own(self):
        cohort = cohort_of(3, images=3)
        rows = [
            replace(row, view="AP" if number % 3 == 2 else "PA")
            for number, row in enumerate(cohort)
        ]
        trial = LinkageTrial(Cohort(Path(), tuple(rows)), Linkage.FOLLOW_UP)
        assert trial.queries.tolist() == [0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8]
        assert [len(pairs) for pairs in trial.pairs_of_patient] == [6, 6, 6]

    def test_differences_are_paired(self):
        cohort = cohort_of(40, images=2)
        scores = scores_of(cohort, 1.0)
        kind = Linkage.FOLLOW_UP
        same = auc_difference(cohort, [scores], [scores], kind, 0)
        seeds = auc_difference(cohort, [scores, scores], [scores], kind, 0)
        blind = auc_difference(cohort, [scores], [scores_of(cohort, 0.0, 9)], kind, 0)
        assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0))
        assert (seeds.low, seeds.high) == pytest.approx((0, 0))
        assert 0 < blind.low < blind.value

    def test_parts_of_patients_that_all_agree_have_an_interval(self):
        cohort = cohort_of(60)
        found = verification(cohort, [scores_of(cohort, 100.0)], Linkage.SAME_IMAGE, 0)
        rate = found.tpr_at_fpr["0.01"]
        assert rate.value == rate.high == 1
        assert rate.low == pytest.approx(wilson([True] * 60).low)
        nobody = verification(cohort, [-scores_of(cohort, 100.0)], Linkage.SAME_IMAGE, 0)
        assert nobody.tpr_at_fpr["0.01"].high == pytest.approx(wilson([False] * 60).high)

    def test_nobody_with_two_images(self):
        found = linkage_figures(cohort_of(8), [np.ones((8, 8))], Linkage.FOLLOW_UP, 0)
        assert np.isnan(found.auc.value)
        assert found.auc.patients == 0
        assert found.retrieval == ()


class TestRetrieval:
    def test_blind_attacker_finds_by_chance(self):
        cohort = cohort_of(150)
        for scores in (np.ones((150, 150)), scores_of(cohort, 0.0, 1)):
            small, everybody = retrieval(cohort, [scores], Linkage.SAME_IMAGE, 0)
            assert (small.gallery, everybody.gallery) == (100, 150)
            assert small.chance == pytest.approx(0.01)
            assert small.rank_1.value == pytest.approx(0.01, abs=0.02)
            assert small.rank_5.value == pytest.approx(0.05, abs=0.03)

    def test_perfect_attacker_finds_everybody(self):
        cohort = cohort_of(60, images=3)
        for kind in Linkage:
            for found in retrieval(cohort, [scores_of(cohort, 50.0)], kind, 0):
                assert found.rank_1.value == 1
                assert found.mean_average_precision.value == 1

    def test_who_is_always_found_has_an_interval_all_the_same(self):
        cohort = cohort_of(60)
        found = retrieval(cohort, [scores_of(cohort, 50.0)], Linkage.SAME_IMAGE, 0)[0].rank_1
        assert (found.value, found.high) == (1, 1)
        assert found.low == pytest.approx(wilson([True] * 60).low)

    def test_a_rare_view_takes_the_small_gallery_from_nobody_else(self):
        cohort = cohort_of(120)
        rows = [replace(row, view="AP" if n < 3 else "PA") for n, row in enumerate(cohort)]
        found = retrieval(
            Cohort(Path(), tuple(rows)), [scores_of(cohort, 0.0)], Linkage.SAME_IMAGE, 0
        )
        assert [(each.gallery, each.rank_1.patients) for each in found] == [(100, 117), (114, 120)]

    def test_mean_average_precision_at_r(self):
        cohort = cohort_of(2, images=3)
        scores = np.zeros((6, 6))
        scores[0] = [9, 3, 1, 2, 0, 0]  # found first and third, R = 2: (1/1 + 0) / 2
        scores[1:] = 10 * LinkageTrial(cohort, Linkage.FOLLOW_UP).positive[1:]
        (found,) = retrieval(cohort, [scores], Linkage.FOLLOW_UP, 0)
        assert found.gallery == 5
        # patient 0: (1/2 + 1 + 1) / 3; patient 1: 1
        assert found.mean_average_precision.value == pytest.approx((2.5 / 3 + 1) / 2)

    def test_further_originals_are_searched(self):
        cohort, others = cohort_of(50), cohort_of(200, dataset="cohort")
        others = Cohort(Path(), tuple(replace(row, unit=f"other:{row.unit}") for row in others))
        scores = scores_of(cohort, 0.0, 2, others=200)
        scores[:, :50][np.eye(50, dtype=bool)] = 2.0
        found = retrieval(cohort, [scores], Linkage.SAME_IMAGE, 0, others)
        assert [each.gallery for each in found] == [50, 100, 250]
        rank_1 = [each.rank_1.value for each in found]
        assert rank_1[0] > rank_1[1] > rank_1[2]
