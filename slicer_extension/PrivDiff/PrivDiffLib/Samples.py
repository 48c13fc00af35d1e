"""Sample images: radiographs of nobody, drawn by the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from .Decoding import SINGLE_FILE


def addSamples(folder: str) -> list[Any]:
    """Put all samples of a folder into the scene; return their volumes."""
    volumes = []
    for number, path in enumerate(sorted(Path(folder).glob("*.nrrd")), 1):
        name = f"Sample {number}"
        logic = slicer.modules.volumes.logic()
        volumes.append(logic.AddArchetypeVolume(str(path), name, SINGLE_FILE))
    return volumes
