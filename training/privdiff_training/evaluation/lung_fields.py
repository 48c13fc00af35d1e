"""Where the lungs are in an upright frontal radiograph: thresholds and shapes, no network.

The slow changes of brightness are taken out, and Otsu's threshold parts dark from bright. On either
side of the middle the largest dark part that looks like a lung is taken: of plausible size, height
and place, compact, and apart from the edge of the image. Where the air of a lung hangs together
with that around the body, a lower threshold parts them; several are tried, from Otsu's downwards.

Limits. The fields are those of *air*: an opaque lung (effusion, consolidation, a white-out), the
part behind the heart and what lies below the domes are missed, and a gas-filled stomach may be
taken in. Rotated, cropped and badly exposed images fail more often; where no part looks like a
lung, there is no mask. Of 40 NIH images that were looked at, all had a mask, 33 of them of both
sides, and about six masks were far too small. So the overlap of two masks says whether the outline
of the air was kept; it is no measure of anatomy, and a mask is fit for nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import disk

BLUR = 0.008  # of the shorter side, as all lengths here
SLOW = 0.25  # changes that are slower than this are taken out
OPENING, CLOSING = 0.01, 0.025  # radius
CENTRE = (0.08, 0.92)  # the part of rows and columns that the threshold is taken from
STEPS = 12  # thresholds that are tried
PLAUSIBLE_AREA = (0.02, 0.25)  # of the image, for one lung
PLAUSIBLE_HEIGHT = 0.2  # least, of the rows
PLAUSIBLE_ROW = (0.2, 0.75)  # of the middle of a lung
PLAUSIBLE_COLUMN = (0.15, 0.85)
PLAUSIBLE_SOLIDITY = 0.75  # least part of the convex hull that is filled


def lung_fields(image: np.ndarray) -> np.ndarray | None:
    """Return the mask of the lung fields, or None where none is found.

    Parameters
    ----------
    image
        Shape (rows, columns), float in [0, 1], 0 = black = air, upright and frontal.

    Returns
    -------
    np.ndarray or None
        Shape of `image`, bool; at most one part on either side of the middle.
    """
    side = min(image.shape)
    smooth = ndimage.gaussian_filter(image.astype(float), BLUR * side)
    flat = smooth - ndimage.gaussian_filter(smooth, SLOW * side)
    rows, columns = (slice(*(round(part * length) for part in CENTRE)) for length in image.shape)
    centre = flat[rows, columns]
    if np.ptp(centre) < 1e-6:
        return None
    otsu = threshold_otsu(centre)
    thresholds = np.linspace(otsu, centre.min(), STEPS, endpoint=False)
    mask = np.zeros(image.shape, bool)
    middle = image.shape[1] // 2
    for half in (slice(None, middle), slice(middle, None)):
        lung = _lung(flat, thresholds, half)
        if lung is not None:
            mask |= lung
    if not mask.any():
        return None
    closed = ndimage.binary_closing(mask, disk(max(1, round(CLOSING * side))))
    return np.asarray(ndimage.binary_fill_holes(closed | mask))


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Return the overlap of two masks of one shape: 1 is equal, 0 apart; NaN if both are empty.

    Examples
    --------
    >>> dice(np.array([True, True, False, True]), np.array([False, True, False, False]))
    0.5
    """
    total = int(first.sum() + second.sum())
    return float(2 * (first & second).sum() / total) if total else float("nan")


def _lung(flat: np.ndarray, thresholds: np.ndarray, half: slice) -> np.ndarray | None:
    """Return the largest part of one half of the columns that looks like a lung."""
    best: Any = None
    opening = disk(max(1, round(OPENING * min(flat.shape))))
    for threshold in thresholds:
        dark = np.zeros(flat.shape, bool)
        dark[:, half] = ndimage.binary_opening(flat[:, half] < threshold, opening)
        parts = [part for part in regionprops(label(dark)) if _is_plausible(part, flat.shape)]
        largest = max(parts, key=lambda part: part.area, default=None)
        if largest is not None and (best is None or largest.area > best.area):
            best = largest
    if best is None:
        return None
    mask = np.zeros(flat.shape, bool)
    mask[tuple(best.coords.T)] = True
    return mask


def _is_plausible(part: Any, shape: tuple[int, ...]) -> bool:
    top, left, bottom, right = part.bbox
    low, high = PLAUSIBLE_AREA
    row, column = (middle / length for middle, length in zip(part.centroid, shape, strict=True))
    return (
        low * shape[0] * shape[1] <= part.area <= high * shape[0] * shape[1]
        and top > 0
        and left > 0
        and right < shape[1]
        and bottom - top >= PLAUSIBLE_HEIGHT * shape[0]
        and PLAUSIBLE_ROW[0] <= row <= PLAUSIBLE_ROW[1]
        and PLAUSIBLE_COLUMN[0] <= column <= PLAUSIBLE_COLUMN[1]
        and part.solidity >= PLAUSIBLE_SOLIDITY
    )
