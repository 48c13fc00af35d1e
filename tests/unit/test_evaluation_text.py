"""The measurement of the text step: what is written, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from privdiff_training.cohort import read_manifest
from privdiff_training.evaluation import text
from privdiff_training.evaluation.lettering import write_text
from privdiff_training.evaluation.statistics import wilson

from privdiff_infer.image_files import to_8_bit
from tests.unit.cohort_factory import write_cohort
from tests.unit.lettering import lettered, smooth_picture


@settings(max_examples=20, deadline=None)
@given(st.integers(8, 40), st.sampled_from([0.1, 0.3]), st.integers(0, 1000))
def test_written_text_has_its_contrast_and_leaves_the_rest(size, contrast, seed):
    picture = np.full((400, 600), 0.5, np.float32)
    written = write_text(picture, size, contrast, np.random.default_rng(seed))

    assert written is not None
    difference = np.abs(written.pixels - picture)
    assert difference.max() == pytest.approx(contrast * written.strokes.max(), abs=1e-5)
    assert np.all(difference[written.strokes == 0] == 0)


def test_text_that_does_not_fit_is_not_written():
    picture = np.full((64, 64), 0.5, np.float32)

    assert write_text(picture, 64, 0.1, np.random.default_rng(0)) is None


def test_interval_of_a_share_is_that_of_wilson():
    share = wilson([True] * 8 + [False] * 2)

    assert (share.value, share.number) == (0.8, 10)
    assert (share.low, share.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_figures_of_a_small_cohort(tmp_path, tiny_bundle, monkeypatch):
    monkeypatch.setattr(text, "SIZES", (16,))
    monkeypatch.setattr(text, "SMALL_SIZES", (5,))
    monkeypatch.setattr(text, "LARGE_SIZES", (16,))
    monkeypatch.setattr(text, "LARGE_SIDE", 700)
    cohort = read_manifest(write_cohort(tmp_path, patients=3, images_per_patient=2, size=320))
    picture, _ = lettered(smooth_picture(), "L", size=40, place=(50, 440))
    Image.fromarray(to_8_bit(picture)).save(tmp_path / "marked.png")
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "image,kind,top,left,bottom,right\nmarked.png,L,55,440,90,465\np0_0.png,none,,,,\n"
    )
    figures = text.measure_text(tiny_bundle, cohort, labels)

    assert figures.images == 3
    assert figures.found["16"]["160"].value == 1
    assert figures.left_legible["160"].value == 0
    assert figures.false_boxes.value == 0
    assert figures.sides_read.value == 1
    assert figures.sides_wrong.value == 0
    assert figures.labelled == {"markers, marked.png": wilson([True])}
    assert figures.labelled_false_boxes == 0
