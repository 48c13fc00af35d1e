"""Sample images: radiographs of nobody, drawn by the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from .Decoding import SINGLE_FILE

SAMPLE = "PrivDiff.Sample"
"""Attribute of samples: they show nobody."""


def sampleFiles(folder: str) -> list[Path]:
    """Return the files of all samples of a folder."""
    return sorted(Path(folder).glob("*.nrrd"))


def addSamples(folder: str) -> list[Any]:
    """Put all samples of a folder into the scene; return their volumes."""
    volumes = []
    for number, path in enumerate(sampleFiles(folder), 1):
        name = _("Sample {number}").format(number=number)
        logic = slicer.modules.volumes.logic()
        volume = logic.AddArchetypeVolume(str(path), name, SINGLE_FILE)
        volume.SetAttribute(SAMPLE, path.stem)
        volumes.append(volume)
    return volumes
