"""Invented names, dates and numbers written onto radiographs, with the strokes known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONTS = (
    "",  # that of Pillow
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSerif.ttf",
)
FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
NAMES = ("DOE JANE", "Mueller, Hans", "SMITH^ANNA", "O'NEIL P", "Garcia Lopez M", "KIM S. H.")
ROTATIONS = (0, 0, 0, 90, -12, 5, 20)  # degrees; most text is upright
TRIES = 50
ROOM = 2
"""Pixels between text and the border of the image."""


@dataclass(frozen=True)
class Lettered:
    """An image with text.

    Attributes
    ----------
    pixels
        Shape (rows, columns), float32 in [0, 1], 0 = black.
    strokes
        Part of each pixel that a letter covers, same shape.
    rotation
        Of the text, in degrees.
    """

    pixels: np.ndarray
    strokes: np.ndarray
    rotation: int


def write_text(
    pixels: np.ndarray, size: int, contrast: float, rng: np.random.Generator
) -> Lettered | None:
    """Write one invented text where it has the wanted contrast, brighter or darker.

    Parameters
    ----------
    pixels
        Shape (rows, columns), float32 in [0, 1].
    size
        Of the font, in pixels.
    contrast
        Difference of the letters to the median of what they cover, of the range [0, 1].
    rng
        Draws words, font, rotation, place and sign.

    Returns
    -------
    Lettered or None
        None if no place was found in which the text fits and the contrast is possible.
    """
    for _ in range(TRIES):
        rotation = int(rng.choice(ROTATIONS))
        letters = _letters(_words(rng), size, rotation, rng)
        room = np.array(pixels.shape) - letters.shape - 2 * ROOM
        if room.min() < 1:
            continue
        top, left = rng.integers(room) + ROOM
        place = slice(top, top + letters.shape[0]), slice(left, left + letters.shape[1])
        behind = float(np.median(pixels[place][letters > 0.5]))
        level = behind + contrast * rng.choice((-1, 1))
        if 0 <= level <= 1:
            strokes = np.zeros_like(pixels)
            strokes[place] = letters
            written = pixels * (1 - strokes) + np.float32(level) * strokes
            return Lettered(written, strokes, rotation)
    return None


def _words(rng: np.random.Generator) -> str:
    name = str(rng.choice(NAMES))
    date = f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.{rng.integers(1925, 2005)}"
    return str(rng.choice((name, date, f"ID {rng.integers(10**6, 10**7)}", f"{name} {date}")))


def _letters(words: str, size: int, rotation: int, rng: np.random.Generator) -> np.ndarray:
    name = str(rng.choice(FONTS))
    font = ImageFont.truetype(FOLDER / name, size) if name else ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(words)
    image = Image.new("L", (math.ceil(right - left) + 2, math.ceil(bottom - top) + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), words, font=font, fill=255)
    turned = image.rotate(rotation, Image.Resampling.BICUBIC, expand=True)
    return np.asarray(turned, np.float32) / 255
