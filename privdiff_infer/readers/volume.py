"""NIfTI and NRRD files of one slice, read by SimpleITK."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from privdiff_infer.errors import ImageRejected
from privdiff_infer.file_formats import SourceFormat
from privdiff_infer.radiograph import Decoded, check_size
from privdiff_infer.readers.quiet import silence_itk
from privdiff_infer.readers.volume_headers import (
    GZIP_SIGNATURE,
    NIFTI_MAGIC_OFFSET,
    NIFTI_PAIR,
    NIFTI_SINGLE,
    VolumeFile,
    nifti_file,
    nrrd_file,
)

NRRD_SIGNATURE = b"NRRD00"


def recognizes(content: bytes) -> bool:
    """Tell whether a file is NRRD or NIfTI, plain or compressed."""
    return content.startswith((NRRD_SIGNATURE, GZIP_SIGNATURE)) or content[
        NIFTI_MAGIC_OFFSET : NIFTI_MAGIC_OFFSET + 4
    ] in {NIFTI_SINGLE, NIFTI_PAIR}


def decode(content: bytes) -> Decoded:
    """Decode a 2-D image, or a volume of one slice.

    Raises
    ------
    ImageRejected
        If the file is damaged, names other files, has several slices or channels, or holds NaN or
        infinite values.
    """
    is_nrrd = content.startswith(NRRD_SIGNATURE)
    file = nrrd_file(content) if is_nrrd else nifti_file(content)
    image = _as_viewers_show(_read(file))
    array = np.squeeze(sitk.GetArrayFromImage(image)).astype(np.float64)
    if not np.isfinite(array).all():
        raise ImageRejected("the image holds NaN or infinite values", "export it again")
    low, high = float(array.min()), float(array.max())
    scaled = (array - low) / (high - low) if high > low else np.zeros_like(array)
    return Decoded(
        pixels=np.ascontiguousarray(scaled, dtype=np.float32),
        spacing_mm=_plane_spacing(image) if file.states_spacing else None,
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
    if image.GetDimension() != 2:
        return image
    if abs(image.GetDirection()[0]) < abs(image.GetDirection()[2]):  # the first axis runs downwards
        image = sitk.PermuteAxes(image, [1, 0])
    direction = image.GetDirection()
    return sitk.Flip(image, [direction[0] < 0, direction[3] < 0])


def _plane_spacing(image: sitk.Image) -> tuple[float, float]:
    """Return (row, column) spacing of the axes that have more than one element."""
    column, row = (
        float(step)
        for step, size in zip(image.GetSpacing(), image.GetSize(), strict=True)
        if size > 1
    )
    return row, column


def _read(file: VolumeFile) -> sitk.Image:
    """Read through a temporary file, since SimpleITK reads files only; header and size first."""
    silence_itk()
    with tempfile.TemporaryDirectory(prefix="privdiff-") as folder:
        path = Path(folder) / f"image{file.suffix}"
        path.write_bytes(file.content)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
            _check_header(reader)
            return reader.Execute()
        except RuntimeError as error:
            raise ImageRejected(
                "the NIfTI or NRRD file is damaged, cut off or of an unknown kind",
                "copy or export it again",
            ) from error


def _check_header(reader: sitk.ImageFileReader) -> None:
    extents = [extent for extent in reader.GetSize() if extent != 1]
    if len(extents) > 2:
        raise ImageRejected(
            "the volume has several slices",
            "export a single slice",
            detail=f"{' x '.join(map(str, extents))} elements",
        )
    channels = reader.GetNumberOfComponents()
    if channels != 1:
        raise ImageRejected(
            "the image has several channels", "use a grey image", detail=f"{channels} channels"
        )
    columns, rows = [*extents, 1, 1][:2]
    check_size(rows, columns)
