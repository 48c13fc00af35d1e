"""What is sent of an image of the scene: the original DICOM file, else the pixels alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from .Cases import Original
from .Nrrd import TYPES, encodeNrrd
from .privdiff_client import OptionError

INSTANCES = "DICOM.instanceUIDs"


class DicomDatabase(Protocol):
    """Where imported DICOM files are; `slicer.dicomDatabase` behind one method."""

    def fileOf(self, instanceUID: str) -> str:
        """Return the path of an instance, or nothing."""


class SlicerDicomDatabase:
    """The database of the application."""

    def fileOf(self, instanceUID: str) -> str:
        """Return the path of an instance, or nothing."""
        return str(slicer.dicomDatabase.fileForInstance(instanceUID) or "")


def readOriginal(volume: Any, database: DicomDatabase) -> Original:
    """Return what is sent of a volume.

    A volume that came from DICOM is sent as the file that was imported: the reader of Slicer turns
    MONOCHROME1 around and passes over some spacings. Any other one is sent as NRRD without names.

    Raises
    ------
    OptionError
        If it cannot be sent.
    """
    instances = (volume.GetAttribute(INSTANCES) or "").split()
    if not instances:
        return _pixelsOf(volume)
    if len(instances) > 1:
        raise OptionError(
            _("this volume is made of several DICOM files"), _("load one radiograph at a time")
        )
    path = database.fileOf(instances[0])
    if not path or not Path(path).is_file():
        raise OptionError(
            _("the DICOM file of this image is no longer in the database"),
            _("import it again in the DICOM module"),
        )
    try:
        with Path(path).open("rb") as file:
            shown = dicomRange(file)
    except OSError:
        raise OptionError(
            _("the DICOM file of this image cannot be read"), _("check that it may be read")
        ) from None
    return Original(Path(path), shown or pixelRange(volume))


def pixelRange(volume: Any) -> tuple[float, float]:
    """Return the smallest and the largest value of a volume."""
    array = slicer.util.arrayFromVolume(volume)
    return float(array.min()), float(array.max())


def dicomRange(file: BinaryIO) -> tuple[float, float] | None:
    """Return the values that are shown as black and white, as Slicer's reader gives them.

    None where the file has no window, or a table in its place.
    """
    import pydicom

    dataset = pydicom.dcmread(file, force=True, stop_before_pixels=True)
    center, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if center is None or width is None or width < 1 or "VOILUTSequence" in dataset:
        return None
    # PS3.3 C.11.2.1.2.1: a LINEAR window runs from c - 0.5 - (w - 1) / 2 to c - 0.5 + (w - 1) / 2.
    isLinear = str(dataset.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR"
    half, middle = ((width - 1) / 2, center - 0.5) if isLinear else (width / 2, center)
    low, high = middle - half, middle + half
    if high <= low:
        return None
    if dataset.get("PhotometricInterpretation") != "MONOCHROME1":
        return low, high
    # The reader turns stored values s into largest - s before it rescales them.
    slope, intercept = _first(dataset, "RescaleSlope"), _first(dataset, "RescaleIntercept")
    turned = _largest(dataset) * (1.0 if slope is None else slope) + 2 * (intercept or 0.0)
    return turned - high, turned - low


def orientation(volume: Any) -> tuple[bool, bool]:
    """Return whether (rows, columns) of a volume run against those of the screen.

    On the screen columns run to the patient's left, and rows to the feet or to the back.

    Raises
    ------
    OptionError
        If the axes are exchanged: the picture would lie on its side.
    """
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASDirectionMatrix(matrix)
    column = [matrix.GetElement(axis, 0) for axis in range(3)]
    row = [matrix.GetElement(axis, 1) for axis in range(3)]
    if int(np.argmax(np.abs(column))) != 0:
        raise OptionError(
            _("the rows of this image do not run from right to left of the patient"),
            _("give it an axial or coronal orientation, for instance in the module Volumes"),
        )
    downwards = row[int(np.argmax(np.abs(row)))] < 0
    return not downwards, column[0] > 0


def turned(array: np.ndarray, flips: tuple[bool, bool]) -> np.ndarray:
    """Return an array with its flips done, or undone."""
    rows, columns = (slice(None, None, -1 if flip else 1) for flip in flips)
    return array[rows, columns]


def _pixelsOf(volume: Any) -> Original:
    array = slicer.util.arrayFromVolume(volume)
    if array.ndim != 3 or array.shape[0] != 1:
        raise OptionError(
            _("this is no single grey image"), _("choose a radiograph: one slice, one component")
        )
    if array.dtype.str[1:] not in TYPES:
        array = array.astype(np.float32)
    flips = orientation(volume)
    spacing = volume.GetSpacing()
    # A copy: the user may change the volume before the thread comes to it.
    pixels = turned(array[0], flips).copy()
    upload = partial(encodeNrrd, pixels, (spacing[0], spacing[1]))
    return Original(upload, (float(array.min()), float(array.max())), flips)


def _first(dataset: Any, keyword: str) -> float | None:
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    if isinstance(value, (list, tuple)) or hasattr(value, "append"):
        return float(value[0]) if len(value) else None
    return float(value)


def _largest(dataset: Any) -> float:
    bits = int(dataset.get("BitsStored", 16))
    return float(2**bits - 1) if not dataset.get("PixelRepresentation") else -1.0
