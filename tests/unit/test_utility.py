"""Utility where the answer is known: a painted finding, copies that keep it, lose it, gain it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from privdiff_training.cohort import Cohort, CohortImage
from privdiff_training.evaluation import statistics
from privdiff_training.evaluation.reader_training import small_reader, train_readers
from privdiff_training.evaluation.utility import measure_utility, share_of_images, thresholds
from torch import Tensor

from privdiff_infer.model.critics import RadiographReader
from privdiff_infer.vocabulary import FINDING_TOKENS, FINDINGS, FindingState
from tests.unit.tiny import TINY_RESNET

EFFUSION = FINDINGS.index("Effusion")
IMAGES = 60


class MeanReader(RadiographReader):
    """Calls an image positive for everything the brighter it is; no weights to learn."""

    def __init__(self, slope: float = 20.0) -> None:
        super().__init__(TINY_RESNET, 32)
        self.slope = slope

    def forward(self, images):
        level = self.slope * (images.mean((1, 2, 3)) - 0.5)
        reading = super().forward(images)
        return replace(reading, findings=level[:, None].expand(-1, len(FINDING_TOKENS)))


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 60)


@pytest.fixture
def cohort() -> Cohort:
    return Cohort(Path(), tuple(row(number) for number in range(IMAGES)))


@pytest.fixture
def originals() -> Tensor:
    return painted([number % 3 == 0 for number in range(IMAGES)])


def row(number: int) -> CohortImage:
    """Every third image has an effusion; every patient has two images."""
    states = [FindingState.ABSENT] * len(FINDING_TOKENS)
    states[EFFUSION] = FindingState.PRESENT if number % 3 == 0 else FindingState.ABSENT
    patient = f"p{number // 2}"
    return CohortImage(
        Path(f"{number}.png"), "toy", patient, patient, tuple(states), None, None, "PA", "0"
    )


def painted(present: list[bool], size: int = 32) -> Tensor:
    noise = torch.rand(len(present), 1, size, size, generator=torch.Generator().manual_seed(1))
    return 0.3 + 0.1 * noise + 0.3 * torch.tensor(present).view(-1, 1, 1, 1)


def measured(cohort, originals, copies, classifier=None):
    return measure_utility(
        cohort,
        originals,
        copies,
        classifier or MeanReader(),
        seed=0,
        select=cohort,
        select_originals=originals,
        trained="not asked for",
    )


def test_copies_that_are_the_originals_lose_nothing(cohort, originals):
    utility = measured(cohort, originals, originals)

    (effusion,) = utility.findings
    assert utility.macro.value == effusion.copies.value == effusion.originals.value == 1
    assert (utility.difference.value, utility.difference.low, utility.difference.high) == (0, 0, 0)
    assert effusion.finding == "Effusion"
    assert effusion.positives == 20
    assert utility.calibration_error == utility.calibration_error_of_originals


def test_no_loss_among_few_patients_still_has_an_upper_bound(cohort, originals):
    (effusion,) = measured(cohort, originals, originals).findings

    patients_called_positive = 20
    assert effusion.lost.value == 0
    assert effusion.lost.patients == patients_called_positive
    assert effusion.lost.high == pytest.approx(3.84 / (patients_called_positive + 3.84), abs=0.001)


def test_classifier_that_ignores_the_image_sees_no_utility(cohort, originals):
    utility = measured(cohort, originals, originals, MeanReader(slope=0.0))

    assert utility.macro.value == 0.5
    assert utility.findings[0].copies.value == 0.5
    assert utility.difference.value == 0


def test_erased_findings_are_a_loss_and_painted_ones_a_gain(cohort, originals):
    erased = measured(cohort, originals, painted([False] * IMAGES)).findings[0]
    everywhere = measured(cohort, originals, painted([True] * IMAGES)).findings[0]

    assert (erased.lost.value, erased.gained.value) == (1, 0)
    assert (everywhere.lost.value, everywhere.gained.value) == (0, 1)
    assert erased.difference.high < -0.2


def test_copies_that_are_worse_have_a_paired_difference_below_zero(cohort, originals):
    half = painted([number % 6 == 0 for number in range(IMAGES)])
    utility = measured(cohort, originals, half)

    assert utility.difference.value == pytest.approx(utility.macro.value - 1)
    assert utility.difference.low < utility.difference.value < utility.difference.high < 0
    assert utility.findings[0].lost.value == pytest.approx(0.5)


def test_probabilities_that_say_the_opposite_are_badly_calibrated(cohort, originals):
    sure = measured(cohort, originals, originals, MeanReader(slope=200.0))
    opposite = measured(cohort, originals, originals, MeanReader(slope=-200.0))

    assert sure.calibration_error < 0.01
    assert opposite.calibration_error > 0.99


def test_cohort_without_enough_positives_gives_no_figures(cohort, originals):
    utility = measured(Cohort(Path(), cohort.rows[:9]), originals[:9], originals[:9])

    assert utility.findings == ()
    assert math.isnan(utility.macro.value)
    assert math.isnan(utility.calibration_error)


def test_as_many_verdicts_as_labels(cohort):
    logits = np.random.default_rng(0).random((IMAGES, 15))
    limits = thresholds(cohort, logits)
    assert (logits[:, EFFUSION] > limits[EFFUSION]).sum() == 20


def test_finding_that_nobody_looked_for_has_no_threshold(cohort):
    unknown = tuple(
        replace(r, findings=(FindingState.UNKNOWN,) * len(FINDING_TOKENS)) for r in cohort
    )
    assert np.isinf(thresholds(Cohort(Path(), unknown), np.zeros((IMAGES, 15)))).all()


def test_share_of_images_counts_those_at_risk_alone():
    rows = [np.array([0, 1]), np.array([2]), np.array([3])]
    at_risk = np.array([True, True, True, False])
    share = share_of_images(np.array([True, False, False, True]), at_risk, rows, seed=0)
    assert share.value == pytest.approx(1 / 3)
    assert share.patients == 2
    assert math.isnan(share_of_images(at_risk, np.zeros(4, bool), rows, seed=0).value)


class TestTrainedReaders:
    def test_copies_that_show_the_opposite_teach_the_opposite(self, cohort, originals, tmp_path):
        # Copies without any finding would leave the reader to its first random weights.
        opposite = painted([number % 3 != 0 for number in range(IMAGES)])
        trained = train_readers(cohort, originals, opposite, small_reader(40, seed=0), tmp_path)
        utility = measure_utility(
            cohort,
            originals,
            opposite,
            MeanReader(),
            seed=0,
            select=cohort,
            select_originals=originals,
            trained=trained,
        )

        assert utility.trained_on_originals.value > 0.95
        assert utility.trained_on_copies.value < 0.05
        assert utility.trained_difference.high < 0
        assert "60 images of 30 patients" in utility.training

    def test_reader_that_is_done_is_not_trained_again(self, cohort, originals, tmp_path):
        config = small_reader(2, seed=0)
        first = train_readers(cohort, originals, originals, config, tmp_path)
        checkpoint = next(tmp_path.glob("reader-*/checkpoint-2"))
        written = checkpoint.stat().st_mtime_ns
        again = train_readers(cohort, originals, originals, config, tmp_path)

        assert len(list(tmp_path.iterdir())) == 1  # the copies are the originals
        assert checkpoint.stat().st_mtime_ns == written
        for old, new in zip(
            first.on_copies.parameters(), again.on_copies.parameters(), strict=True
        ):
            assert torch.equal(old, new)

    def test_reason_takes_the_place_of_figures(self, cohort, originals):
        utility = measured(cohort, originals, originals)
        assert utility.trained_on_copies is None
        assert utility.training == "not asked for"
