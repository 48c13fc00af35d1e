"""One chest X-ray in memory, and how it is read.

Intensity convention, the same everywhere in this project: float32 in [0, 1], 0 = black = air
(MONOCHROME2 sense). For DICOM the range is that of the VOI transformation that the file asks for; a
file without one, and every other format, is scaled from its smallest to its largest stored value,
padding left out - except 8- and 16-bit raster images, whose whole range is the display range.

Spacing is what a file states of its pixels, never a default: PNG and JPEG have none, since their
resolution is one of print.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from privdiff_infer.errors import ImageRejected
from privdiff_infer.file_formats import SourceFormat
from privdiff_infer.vocabulary import Sex

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_FILE_BYTES = 512 * 2**20
MAX_SIDE = 20_000
MAX_PIXELS = 100_000_000
MIN_SIDE = 64


@dataclass(frozen=True)
class HeaderFacts:
    """What a header says of the image and the patient; None where it says nothing."""

    modality: str | None = None
    body_part: str | None = None
    view_position: str | None = None
    sex: Sex | None = None
    age_years: float | None = None


@dataclass(frozen=True)
class Decoded:
    """What a reader returns: pixels in the convention of this module, and facts."""

    pixels: np.ndarray
    spacing_mm: tuple[float, float] | None
    source_format: SourceFormat
    bits_stored: int
    sop_instance_uid: str | None = None
    header: HeaderFacts = HeaderFacts()
    dataset: Dataset | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Radiograph:
    """One chest X-ray.

    Attributes
    ----------
    pixels
        Shape (rows, columns), float32 in [0, 1], 0 = black = air (MONOCHROME2 sense).
    spacing_mm
        (row, column) distance of pixel centres in mm, or None where the file has none.
    digest
        SHA-256 of the file's bytes, hexadecimal.
    source_format
        File family.
    bits_stored
        Bits of a stored value.
    sop_instance_uid
        Of a DICOM source; private, for the crosswalk only.
    header
        Facts of the header.
    dataset
        All attributes of a DICOM source but its pixels; private, what of it may leave is decided by
        `dicom.confidentiality`.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float] | None
    digest: str
    source_format: SourceFormat
    bits_stored: int
    sop_instance_uid: str | None = field(repr=False)
    header: HeaderFacts
    dataset: Dataset | None = field(default=None, repr=False)


def read_radiograph(path: Path) -> Radiograph:
    """Read one file; its format is told by its content, not by its name.

    Raises
    ------
    ImageRejected
        If the file cannot be read as one radiograph. The message does not name the file, whose name
        can hold a patient's.
    ImageHeld
        If it can be read but is, by its header, no frontal chest radiograph.
    """
    return decode_radiograph(read_file(path))


def decode_radiograph(content: bytes) -> Radiograph:
    """Decode the bytes of one file, so that the digest and the pixels belong to the same bytes.

    Raises
    ------
    ImageRejected, ImageHeld
        As `read_radiograph`.
    """
    decoded = _decode(content)
    _check_pixels(decoded)
    return Radiograph(
        pixels=decoded.pixels,
        spacing_mm=decoded.spacing_mm,
        digest=hashlib.sha256(content).hexdigest(),
        source_format=decoded.source_format,
        bits_stored=decoded.bits_stored,
        sop_instance_uid=decoded.sop_instance_uid,
        header=decoded.header,
        dataset=decoded.dataset,
    )


def check_size(rows: int, columns: int) -> None:
    """Refuse absurd dimensions; readers call this before they allocate pixels.

    Raises
    ------
    ImageRejected
        If a side is too short or too long, or there are too many pixels.
    """
    size = f"{columns} x {rows} pixels"
    if rows < 1 or columns < 1:
        raise ImageRejected("the image has no rows or no columns", "export it again", detail=size)
    if min(rows, columns) < MIN_SIDE:
        raise ImageRejected(
            f"the image has fewer than {MIN_SIDE} pixels a side",
            "use the full-resolution image",
            detail=size,
        )
    if max(rows, columns) > MAX_SIDE or rows * columns > MAX_PIXELS:
        raise ImageRejected(
            f"the image claims more than {MAX_SIDE} pixels a side or {MAX_PIXELS} in all",
            "check the file or reduce it",
            detail=size,
        )


def read_file(path: Path) -> bytes:
    """Return the bytes of one file of a size that can be read.

    Raises
    ------
    ImageRejected
        If there are none, too many, or no permission to read them. The message does not name the
        file.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ImageRejected("this is a folder, not an image", "name the files in it")
        if size == 0:
            raise ImageRejected("the file is empty (0 bytes)", "copy or export it again")
        if size > MAX_FILE_BYTES:
            raise ImageRejected(
                f"the file has more than {MAX_FILE_BYTES} bytes",
                "name single images",
                detail=f"{size} bytes",
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageRejected("the file does not exist", "check the path") from error
    except PermissionError as error:
        raise ImageRejected("no permission to read the file", "give read permission") from error
    except OSError as error:
        raise ImageRejected(
            "the file cannot be read",
            "check the disk or the network share",
            detail=error.strerror or type(error).__name__,
        ) from error


def _decode(content: bytes) -> Decoded:
    # Imported on use: each reader loads libraries that the others do not need.
    from privdiff_infer.readers import dicom, raster, volume

    for reader in (dicom, raster, volume):
        if reader.recognizes(content):
            return reader.decode(content)
    raise ImageRejected(
        "this is not an image that can be read", "use DICOM, PNG, JPEG, NIfTI or NRRD"
    )


def _check_pixels(decoded: Decoded) -> None:
    pixels = decoded.pixels
    try:
        check_size(*pixels.shape)
        if float(pixels.min()) == float(pixels.max()):
            raise ImageRejected(
                "the image is constant: every pixel has the same value", "export it again"
            )
    except ImageRejected as error:
        error.sop_instance_uid = decoded.sop_instance_uid or ""
        raise
