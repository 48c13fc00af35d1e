"""Text burned into the stored pixels of a DICOM object of any modality."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset

from privdiff_infer.errors import ImageHeld
from privdiff_infer.radiograph import MAX_PIXELS

if TYPE_CHECKING:
    from privdiff_infer.burned_in_text import (  # type: ignore[import-not-found,unused-ignore]
        TextBox,
        TextDetector,
    )

UNSEARCHED = (
    "the pixels cannot be searched for burned-in text",
    "export the file again uncompressed, or give --accept-unchecked-text",
)

GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420"})
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def has_pixels(dataset: Dataset) -> bool:
    """Tell whether an object holds an image."""
    return any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))


def remove_burned_in_text(dataset: Dataset, detector: TextDetector) -> int:
    """Fill every box of text in every frame; return how many there were.

    Pixels in which there is none stay as they are stored. Others are stored anew, uncompressed and
    without what compression or the photometric interpretation made of colours.

    Parameters
    ----------
    dataset
        With pixels; changed if there is text.
    detector
        Finds text.

    Raises
    ------
    ImageHeld
        If the pixels cannot be decoded, are of a kind that is not searched (palettes, numbers of
        floating point), or text stays.
    """
    frames = _frames(dataset)
    boxes = [_boxes(frame, dataset, detector) for frame in frames]
    if any(boxes):
        for frame, found in zip(frames, boxes, strict=True):
            _fill(frame, found)
        _store(dataset, frames)
    return sum(len(found) for found in boxes)


def _frames(dataset: Dataset) -> np.ndarray:
    """Return stored values, shape (frames, rows, columns, samples); colours are RGB."""
    interpretation = dataset.get("PhotometricInterpretation")
    if "PixelData" not in dataset or interpretation not in GREY | COLOUR:
        raise ImageHeld(*UNSEARCHED, detail=f"photometric interpretation {interpretation}")
    _check_size(dataset)
    try:
        stored = dataset.pixel_array
    except Exception as error:  # decoders raise whatever their C code reports
        raise ImageHeld(*UNSEARCHED, detail=type(error).__name__) from error
    samples = 1 if interpretation in GREY else 3
    return np.array(stored).reshape(-1, int(dataset.Rows), int(dataset.Columns), samples)


def _check_size(dataset: Dataset) -> None:
    try:
        pixels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames") or 1)
    except (AttributeError, TypeError, ValueError) as error:
        raise ImageHeld(*UNSEARCHED, detail="no rows or columns") from error
    if not 0 < pixels <= MAX_PIXELS:
        raise ImageHeld(*UNSEARCHED, detail=f"{pixels} pixels")


def _boxes(frame: np.ndarray, dataset: Dataset, detector: TextDetector) -> tuple[TextBox, ...]:
    from privdiff_infer.burned_in_text import remove_text

    grey = frame[..., 0] if frame.shape[-1] == 1 else frame @ LUMINANCE
    seen, _, _ = _to_unit(grey)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        seen = 1 - seen
    _, found = remove_text(seen, detector)
    return found


def _fill(frame: np.ndarray, boxes: tuple[TextBox, ...]) -> None:
    """Continue what is around the boxes into them, sample by sample, in place."""
    from privdiff_infer.burned_in_text import fill

    for sample in range(frame.shape[-1] if boxes else 0):
        plane = frame[..., sample]
        unit, low, scale = _to_unit(plane)
        filled = fill(unit, boxes)
        changed = filled != unit
        plane[changed] = np.round(filled[changed].astype(np.float64) * scale + low)


def _to_unit(plane: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return values in [0, 1], and the least value and the range that give them back."""
    low, high = float(plane.min()), float(plane.max())
    scale = max(high - low, 1.0)
    return ((plane - low) / scale).astype(np.float32), low, scale


def _store(dataset: Dataset, frames: np.ndarray) -> None:
    colour = frames.shape[-1] == 3
    pixels = frames.squeeze(-1) if not colour else frames
    pixels = pixels[0] if len(pixels) == 1 else pixels
    dataset.set_pixel_data(
        np.ascontiguousarray(pixels),
        "RGB" if colour else dataset.PhotometricInterpretation,
        dataset.BitsStored,
        generate_instance_uid=False,
    )
