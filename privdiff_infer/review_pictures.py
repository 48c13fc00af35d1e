"""Pictures for the private review: original, anonymized and their difference."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from privdiff_infer.burned_in_text import TextBox
from privdiff_infer.image_files import to_8_bit
from privdiff_infer.release import write_private

SIDE = 512
"""Longest side of a review picture in pixels."""

DARKER = np.array([33, 102, 172], np.float64)  # blue: darker than the original
LIGHTER = np.array([178, 24, 43], np.float64)  # red: lighter than the original
NEUTRAL = np.array([247, 247, 247], np.float64)
KINDS = ("original", "anonymized", "difference")
BOX_COLOURS = {"text": "#d97706", "marker": "#0e9488"}
"""Outlines on the original: text that was filled, and side markers among it."""


def write_review_pictures(
    folder: Path,
    name: str,
    original: np.ndarray,
    anonymized: np.ndarray,
    boxes: Sequence[TextBox] = (),
) -> None:
    """Write three PNG files named ``name-kind.png``.

    Parameters
    ----------
    folder
        In private/.
    name
        Name of the result.
    original, anonymized
        Shape (rows, columns), float32 in [0, 1]; resampled to one matrix for comparing.
    boxes
        Text that was found, in pixels of the original, which is shown with their outlines.
    """
    first = _shown(original)
    second = _resampled(anonymized, (first.shape[0], first.shape[1]))
    scale = first.shape[0] / original.shape[0], first.shape[1] / original.shape[1]
    pictures = (
        _outlined(to_8_bit(first), boxes, scale),
        to_8_bit(second),
        difference_colours(second - first),
    )
    for kind, picture in zip(KINDS, pictures, strict=True):
        write_private(folder / f"{name}-{kind}.png", _png(picture))


def difference_colours(difference: np.ndarray) -> np.ndarray:
    """Return a diverging colour map of differences in [-1, 1], shape (rows, columns, 3), uint8.

    White is no change, red lighter and blue darker than the original; saturates at half the range.
    """
    amount = np.clip(np.abs(difference) * 2, 0, 1)[..., None]
    towards = np.where((difference > 0)[..., None], LIGHTER, DARKER)
    return np.round(NEUTRAL * (1 - amount) + towards * amount).astype(np.uint8)


def _outlined(
    picture: np.ndarray, boxes: Sequence[TextBox], scale: tuple[float, float]
) -> np.ndarray:
    image = Image.fromarray(picture).convert("RGB")
    draw = ImageDraw.Draw(image)
    for box in boxes:
        corners = [(column * scale[1], row * scale[0]) for row, column in box.corners]
        colour = BOX_COLOURS["marker" if box.is_marker else "text"]
        draw.line([*corners, corners[0]], fill=colour, width=2)
    return np.asarray(image)


def _shown(pixels: np.ndarray) -> np.ndarray:
    scale = SIDE / max(pixels.shape)
    rows, columns = (max(1, round(side * scale)) for side in pixels.shape)
    return _resampled(pixels, (rows, columns))


def _resampled(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(to_8_bit(pixels))
    resized = image.resize((shape[1], shape[0]), Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.float32) / 255


def _png(picture: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
