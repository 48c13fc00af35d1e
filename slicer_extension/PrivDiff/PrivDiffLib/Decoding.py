"""Received bytes become a volume of the scene, through the reader that read the original."""

from __future__ import annotations

import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from .Originals import dicomRange
from .privdiff_client import UnexpectedAnswer

SINGLE_FILE = 4
"""Option of `AddArchetypeVolume`: files beside it are no slices of it."""

SUFFIXES = ((b"\x89PNG", ".png"), (b"NRRD", ".nrrd"))
"""(magic bytes, suffix) of what is not DICOM."""


def addVolume(content: bytes, name: str) -> tuple[Any, tuple[float, float]]:
    """Return (volume, values that are shown as black and white) for a file in memory.

    The file lies in a private temporary folder while it is read, and nowhere afterwards.

    Raises
    ------
    UnexpectedAnswer
        If it is no image.
    """
    suffix = next((end for magic, end in SUFFIXES if content.startswith(magic)), ".dcm")
    with tempfile.TemporaryDirectory(prefix="privdiff-") as folder:
        path = Path(folder) / f"image{suffix}"
        path.write_bytes(content)
        if suffix == ".png":
            return _addPng(str(path), name)
        volume = slicer.modules.volumes.logic().AddArchetypeVolume(str(path), name, SINGLE_FILE)
    if volume is None:
        raise _noImage()
    _forgetFile(volume)
    known = dicomRange(BytesIO(content)) if suffix == ".dcm" else (0.0, 1.0)
    array = slicer.util.arrayFromVolume(volume)
    return volume, known or (float(array.min()), float(array.max()))


def _addPng(path: str, name: str) -> tuple[Any, tuple[float, float]]:
    """Read a PNG; vtkPNGReader keeps the lowest row first."""
    reader = vtk.vtkPNGReader()
    reader.SetFileName(path)
    reader.Update()
    image = reader.GetOutput()
    columns, rows, _slices = image.GetDimensions()
    if not columns or not rows or image.GetPointData().GetScalars() is None:
        raise _noImage()
    scalars = vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    first = scalars.reshape(rows, columns, -1)[::-1, :, 0]
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(volume, np.ascontiguousarray(first)[np.newaxis])
    volume.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)
    volume.CreateDefaultDisplayNodes()
    return volume, (0.0, float(np.iinfo(first.dtype).max))


def _forgetFile(volume: Any) -> None:
    """Take the storage node away: it names a temporary file that is gone."""
    storage = volume.GetStorageNode()
    volume.SetAndObserveStorageNodeID(None)
    if storage is not None:
        slicer.mrmlScene.RemoveNode(storage)


def _noImage() -> UnexpectedAnswer:
    return UnexpectedAnswer(_("what the server sent is no image"), _("redraw the image"))
