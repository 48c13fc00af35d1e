"""What SimpleITK does not tell or refuse of NRRD and NIfTI files: read from the bytes themselves.

That a header names other files, that it states no spacing (SimpleITK returns 1 mm), that data is
missing (it returns zeros), and in which plane a 2-D NIfTI lies.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass

import numpy as np

from privdiff_infer.errors import ImageRejected
from privdiff_infer.radiograph import MAX_FILE_BYTES

GZIP_SIGNATURE = b"\x1f\x8b"
GZIP_WINDOW = 16 + zlib.MAX_WBITS

NRRD_DATA_FILE = re.compile(rb"[\r\n]data ?file:", re.IGNORECASE)
"""A line that names other files. Looked for in all bytes, not where we think the header ends."""

NIFTI_MAGIC_OFFSET = 344
NIFTI_SINGLE, NIFTI_PAIR = b"n+1\x00", b"ni1\x00"
NIFTI_HEADER_BYTES = 348
NIFTI_HEADER = np.dtype(
    {
        "names": ["sizeof_hdr", "dim", "datatype", "pixdim", "vox_offset", "srow"],
        "formats": ["<i4", "(8,)<i2", "<i2", "(8,)<f4", "<f4", "(3,4)<f4"],
        "offsets": [0, 40, 70, 76, 108, 280],
        "itemsize": NIFTI_HEADER_BYTES,
    }
)
"""The fields of nifti1.h that are needed here."""
NIFTI_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8, 128: 3}
"""Bytes of an element by `datatype` of nifti1.h: integers, floats and RGB24."""


@dataclass(frozen=True)
class VolumeFile:
    """Bytes that SimpleITK can read, and what it would not say.

    Attributes
    ----------
    content
        A whole file.
    suffix
        By which SimpleITK picks its reader.
    states_spacing
        Whether every axis of more than one element has a spacing.
    """

    content: bytes
    suffix: str
    states_spacing: bool


def nrrd_file(content: bytes) -> VolumeFile:
    """Look through an NRRD file.

    Raises
    ------
    ImageRejected
        If its data is in other files.
    """
    if NRRD_DATA_FILE.search(content):
        raise ImageRejected(
            "the NRRD header names other files that hold its data",
            "save the image as one file (attached header)",
        )
    end = re.search(rb"\n\r?\n", content)
    header = content[: end.start() if end else None].decode("ascii", errors="replace").lower()
    fields = dict(re.findall(r"^([a-z ]+): *(.*?)\r?$", header, re.MULTILINE))
    sizes = fields.get("sizes", "").split()
    lengths = _nrrd_lengths(fields)
    extents = [length for size, length in zip(sizes, lengths, strict=False) if size != "1"]
    states_spacing = len(lengths) == len(sizes) and all(map(_is_distance, extents))
    return VolumeFile(content, ".nrrd", states_spacing)


def _nrrd_lengths(fields: dict[str, str]) -> list[float]:
    """Return the step of each axis as far as stated: `spacings`, or lengths of directions."""
    if "spacings" in fields:
        return [_number(word) for word in fields["spacings"].split()]
    vectors = re.findall(r"none|\([^)]*\)", fields.get("space directions", ""))
    return [math.hypot(*map(_number, vector.strip("()").split(","))) for vector in vectors]


def nifti_file(content: bytes) -> VolumeFile:
    """Look through a NIfTI file, plain or compressed, and place a 2-D image in space.

    SimpleITK keeps of a 2-D image the first two coordinates of its axes, which are no plane when
    the image is coronal. As one slice of a volume it has all three.

    Raises
    ------
    ImageRejected
        If the file is cut off, or its data is in another file.
    """
    plain = bytearray(_inflated(content))
    header = _nifti_header(plain)
    axes = int(header["dim"][0])
    sizes = header["dim"][1 : axes + 1].tolist()
    if not 1 <= axes <= 7 or min(sizes) < 1 or int(header["datatype"]) not in NIFTI_BYTES:
        raise _damaged()
    declared = math.prod(sizes) * NIFTI_BYTES[int(header["datatype"])]
    if not float(header["vox_offset"]) + declared <= len(plain):
        raise _damaged()
    steps = header["pixdim"][1 : axes + 1].tolist()
    states_spacing = all(
        _is_distance(step) for size, step in zip(sizes, steps, strict=True) if size > 1
    )
    if axes == 2:
        _make_a_slice_of_a_volume(header)
    return VolumeFile(bytes(plain), ".nii", states_spacing)


def _inflated(content: bytes) -> bytes:
    if not content.startswith(GZIP_SIGNATURE):
        return content
    inflater = zlib.decompressobj(GZIP_WINDOW)
    try:
        plain = inflater.decompress(content, MAX_FILE_BYTES)
    except zlib.error as error:
        raise _damaged() from error
    if inflater.unconsumed_tail:
        raise ImageRejected(
            f"the compressed file grows beyond {MAX_FILE_BYTES} bytes",
            "check the file; it may be a decompression bomb",
        )
    if not inflater.eof:
        raise _damaged()
    return plain


def _nifti_header(plain: bytearray) -> np.void:
    """Return the header in its byte order: a view that writes to `plain`."""
    magic = plain[NIFTI_MAGIC_OFFSET : NIFTI_MAGIC_OFFSET + 4]
    if magic == NIFTI_PAIR:
        raise ImageRejected(
            "this is a NIfTI header whose data is in another file (.hdr and .img)",
            "save the image as one .nii file",
        )
    if magic == NIFTI_SINGLE:
        for layout in (NIFTI_HEADER, NIFTI_HEADER.newbyteorder(">")):
            header: np.void = np.frombuffer(plain, layout, count=1)[0]
            if header["sizeof_hdr"] == NIFTI_HEADER_BYTES:
                return header
    raise _damaged()


def _make_a_slice_of_a_volume(header: np.void) -> None:
    """Add a third axis of one element to a 2-D header, across the other two."""
    header["dim"][0], header["dim"][3] = 3, 1
    if not _is_distance(float(header["pixdim"][3])):
        header["pixdim"][3] = 1
    directions = header["srow"][:, :3]  # a column for each axis
    if not directions[:, 2].any():
        directions[:, 2] = np.cross(directions[:, 0], directions[:, 1])


def _is_distance(step: float) -> bool:
    return math.isfinite(step) and step != 0


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _damaged() -> ImageRejected:
    return ImageRejected(
        "the NIfTI file is damaged, cut off or of an unknown kind", "copy or export it again"
    )
