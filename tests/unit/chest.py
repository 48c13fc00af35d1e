"""Drawings of a chest, for tests of what looks for lungs."""

from __future__ import annotations

import numpy as np


def chest(size: int = 192, *, shift: int = 0, opaque: str = "") -> np.ndarray:
    """Return a bright body in dark air with two dark ellipses for lungs.

    Parameters
    ----------
    size
        Side in pixels.
    shift
        Pixels by which the lungs lie lower.
    opaque
        ``left`` or ``right`` (of the picture): that lung is as bright as the body.
    """
    rows, columns = np.mgrid[:size, :size] / size
    body = (np.abs(columns - 0.5) < 0.42) & (rows > 0.1)
    image = np.where(body, 0.8, 0.05)
    for side, middle in (("left", 0.3), ("right", 0.7)):
        if side != opaque:
            image[_lung(rows - shift / size, columns, middle)] = 0.25
    return image.astype(np.float32)


def lungs(size: int = 192, *, shift: int = 0) -> np.ndarray:
    """Return where `chest` draws the lungs, bool."""
    rows, columns = np.mgrid[:size, :size] / size
    return _lung(rows - shift / size, columns, 0.3) | _lung(rows - shift / size, columns, 0.7)


def _lung(rows: np.ndarray, columns: np.ndarray, middle: float) -> np.ndarray:
    return ((columns - middle) / 0.11) ** 2 + ((rows - 0.48) / 0.24) ** 2 < 1
