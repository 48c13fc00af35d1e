"""Original and result on one scale of grey, and what can be computed from both."""

from __future__ import annotations

import numpy as np

SQUARES = 8
"""Fields of the checkerboard along the longer side."""


def onGreyScale(array: np.ndarray, displayRange: tuple[float, float]) -> np.ndarray:
    """Return values in [0, 1], 0 = black, of an array whose range is shown.

    Examples
    --------
    >>> onGreyScale(np.array([0, 50, 200]), (0, 100)).tolist()
    [0.0, 0.5, 1.0]
    """
    low, high = displayRange
    scaled = (array.astype(np.float32) - low) / max(high - low, 1e-9)
    return np.clip(scaled, 0, 1).astype(np.float32)


def resampled(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return an image on another matrix of the same extent, by bilinear interpolation."""
    if array.shape == shape:
        return array
    rows, columns = (
        np.clip((np.arange(wanted) + 0.5) * had / wanted - 0.5, 0, had - 1)
        for wanted, had in ((shape[0], array.shape[0]), (shape[1], array.shape[1]))
    )
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom = np.minimum(top + 1, array.shape[0] - 1)
    right = np.minimum(left + 1, array.shape[1] - 1)
    down, along = (rows - top)[:, None], (columns - left)[None, :]
    upper = array[top][:, left] * (1 - along) + array[top][:, right] * along
    lower = array[bottom][:, left] * (1 - along) + array[bottom][:, right] * along
    return (upper * (1 - down) + lower * down).astype(np.float32)


def difference(original: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Return result minus original, both in [0, 1]: positive where the result is brighter."""
    return resampled(result, original.shape) - original


def checkerboard(original: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Return fields of both in turn; the field at the upper left is of the original."""
    side = max(1, -(-max(original.shape) // SQUARES))
    rows, columns = (np.arange(length) // side for length in original.shape)
    isOriginal = (rows[:, None] + columns[None, :]) % 2 == 0
    return np.where(isOriginal, original, resampled(result, original.shape)).astype(np.float32)
