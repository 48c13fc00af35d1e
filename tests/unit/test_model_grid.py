"""The way to the model grid and back keeps aspect ratio and physical extent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privdiff_infer.model_grid import to_model_grid
from privdiff_infer.vocabulary import OutputSize

sides = st.integers(64, 400)
spacings = st.floats(0.05, 2.0)


def smooth(rows: int, columns: int) -> np.ndarray:
    down = np.linspace(0, np.pi, rows)[:, None]
    across = np.linspace(0, 2, columns)[None, :]
    return (0.5 + 0.25 * np.cos(down) + 0.2 * np.sin(across)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(rows=sides, columns=sides, row_mm=spacings, column_mm=spacings)
def test_physical_extent_is_exact(rows, columns, row_mm, column_mm):
    pixels = smooth(rows, columns)
    grid, geometry = to_model_grid(pixels, (row_mm, column_mm), 128)
    assert grid.shape == (128, 128)
    for size in OutputSize:
        restored, spacing = geometry.restore(grid, size)
        assert restored.shape[0] * spacing[0] == pytest.approx(rows * row_mm, rel=1e-9)
        assert restored.shape[1] * spacing[1] == pytest.approx(columns * column_mm, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(rows=sides, columns=sides, row_mm=spacings, column_mm=spacings)
def test_grid_pixels_are_square_to_half_a_pixel(rows, columns, row_mm, column_mm):
    _, geometry = to_model_grid(smooth(rows, columns), (row_mm, column_mm), 128)
    height, width = rows * row_mm, columns * column_mm
    scale = 128 / max(height, width)
    assert abs(geometry.rows - max(1, height * scale)) <= 0.5
    assert abs(geometry.columns - max(1, width * scale)) <= 0.5


@settings(max_examples=40, deadline=None)
@given(rows=sides, columns=sides)
def test_round_trip_of_a_smooth_image(rows, columns):
    pixels = smooth(rows, columns)
    grid, geometry = to_model_grid(pixels, None, 128)
    restored, spacing = geometry.restore(grid, OutputSize.ORIGINAL)
    assert restored.shape == pixels.shape
    assert spacing is None
    assert np.abs(restored - pixels).mean() < 0.02


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_intensities_stay_in_range(values):
    corners = np.kron(np.array(values, np.float32).reshape(2, 2), np.ones((50, 50), np.float32))
    grid, geometry = to_model_grid(corners, None, 64)
    restored, _ = geometry.restore(grid, OutputSize.ORIGINAL)
    for array in (grid, restored):
        assert array.dtype == np.float32
        assert 0 <= array.min() <= array.max() <= 1


def test_image_of_the_size_of_the_grid_is_untouched():
    pixels = smooth(128, 128)
    grid, geometry = to_model_grid(pixels, (0.3, 0.3), 128)
    restored, spacing = geometry.restore(grid, OutputSize.MODEL)
    assert (grid == pixels).all()
    assert (restored == pixels).all()
    assert spacing == (0.3, 0.3)


def test_padding_is_black():
    grid, geometry = to_model_grid(np.ones((100, 50), np.float32), None, 64)
    assert geometry.columns == 32
    assert (grid[:, :16] == 0).all()
    assert (grid[:, 48:] == 0).all()
    assert (grid[:, 16:48] == 1).all()
