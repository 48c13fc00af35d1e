"""NIfTI and NRRD files of one slice, read by SimpleITK."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from privdiff_infer.errors import ImageRejected
from privdiff_infer.radiograph import Decoded, SourceFormat, check_size

GZIP_SIGNATURE = b"\x1f\x8b"
NRRD_SIGNATURE = b"NRRD00"
NIFTI_MAGIC = {b"n+1\x00", b"ni1\x00"}
NIFTI_MAGIC_OFFSET = 344


def recognizes(content: bytes) -> bool:
    """Tell whether a file is NRRD or NIfTI, plain or compressed."""
    return (
        content.startswith((NRRD_SIGNATURE, GZIP_SIGNATURE))
        or content[NIFTI_MAGIC_OFFSET : NIFTI_MAGIC_OFFSET + 4] in NIFTI_MAGIC
    )


def decode(content: bytes) -> Decoded:
    """Decode a 2-D image, or a volume of one slice.

    Raises
    ------
    ImageRejected
        If the file is damaged, has several slices or channels, or holds NaN or infinite values.
    """
    is_nrrd = content.startswith(NRRD_SIGNATURE)
    image = _read(content, ".nrrd" if is_nrrd else _nifti_suffix(content))
    image = _as_viewers_show(image)
    array = np.squeeze(sitk.GetArrayFromImage(image)).astype(np.float64)
    if not np.isfinite(array).all():
        raise ImageRejected("the image holds NaN or infinite values", "export it again")
    low, high = float(array.min()), float(array.max())
    scaled = (array - low) / (high - low) if high > low else np.zeros_like(array)
    column, row = _plane_spacing(image)
    return Decoded(
        pixels=np.ascontiguousarray(scaled, dtype=np.float32),
        spacing_mm=(row, column) if row > 0 and column > 0 else None,
        source_format=SourceFormat.NRRD if is_nrrd else SourceFormat.NIFTI,
        bits_stored=8 * np.dtype(sitk.GetArrayViewFromImage(image).dtype).itemsize,
    )


def _as_viewers_show(image: sitk.Image) -> sitk.Image:
    """Turn the axes so that columns run to the patient's left and rows downwards on a screen.

    Downwards is to the feet in a coronal plane and to the back in an axial one, which is where
    converters put images that have no plane.
    """
    if image.GetDimension() == 3:
        return sitk.DICOMOrient(image, "LPI")
    direction = image.GetDirection()
    if image.GetDimension() != 2:
        return image
    return sitk.Flip(image, [direction[0] < 0, direction[3] < 0])


def _plane_spacing(image: sitk.Image) -> tuple[float, float]:
    """Return (column, row) spacing of the axes that have more than one element."""
    spacing = [
        float(step)
        for step, size in zip(image.GetSpacing(), image.GetSize(), strict=True)
        if size > 1
    ]
    return spacing[0], spacing[1]


def _nifti_suffix(content: bytes) -> str:
    return ".nii.gz" if content.startswith(GZIP_SIGNATURE) else ".nii"


def _read(content: bytes, suffix: str) -> sitk.Image:
    """Read through a temporary file, since SimpleITK reads files only; header and size first."""
    with tempfile.TemporaryDirectory(prefix="privdiff-") as folder:
        path = Path(folder) / f"image{suffix}"
        path.write_bytes(content)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
            _check_header(reader)
            return reader.Execute()
        except RuntimeError as error:
            raise ImageRejected(
                "the NIfTI or NRRD file is damaged, cut off or of an unknown kind",
                "export it again",
            ) from error


def _check_header(reader: sitk.ImageFileReader) -> None:
    extents = [extent for extent in reader.GetSize() if extent != 1]
    if len(extents) > 2:
        shape = " x ".join(map(str, extents))
        raise ImageRejected(f"the volume has {shape} elements", "export a single slice")
    if reader.GetNumberOfComponents() != 1:
        raise ImageRejected(
            f"the image has {reader.GetNumberOfComponents()} channels", "use a grey image"
        )
    columns, rows = [*extents, 1, 1][:2]
    check_size(rows, columns)
