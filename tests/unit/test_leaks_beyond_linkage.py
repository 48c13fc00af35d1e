"""Memorization and attributes: copies of training images are caught, sex and age are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from privdiff_training.evaluation import statistics
from privdiff_training.evaluation.attacks.config import AttributeConfig
from privdiff_training.evaluation.attributes import attribute_figures, read_attributes
from privdiff_training.evaluation.memorization import (
    copies_among,
    measure_memorization,
    membership,
)
from privdiff_training.stages.backbones import BackboneConfig

from privdiff_infer.model.critics import IdentityEmbedder
from tests.unit.toy_people import BACKBONE, SIDE, copies_of, known, people

ATTRIBUTES = AttributeConfig(
    image_size=SIDE,
    augmentation="none",
    backbone=BackboneConfig(**BACKBONE),
    steps=120,
    learning_rate=3e-3,
    judge_every=20,
)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 100)


@pytest.fixture
def embedder() -> IdentityEmbedder:
    torch.manual_seed(0)
    return IdentityEmbedder(BACKBONE, SIDE, 16, 2).eval()


def test_a_generator_that_copies_a_training_image_is_caught(embedder):
    training, strangers = people(40, 1), people(60, 2)
    honest = people(20, 3).pixels.float() / 255
    copied = honest.clone()
    copied[7] = (training.pixels[11].float() / 255).flip(-1) * 0.9

    share = copies_among(copied, training, strangers, embedder)

    assert share.value * 40 >= 1 + copies_among(honest, training, strangers, embedder).value * 40
    assert copies_among(copied[7:8], training, strangers, embedder).value == 1
    assert copies_among(honest, training, strangers, embedder).value < 0.15


def test_no_copy_in_few_images_is_no_proof(embedder):
    share = copies_among(torch.rand(4, 1, SIDE, SIDE), people(40, 1), people(60, 2), embedder)
    assert share.value == 0
    assert share.high > 0.4


def test_membership_shows_in_the_loss():
    inside, outside = people(30, 1).cohort, people(30, 2).cohort
    rng = np.random.default_rng(0)
    scores = rng.normal(size=60)
    blind = membership(inside, scores, outside, rng.normal(size=60), 0)
    leaking = membership(inside, scores + 5, outside, rng.normal(size=60), 0)
    assert blind.low < 0.5 < blind.high
    assert leaking.low > 0.95
    assert blind.patients == 60


def test_memorization_of_a_bundle(tiny_bundle: Path):
    torch.manual_seed(0)
    embedder = IdentityEmbedder(BACKBONE, SIDE, 16, 2).eval()
    training, strangers = (enlarged(people(6, seed)) for seed in (1, 2))
    found = measure_memorization(
        tiny_bundle, training, strangers, embedder, drawn=4, members=5, seed=0
    )
    assert found.drawn == 4
    assert 0 <= found.copies <= 4
    assert 0 <= found.membership_auc.value <= 1


def enlarged(originals):
    pixels = originals.pixels.repeat_interleave(2, -1).repeat_interleave(2, -2)
    return type(originals)(originals.cohort, pixels)


class TestAttributes:
    @pytest.fixture
    def test(self):
        return people(40, 7)

    def read(self, tool, test):
        return read_attributes(known(tool), copies_of(tool, test), ATTRIBUTES, 0)

    def test_sex_and_age_are_read_from_what_keeps_them_and_not_from_what_does_not(self, test):
        kept = self.read(lambda images, seed: images, test)
        gone = self.read(lambda images, seed: torch.full_like(images, 0.5), test)

        found = attribute_figures(test.cohort, [gone], [kept], known(None).train, 0)

        assert found.sex_auc_of_originals.low > 0.7
        assert found.sex_auc.value == pytest.approx(0.5)
        assert found.age_error_of_originals.value < 0.9 * found.age_error_of_median
        assert found.age_error.value == pytest.approx(found.age_error_of_median, rel=0.35)
        assert found.age_error_of_median == pytest.approx(15, abs=1)
