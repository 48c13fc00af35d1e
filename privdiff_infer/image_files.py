"""Formats of results; PNG of 8 or 16 bits and NRRD, with the same bytes for the same pixels.

DICOM results have more than pixels and are written by `dicom.derived`.
"""

from __future__ import annotations

import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from privdiff_infer.file_formats import OutputFormat


def encode_image(
    pixels: np.ndarray, spacing_mm: tuple[float, float] | None, output_format: OutputFormat
) -> bytes:
    """Return the bytes of an image file that holds pixels and spacing and nothing else.

    Parameters
    ----------
    pixels
        Shape (rows, columns), float32 in [0, 1].
    spacing_mm
        (row, column) spacing, or None.
    output_format
        PNG or NRRD.
    """
    if output_format is OutputFormat.NRRD:
        return _nrrd(pixels, spacing_mm)
    if output_format is OutputFormat.PNG16:
        return _png(Image.fromarray(np.round(pixels * 65535).astype(np.uint16)), spacing_mm)
    return _png(Image.fromarray(to_8_bit(pixels)), spacing_mm)


def decode_nrrd(content: bytes) -> tuple[np.ndarray, tuple[float, float]]:
    """Return pixels and spacing of a result that `encode_image` wrote, as they were.

    Sources are scaled to their range instead, see `radiograph`.
    """
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory(prefix="privdiff-") as folder:
        path = Path(folder) / "image.nrrd"
        path.write_bytes(content)
        image = sitk.ReadImage(str(path))
    column, row = image.GetSpacing()
    return sitk.GetArrayFromImage(image), (row, column)


def to_8_bit(pixels: np.ndarray) -> np.ndarray:
    """Return pixels in [0, 1] as uint8."""
    return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _png(image: Image.Image, spacing_mm: tuple[float, float] | None) -> bytes:
    """Encode a PNG; its pHYs chunk holds whole pixels per metre."""
    buffer = BytesIO()
    dpi = (25.4 / spacing_mm[1], 25.4 / spacing_mm[0]) if spacing_mm else None
    options = {"dpi": dpi} if dpi else {}
    image.save(buffer, "PNG", pnginfo=PngInfo(), **options)
    return buffer.getvalue()


def _nrrd(pixels: np.ndarray, spacing_mm: tuple[float, float] | None) -> bytes:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(pixels.astype(np.float32))
    if spacing_mm:
        image.SetSpacing((spacing_mm[1], spacing_mm[0]))
    with tempfile.TemporaryDirectory(prefix="privdiff-") as folder:
        path = Path(folder) / "image.nrrd"  # SimpleITK writes to files only
        sitk.WriteImage(image, str(path), useCompression=True)
        return path.read_bytes()
