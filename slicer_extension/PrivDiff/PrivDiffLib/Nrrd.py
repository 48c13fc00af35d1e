"""An NRRD file of one grey image, written in memory: pixels and spacing, and nothing else."""

from __future__ import annotations

import gzip

import numpy as np

TYPES = {
    "u1": "uint8",
    "i1": "int8",
    "u2": "uint16",
    "i2": "int16",
    "u4": "uint32",
    "i4": "int32",
    "f4": "float",
    "f8": "double",
}


def encodeNrrd(pixels: np.ndarray, spacing: tuple[float, float]) -> bytes:
    """Return the file.

    Parameters
    ----------
    pixels
        Shape (rows, columns).
    spacing
        Of columns and rows in mm.
    """
    array = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    rows, columns = array.shape
    header = (
        "NRRD0004",
        f"type: {TYPES[array.dtype.str[1:]]}",
        "dimension: 2",
        f"sizes: {columns} {rows}",
        f"spacings: {spacing[0]:.9g} {spacing[1]:.9g}",
        "endian: little",
        "encoding: gzip",
        "",
        "",
    )
    return "\n".join(header).encode("ascii") + gzip.compress(array.tobytes(), mtime=0)
