"""DICOM files, by pydicom alone: ITK readers invert MONOCHROME1 and ignore PixelSpacing."""

from __future__ import annotations

import logging
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from privdiff_infer.errors import ImageHeld, ImageRejected, PrivDiffError
from privdiff_infer.radiograph import Decoded, HeaderFacts, SourceFormat, check_size
from privdiff_infer.vocabulary import Sex

RADIOGRAPH_MODALITIES = frozenset({"CR", "DX", "OT", "SC", "RG", "XA", "RF"})
FRONTAL_VIEWS = frozenset({"PA", "AP"})
LATERAL_VIEWS = frozenset({"LL", "RL", "LLO", "RLO", "LATERAL", "LAT", "LLD", "RLD"})
CHEST = re.compile(r"CHEST|THORAX|LUNG|RIB", re.IGNORECASE)

AGE_UNITS_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
MAX_INFLATED_BYTES = 2**29
META_GROUP_START = 128 + 4 + 12  # preamble, prefix, group length (PS3.10 7.1)


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
        If the header says that it is no frontal chest radiograph.
    """
    try:
        with _silent_pydicom():
            return _decode(content)
    except PrivDiffError:
        raise
    except MemoryError as error:
        raise ImageRejected("not enough memory to decode the pixels", "free memory") from error
    except Exception as error:  # decoders raise whatever their C code reports
        raise ImageRejected(
            f"the DICOM file is damaged or its pixels cannot be decoded ({type(error).__name__})",
            "export it again, uncompressed if need be",
        ) from error


def _decode(content: bytes) -> Decoded:
    dataset = _parse(content)
    _check_kind(dataset)
    stored = _stored_values(dataset)
    return Decoded(
        pixels=_display_values(dataset, stored),
        spacing_mm=_spacing(dataset),
        source_format=SourceFormat.DICOM,
        bits_stored=int(dataset.BitsStored),
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        header=_facts(dataset),
    )


@contextmanager
def _silent_pydicom() -> Iterator[None]:
    """Keep pydicom quiet: its warnings and log records quote values of the header."""
    logger = logging.getLogger("pydicom")
    disabled = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


def _parse(content: bytes) -> FileDataset:
    _refuse_deflate_bomb(content)
    try:
        return pydicom.dcmread(BytesIO(content), force=content[128:132] != b"DICM")
    except (InvalidDicomError, EOFError) as error:
        raise ImageRejected("the DICOM file is damaged or cut off", "export it again") from error


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
    if "DirectoryRecordSequence" in dataset:
        raise ImageRejected("this is a DICOMDIR, an index and not an image", "name its images")
    modality = _text(dataset, "Modality")
    if modality and modality not in RADIOGRAPH_MODALITIES:
        raise ImageHeld(f"the modality is {modality}, not CR or DX", "name chest radiographs only")
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageRejected("the DICOM file has no pixels", "name image objects only")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ImageRejected(f"the image has {frames} frames", "export single frames")
    samples = int(dataset.get("SamplesPerPixel") or 1)
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if samples != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        raise ImageRejected(
            f"the image is in colour ({photometric}, {samples} samples per pixel)",
            "use the grey image of the modality",
        )
    bits = int(dataset.get("BitsStored") or 0)
    if not 1 < bits <= 16 or "PixelData" not in dataset:
        raise ImageRejected(
            f"the image has {bits} bits stored, 2 to 16 can be read", "convert it to 16 bits"
        )
    check_size(int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
    _check_anatomy(dataset)


def _check_anatomy(dataset: Dataset) -> None:
    view = (_text(dataset, "ViewPosition") or "").upper()
    if view in LATERAL_VIEWS:
        raise ImageHeld(f"the view position is {view}, not frontal", "name PA or AP images only")
    body_part = _text(dataset, "BodyPartExamined") or ""
    if body_part and not CHEST.search(body_part):
        raise ImageHeld(
            f"the body part examined is {body_part}, not the chest", "name chest images only"
        )


def _stored_values(dataset: Dataset) -> np.ndarray:
    if "TransferSyntaxUID" not in dataset.file_meta:
        # A file without preamble has no file meta group either; pydicom saw the VRs.
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
        )
    declared = int(dataset.Rows) * int(dataset.Columns) * (int(dataset.BitsAllocated) // 8)
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated and len(dataset.PixelData) < declared:
        raise ImageRejected(
            f"the pixel data has {len(dataset.PixelData)} bytes instead of {declared}",
            "export the file again; it is cut off",
        )
    stored = dataset.pixel_array
    if stored.ndim != 2 or stored.shape != (int(dataset.Rows), int(dataset.Columns)):
        raise ImageRejected(
            f"the decoded pixels have the shape {stored.shape}", "export the file again"
        )
    return stored


def _display_values(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """Return pixels in [0, 1], 0 = black, after modality LUT, VOI and photometric sense."""
    padding = _padding_mask(dataset, stored)
    rescaled = np.asarray(apply_modality_lut(stored, dataset))
    if "VOILUTSequence" in dataset or "WindowCenter" in dataset:
        low, high = _voi_range(dataset)
        _widen_voi_lut(dataset)
        shown = np.asarray(apply_voi_lut(rescaled, dataset), dtype=np.float64)
    else:
        shown = rescaled.astype(np.float64)
        kept = shown[~padding] if not padding.all() else shown
        low, high = float(kept.min()), float(kept.max())
    if not (math.isfinite(low) and math.isfinite(high)) or not np.isfinite(shown).all():
        raise ImageRejected("the rescaled pixels are not finite", "check slope and intercept")
    scaled = np.clip((shown - low) / (high - low), 0, 1) if high > low else np.zeros_like(shown)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        scaled = 1 - scaled
    scaled[padding] = 0  # padding is no tissue: black in either sense
    return scaled.astype(np.float32)


def _voi_range(dataset: Dataset) -> tuple[float, float]:
    """Return the output range of the VOI transformation.

    A VOI LUT fills the bits of its descriptor. A window saturates at both ends, so its output
    range is that of the values it could produce; where nothing saturates, the window is wider than
    the image.
    """
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return 0.0, float(2**bits - 1)
    ramp = Dataset()
    for name in (
        "WindowCenter",
        "WindowWidth",
        "VOILUTFunction",
        "RescaleSlope",
        "RescaleIntercept",
        "BitsStored",
        "PixelRepresentation",
        "PhotometricInterpretation",
    ):
        if name in dataset:
            ramp[name] = dataset[name]
    center, width = _first(dataset.WindowCenter), abs(_first(dataset.WindowWidth))
    ends = np.asarray([center - 100 * width, center + 100 * width], dtype=np.float64)
    low, high = np.asarray(apply_voi_lut(ends, ramp), dtype=np.float64)
    return float(low), float(high)


def _widen_voi_lut(dataset: Dataset) -> None:
    """Declare 8-bit table entries as 16-bit ones, which hold the same numbers.

    pydicom 3.0 indexes the table with integers of the entries' size, so that the index of an 8-bit
    table with more than 256 entries overflows.
    """
    for item in dataset.get("VOILUTSequence") or []:
        entries, first, _ = item.LUTDescriptor
        item.LUTDescriptor = [entries, first, 16]


def _padding_mask(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    """Return where PixelPaddingValue (and its range, PS3.3 C.7.5.1.1.2) marks pixels as padding."""
    if "PixelPaddingValue" not in dataset:
        return np.zeros(stored.shape, dtype=bool)
    first = _padding_number(dataset, dataset.PixelPaddingValue)
    last = _padding_number(dataset, dataset.get("PixelPaddingRangeLimit", first))
    return (stored >= min(first, last)) & (stored <= max(first, last))


def _padding_number(dataset: Dataset, value: Any) -> int:
    """Return a US or SS value in the sign of the pixels, whichever way the file encoded it."""
    number = int(value)
    if dataset.PixelRepresentation and number > 32767:
        return number - 65536
    if not dataset.PixelRepresentation and number < 0:
        return number + 65536
    return number


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Return (row, column) spacing: calibrated first, then at the imager, then of the scan."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        values = dataset.get(name)
        if values is None or isinstance(values, str) or len(values) != 2:
            continue
        row, column = float(values[0]), float(values[1])
        if math.isfinite(row) and math.isfinite(column) and row > 0 and column > 0:
            return row, column
    return None


def _facts(dataset: Dataset) -> HeaderFacts:
    sex = _text(dataset, "PatientSex")
    return HeaderFacts(
        modality=_text(dataset, "Modality"),
        body_part=_text(dataset, "BodyPartExamined"),
        view_position=_text(dataset, "ViewPosition"),
        sex=Sex.__members__.get(sex or ""),
        age_years=_age_years(dataset),
    )


def _age_years(dataset: Dataset) -> float | None:
    match = re.fullmatch(r"(\d{1,3})([YMWD])", _text(dataset, "PatientAge") or "")
    if match:
        return int(match[1]) / AGE_UNITS_PER_YEAR[match[2]]
    born, taken = _text(dataset, "PatientBirthDate"), _text(dataset, "StudyDate")
    if born and taken and re.fullmatch(r"\d{8}", born) and re.fullmatch(r"\d{8}", taken):
        years = int(taken[:4]) - int(born[:4]) - (taken[4:] < born[4:])
        return float(years) if 0 <= years <= 130 else None
    return None


def _text(dataset: Dataset, name: str) -> str | None:
    value = dataset.get(name)
    return str(value).strip() or None if value is not None else None


def _first(value: Any) -> float:
    return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)
