"""Lung fields of drawings, where their outline is known."""

from __future__ import annotations

import math

import numpy as np
from privdiff_training.evaluation.lung_fields import dice, lung_fields

from tests.unit.chest import chest, lungs


def test_both_lungs_are_found():
    mask = lung_fields(chest())
    assert mask.dtype == bool and mask.shape == (192, 192)
    assert dice(mask, lungs()) > 0.9


def test_other_sizes_and_exposures_give_the_same_fields():
    assert dice(lung_fields(chest(320)), lungs(320)) > 0.9
    assert dice(lung_fields(0.2 + 0.3 * chest()), lung_fields(chest())) > 0.98


def test_lungs_that_moved_overlap_less():
    overlap = dice(lung_fields(chest()), lung_fields(chest(shift=20)))
    assert 0.5 < overlap < 0.9


def test_opaque_lung_is_missed_and_the_air_around_the_body_is_no_lung():
    mask = lung_fields(chest(opaque="left"))
    assert not mask[:, :96].any()
    assert mask[:, 96:].any()


def test_where_nothing_looks_like_a_lung_there_is_no_mask():
    assert lung_fields(np.full((64, 64), 0.5, np.float32)) is None
    assert lung_fields(np.random.default_rng(0).random((64, 64)).astype(np.float32)) is None


def test_overlap_of_nothing():
    nothing = np.zeros((4, 4), bool)
    assert math.isnan(dice(nothing, nothing))
    assert dice(nothing, ~nothing) == 0
