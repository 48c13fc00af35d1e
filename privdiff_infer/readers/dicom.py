"""DICOM files, by pydicom alone: ITK readers invert MONOCHROME1 and ignore PixelSpacing."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from privdiff_infer.errors import ImageError, ImageRejected
from privdiff_infer.file_formats import SourceFormat
from privdiff_infer.radiograph import Decoded, check_size
from privdiff_infer.readers.dicom_display import display_values
from privdiff_infer.readers.dicom_gates import check_modality, check_view_and_anatomy
from privdiff_infer.readers.dicom_header import SPACINGS, header_facts, number, spacing, text
from privdiff_infer.readers.quiet import silent_pydicom

MAX_INFLATED_BYTES = 2**29
META_GROUP_START = 128 + 4 + 12  # preamble, prefix, group length (PS3.10 7.1)

PILLOW_SYNTAXES = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEG2000Lossless, JPEG2000})
"""Decoded by Pillow: on a damaged JPEG stream gdcm prints, and can end the process."""


def recognizes(content: bytes) -> bool:
    """Tell whether a file is DICOM, by the prefix or else by a plausible first element."""
    if content[128:132] == b"DICM":
        return True
    if len(content) < 16:
        return False
    group, element = struct.unpack("<HH", content[:4])
    # PS3.10 files of old devices start with group 0002 or 0008 in little endian.
    return (group == 0x0002 and element <= 0x0102) or (
        group == 0x0008 and element in {0x0000, 0x0001, 0x0005, 0x0008, 0x0016, 0x0018}
    )


def decode(content: bytes) -> Decoded:
    """Decode one CR, DX or Secondary Capture image.

    Raises
    ------
    ImageRejected
        If the file is damaged, is not one grey image, or its pixels cannot be decoded.
    ImageHeld
        If the header says that it is no frontal chest radiograph, or states an age that cannot be
        understood.
    """
    instance_uid = ""
    try:
        with silent_pydicom():
            dataset = parse(content)
            instance_uid = text(dataset, "SOPInstanceUID") or ""
            return _decode(dataset)
    except ImageError as error:
        error.sop_instance_uid = instance_uid
        raise
    except Exception as error:  # decoders raise whatever their C code reports
        rejected = _explained(error)
        rejected.sop_instance_uid = instance_uid
        raise rejected from error


def _explained(error: Exception) -> ImageRejected:
    if isinstance(error, MemoryError):
        return ImageRejected("not enough memory to decode the pixels", "free memory")
    return ImageRejected(
        "the DICOM file is damaged or its pixels cannot be decoded",
        "export it again, uncompressed if need be",
        detail=type(error).__name__,
    )


def _decode(dataset: FileDataset) -> Decoded:
    _check_kind(dataset)
    check_view_and_anatomy(dataset)
    header = header_facts(dataset)
    pixels = display_values(dataset, _stored_values(dataset))
    del dataset.PixelData  # also pydicom's decoded copy
    return Decoded(
        pixels=pixels,
        spacing_mm=_spacing(dataset),
        source_format=SourceFormat.DICOM,
        bits_stored=int(dataset.BitsStored),
        sop_instance_uid=text(dataset, "SOPInstanceUID"),
        header=header,
        dataset=dataset,
    )


def parse(content: bytes) -> FileDataset:
    """Read all attributes of a file, of any kind; those whose pixels end too early lose them.

    Raises
    ------
    ImageRejected
        If the file is damaged, or a decompression bomb.
    """
    _refuse_deflate_bomb(content)
    has_prefix = content[128:132] == b"DICM"
    try:
        dataset = pydicom.dcmread(BytesIO(content), force=not has_prefix)
        if len(dataset) == 0:  # what pydicom makes of compressed pixels that end too early
            dataset = pydicom.dcmread(
                BytesIO(content), force=not has_prefix, stop_before_pixels=True
            )
    except (InvalidDicomError, EOFError) as error:
        raise ImageRejected("the DICOM file is damaged or cut off", "export it again") from error
    return dataset


def _refuse_deflate_bomb(content: bytes) -> None:
    """Inflate a deflated data set piece by piece and stop at the limit; pydicom has none."""
    if content[128:138] != b"DICM\x02\x00\x00\x00UL":
        return
    start = META_GROUP_START + int.from_bytes(content[140:144], "little")
    if DeflatedExplicitVRLittleEndian.encode() not in content[META_GROUP_START:start]:
        return
    inflater, total, pending = zlib.decompressobj(-zlib.MAX_WBITS), 0, content[start:]
    while pending and not inflater.eof:
        total += len(inflater.decompress(pending, 2**20))
        pending = inflater.unconsumed_tail
        if total > MAX_INFLATED_BYTES:
            raise ImageRejected(
                f"the deflated data set grows beyond {MAX_INFLATED_BYTES} bytes",
                "check the file; it may be a decompression bomb",
            )


def _check_kind(dataset: Dataset) -> None:
    """Let single grey images of a possible depth and size pass."""
    if "DirectoryRecordSequence" in dataset:
        raise ImageRejected("this is a DICOMDIR, an index and not an image", "name its images")
    check_modality(dataset)
    _check_that_pixels_are_there(dataset)
    frames = int(number(dataset, "NumberOfFrames") or 1)
    if frames != 1:
        raise ImageRejected(
            "the image has several frames", "export single frames", detail=f"{frames} frames"
        )
    samples = int(number(dataset, "SamplesPerPixel") or 1)
    photometric = text(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    if samples != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise ImageRejected(
            "the image is in colour",
            "use the grey image of the modality",
            detail=f"{photometric}, {samples} samples per pixel",
        )
    bits = int(number(dataset, "BitsStored") or 0)
    if not 1 < bits <= 16 or "PixelData" not in dataset:
        raise ImageRejected(
            "the image is not stored as integers of 2 to 16 bits",
            "convert it to 16 bits",
            detail=f"{bits} bits stored",
        )
    check_size(int(number(dataset, "Rows") or 0), int(number(dataset, "Columns") or 0))


def _check_that_pixels_are_there(dataset: Dataset) -> None:
    if any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        return
    if "Rows" in dataset:
        raise ImageRejected(
            "the DICOM file is cut off or damaged: it describes pixels but does not hold them",
            "copy or export it again",
        )
    raise ImageRejected(
        "the DICOM file has no pixels or is cut off before them",
        "name image objects only, or copy the file again",
    )


def _stored_values(dataset: FileDataset) -> np.ndarray:
    """Decode the pixels.

    Returns
    -------
    numpy.ndarray
        Shape (rows, columns), integers of BitsStored bits in the sign of PixelRepresentation.
    """
    if "TransferSyntaxUID" not in dataset.file_meta:
        # A file without preamble has no file meta group either; pydicom saw the VRs.
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    _check_length(dataset)
    if syntax in PILLOW_SYNTAXES:
        dataset.pixel_array_options(decoding_plugin="pillow")
    holds_cells = not syntax.is_encapsulated or syntax == RLELossless
    if holds_cells:
        dataset.pixel_array_options(correct_unused_bits=False)  # it assumes the low bits
    stored = dataset.pixel_array
    if stored.ndim != 2 or stored.shape != (int(dataset.Rows), int(dataset.Columns)):
        raise ImageRejected(
            "the decoded pixels are not of the size that the header states",
            "export the file again",
            detail=f"shape {stored.shape}",
        )
    return _values_of_cells(dataset, stored, holds_cells=holds_cells)


def _check_length(dataset: FileDataset) -> None:
    declared = int(dataset.Rows) * int(dataset.Columns) * (int(dataset.BitsAllocated) // 8)
    encapsulated = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    if not encapsulated and len(dataset.PixelData) < declared:
        raise ImageRejected(
            "the pixel data is shorter than the header states; the file is cut off",
            "copy or export it again",
            detail=f"{len(dataset.PixelData)} bytes instead of {declared}",
        )


def _values_of_cells(dataset: Dataset, stored: np.ndarray, *, holds_cells: bool) -> np.ndarray:
    """Take the bits up to HighBit out of each cell (PS3.5 8.1.1), and extend the sign.

    Other bits can hold overlays or anything. Compressed streams hold values and no cells, so that a
    HighBit of another place says nothing clear of them.
    """
    bits, allocated = int(dataset.BitsStored), 8 * stored.dtype.itemsize
    stated = number(dataset, "HighBit")
    high = bits - 1 if stated is None else int(stated)
    if not bits - 1 <= high < allocated or (high != bits - 1 and not holds_cells):
        raise ImageRejected(
            "the high bit does not fit the bits stored",
            "export the file again, uncompressed if need be",
            detail=f"HighBit {high}, BitsStored {bits}, BitsAllocated {allocated}",
        )
    if not holds_cells:
        return stored
    return (stored << (allocated - 1 - high)) >> (allocated - bits)


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Return (row, column) spacing: calibrated first, then at the imager, then of the scan."""
    for name in SPACINGS:
        if (found := spacing(dataset, name)) is not None:
            return found
    return None
