"""Smooth radiograph-like pictures with letters of known strokes, for tests of the text step."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WORDS = "DOE JANE 12.03.1957"


def smooth_picture(shape: tuple[int, int] = (480, 512), seed: int = 0) -> np.ndarray:
    """Return a picture without text, shape `shape`, float32 in [0.2, 0.8]."""
    coarse = np.random.default_rng(seed).random((6, 5)).astype(np.float32)
    smooth = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
    return np.clip(np.asarray(smooth), 0, 1) * 0.6 + 0.2


def lettered(
    picture: np.ndarray,
    words: str = WORDS,
    *,
    size: int = 24,
    place: tuple[int, int] = (40, 60),
    contrast: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture with letters at (row, column), and the part of each pixel they cover."""
    strokes = Image.new("L", picture.shape[::-1])
    font = ImageFont.load_default(size)
    ImageDraw.Draw(strokes).text(place[::-1], words, fill=255, font=font)
    cover = np.asarray(strokes, np.float32) / 255
    return np.clip(picture + contrast * cover, 0, 1), cover
