"""Copies are found, strangers are not; the figures of the gates count what they say."""

from __future__ import annotations

from shutil import copytree

import pytest
import torch
from privdiff_training.assemble import write_metadata
from privdiff_training.cohort import read_manifest
from privdiff_training.evaluation.copies import CopyThresholds, TrainingSet
from privdiff_training.evaluation.gates import measure_gates
from privdiff_training.evaluation.result_gates import RATES
from privdiff_training.evaluation.sample import draw_sample
from privdiff_training.evaluation.spoiled import SPOILED
from privdiff_training.impostors import KINDS, impostors

from privdiff_infer.errors import CohortError
from privdiff_infer.model.critics import IdentityEmbedder
from tests.conftest import tiny_metadata
from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import TINY_RESNET


def blobs(count: int, seed: int) -> torch.Tensor:
    """Return smooth random images (count, 1, 64, 64)."""
    coarse = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def index() -> TrainingSet:
    torch.manual_seed(0)
    return TrainingSet(blobs(40, 1), IdentityEmbedder(TINY_RESNET, 32, 8, 4).eval())


@pytest.mark.parametrize(
    "disguise",
    [lambda x: x, lambda x: x.flip(-1), lambda x: 0.2 + 0.5 * x, lambda x: (x + 0.01).clamp(0, 1)],
    ids=["same", "mirrored", "contrast", "brightness"],
)
def test_copies_are_found(index, disguise):
    thresholds = CopyThresholds.of([index.nearest(blobs(200, 2))])
    assert thresholds.is_copy(index.nearest(disguise(blobs(40, 1)))).all()


def test_strangers_are_not_copies(index):
    thresholds = CopyThresholds.of([index.nearest(blobs(200, 2))])
    assert thresholds.is_copy(index.nearest(blobs(200, 3))).float().mean() < 0.08


def test_impostors_keep_shape_and_range():
    images = blobs(16, 4)
    made = impostors(images, torch.arange(16))
    assert made.shape == images.shape
    assert 0 <= made.min() <= made.max() <= 1


def test_gate_figures(tiny_bundle, tmp_path):
    cohort = read_manifest(write_cohort(tmp_path, patients=4))
    figures = measure_gates(tiny_bundle, cohort, tmp_path / "cache")
    assert figures.passed == 1
    assert set(figures.held) == {*KINDS, "photographs", "sections"}
    assert set(figures.held.values()) == {0}
    assert figures.counts["real"] == 8
    results = figures.results
    assert results.counts == {"real": 8, "redrawn": 8, "product": 8}
    assert set(results.looks_real) == {"originals", "reconstructions", "redrawn", *SPOILED}
    assert all(passed == {"frontal": 1, "quality": 1} for passed in results.looks_real.values())
    for point in results.findings:
        assert point.false_accepts in RATES
        assert list(point.redrawn) == sorted(point.redrawn)
    thresholds = [point.threshold for point in results.findings]
    assert thresholds == sorted(thresholds, reverse=True)
    assert results.linkage == 1
    assert (results.passed, results.held) == ((1, 1, 1), {})


def test_strict_gates_hold_what_is_redrawn(tiny_bundle, tmp_path):
    strict = copytree(tiny_bundle, tmp_path / "strict")
    gates = {"frontal_logit": -1e9, "contrast": 0.6, "linkage_similarity": -1.0}
    write_metadata(strict, tiny_metadata(gates=gates))
    cohort = read_manifest(write_cohort(tmp_path, patients=2))
    results = measure_gates(strict, cohort, tmp_path / "cache").results
    assert results.passed == (0, 0, 0)
    assert results.held == {"linkage": 1, "quality": 1}
    assert results.linkage == 0
    assert results.looks_real["originals"] == {"frontal": 1, "quality": 0}


def test_drawn_sample(tiny_bundle, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    training = read_manifest(write_cohort(tmp_path / "a"))
    unseen = read_manifest(write_cohort(tmp_path / "b", patients=9))
    figures = draw_sample(
        tiny_bundle,
        training,
        unseen,
        tmp_path / "sample",
        keep=2,
        check=4,
        cache_dir=tmp_path / "cache",
        seed=0,
    )
    assert figures.drawn == 6
    assert sorted(p.name for p in (tmp_path / "sample").iterdir()) == ["drawn-1.png", "drawn-2.png"]


def test_too_few_good_images(tiny_bundle, tmp_path):
    strict = copytree(tiny_bundle, tmp_path / "strict")
    write_metadata(strict, tiny_metadata(gates={"frontal_logit": 1e9}))
    cohort = read_manifest(write_cohort(tmp_path))
    with pytest.raises(CohortError, match="0 of 2 drawn images are good, 2 are needed"):
        draw_sample(
            strict, cohort, cohort, tmp_path / "s", keep=2, check=0, cache_dir=tmp_path, seed=0
        )
