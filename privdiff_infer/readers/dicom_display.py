"""From the stored values of a DICOM image to displayed ones: modality LUT, VOI, photometric sense.

The order is that of the grayscale pipeline (PS3.4 N.2). Computed here and not by pydicom, whose
`apply_voi_lut` indexes tables with integers that overflow, turns images of a negative slope around
and scales to a range that its caller cannot know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset

from privdiff_infer.errors import ImageRejected
from privdiff_infer.readers.dicom_header import number, text

NARROWEST_RAMP = 1e-9
"""A LINEAR window of width 1 is a step (PS3.3 C.11.2.1.2.1); this stands in for its ramp of 0."""


def display_values(dataset: FileDataset, stored: np.ndarray) -> np.ndarray:
    """Return what a viewer shows.

    Parameters
    ----------
    dataset
        MONOCHROME1 or MONOCHROME2.
    stored
        Shape (rows, columns), integers.

    Returns
    -------
    numpy.ndarray
        Shape (rows, columns), float32 in [0, 1], 0 = black = air. The range is that of the VOI LUT
        or the window; without either, that of the values themselves, padding left out.

    Raises
    ------
    ImageRejected
        If a table or the rescaling makes no sense.
    """
    padding = _padding_mask(dataset, stored)
    values = _modality_values(dataset, stored)
    table, window = _table(dataset, "VOILUTSequence"), _window(dataset)
    if table is not None:
        shown = table.look_up(values) / table.largest
    elif window is not None:
        shown = window.apply(values)
    else:
        shown = _stretched(values, values[~padding])
    shown = np.clip(shown, 0, 1)
    if text(dataset, "PhotometricInterpretation") == "MONOCHROME1":
        shown = 1 - shown
    shown[padding] = 0  # padding is no tissue: black in either sense
    return shown.astype(np.float32)


def _modality_values(dataset: FileDataset, stored: np.ndarray) -> np.ndarray:
    """Return float64 values after the modality LUT or the rescaling (PS3.3 C.11.1)."""
    table = _table(dataset, "ModalityLUTSequence")
    if table is not None:
        return table.look_up(stored)
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    factor, offset = 1.0 if slope is None else slope, intercept or 0.0
    values = stored * factor + offset
    if factor == 0 or not np.isfinite(values).all():
        raise ImageRejected(
            "the rescale slope or intercept makes no sense",
            "export the file again",
            detail=f"slope {factor}, intercept {offset}",
        )
    return values


def _stretched(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    low, high = (float(kept.min()), float(kept.max())) if kept.size else (0.0, 0.0)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


@dataclass(frozen=True)
class _Window:
    """A VOI window (PS3.3 C.11.2.1.2); `function` is LINEAR, LINEAR_EXACT or SIGMOID."""

    center: float
    width: float
    function: str

    @property
    def is_usable(self) -> bool:
        """The widths that the standard allows; files also hold 0, with any center, for none."""
        narrowest = {"LINEAR": 1.0, "LINEAR_EXACT": 0.0, "SIGMOID": 0.0}.get(self.function)
        if narrowest is None or not (math.isfinite(self.center) and math.isfinite(self.width)):
            return False
        return self.width > 0 and self.width >= narrowest

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return values whose range [0, 1] is displayed."""
        if self.function == "SIGMOID":
            # 1 / (1 + exp(-4 u)) without its overflow
            return 0.5 + 0.5 * np.tanh(2 * (values - self.center) / self.width)
        if self.function == "LINEAR_EXACT":
            return (values - self.center) / self.width + 0.5
        return (values - (self.center - 0.5)) / max(self.width - 1, NARROWEST_RAMP) + 0.5


def _window(dataset: Dataset) -> _Window | None:
    """Return the first window, if there is a usable one."""
    center, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    if center is None or width is None:
        return None
    function = (text(dataset, "VOILUTFunction") or "LINEAR").upper()
    window = _Window(center, width, function)
    return window if window.is_usable else None


@dataclass(frozen=True)
class _Table:
    """A modality or VOI LUT (PS3.3 C.11.1.1, C.11.2.1.1).

    `entries` are uint16, for the inputs `first`, `first` + 1, ...; inputs beyond either end get the
    entry of that end. `largest` is the largest entry that its bits allow.
    """

    entries: np.ndarray
    first: int
    largest: float

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """Return float64 entries of the shape of `values`."""
        index = np.clip(np.rint(values - float(self.first)), 0, len(self.entries) - 1)
        return self.entries[index.astype(np.intp)].astype(np.float64)


def _table(dataset: FileDataset, keyword: str) -> _Table | None:
    """Return the first table of a sequence, if there is one with entries."""
    items = dataset.get(keyword)
    if not (items and items[0].get("LUTDescriptor") and items[0].get("LUTData")):
        return None
    count, first, bits = (int(value) for value in items[0].LUTDescriptor)
    count = count or 2**16  # PS3.3 C.11.1.1.1: 0 means 65536
    entries = _entries(items[0].LUTData, count, bits, little_endian=_is_little_endian(dataset))
    if not 1 <= bits <= 16 or len(entries) < count:
        raise ImageRejected(
            "a lookup table is shorter than it says, or of impossible depth",
            "export the file again",
            detail=f"{keyword}: {len(entries)} of {count} entries, {bits} bits",
        )
    if dataset.PixelRepresentation and first > 32767:  # written as US, meant as SS
        first -= 65536
    return _Table(entries[:count], first, float(2**bits - 1))


def _entries(data: object, count: int, bits: int, *, little_endian: bool) -> np.ndarray:
    """Return the entries as uint16.

    `data` are numbers (US) or the bytes of words (OW). Of 8-bit entries some writers pack two in a
    word, others waste a word on each; their number tells which.
    """
    if isinstance(data, bytes):
        words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little_endian else ">u2")
    else:
        words = np.atleast_1d(np.asarray(data)).astype(np.uint16)
    if bits <= 8 and len(words) < count:
        return words.astype("<u2").view(np.uint8).astype(np.uint16)
    return words.astype(np.uint16)


def _is_little_endian(dataset: FileDataset) -> bool:
    return dataset.original_encoding[1] is not False


def _padding_mask(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """Return where PixelPaddingValue (and its range, PS3.3 C.7.5.1.1.2) marks pixels as padding."""
    first = number(dataset, "PixelPaddingValue")
    if first is None:
        return np.zeros(stored.shape, dtype=bool)
    last = number(dataset, "PixelPaddingRangeLimit")
    ends = [_in_sign_of_pixels(dataset, end) for end in (first, first if last is None else last)]
    return (stored >= min(ends)) & (stored <= max(ends))


def _in_sign_of_pixels(dataset: Dataset, value: float) -> float:
    """Return a US or SS value in the sign of the pixels, whichever way the file encoded it."""
    if dataset.PixelRepresentation and value > 32767:
        return value - 65536
    if not dataset.PixelRepresentation and value < 0:
        return value + 65536
    return value
