"""DICOM radiographs of nobody, from the embedded sample that our own model drew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SAMPLE = Path(__file__).resolve().parents[2] / "privdiff_infer" / "sample"


def drawn(number: int, *, inverted: bool = False) -> dict[str, Any]:
    """Return attributes of a 12-bit radiograph with a window; inverted for MONOCHROME1.

    Parameters
    ----------
    number
        Of the sample, from 1 to 8.
    inverted
        Whether stored values run from white to black.
    """
    grey = np.asarray(Image.open(SAMPLE / f"drawn-{number}.png"), dtype=np.float64) / 255
    stored = np.round((1 - grey if inverted else grey) * 4095).astype(np.uint16)
    return {
        "stored": stored,
        "PhotometricInterpretation": "MONOCHROME1" if inverted else "MONOCHROME2",
        "WindowCenter": "2048",
        "WindowWidth": "4096",
        "ImagerPixelSpacing": [1.4, 1.4],
    }
