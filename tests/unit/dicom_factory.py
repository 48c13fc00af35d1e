"""Small valid DICOM radiographs in memory, for tests of readers."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from pydicom import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"
SHAPE = (96, 80)


def ramp(bits: int = 12, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return a picture that differs under every flip and transposition, with the full range."""
    rows = np.linspace(0, 1, shape[0])[:, None]
    columns = np.linspace(0, 1, shape[1])[None, :]
    values = 0.7 * rows + 0.3 * columns**2
    return np.round(values * (2**bits - 1)).astype(np.uint16)


def radiograph_dataset(stored: np.ndarray, bits: int = 12, **attributes: Any) -> FileDataset:
    """Return a Computed Radiography object; `attributes` are keywords, None removes one."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = COMPUTED_RADIOGRAPHY
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["test"])
    dataset = FileDataset(None, Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "CR"
    dataset.PatientName = "Doe^Jane"
    dataset.PatientID = "PHI-4711"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelSpacing = [0.4, 0.4]
    dataset.PixelData = stored.tobytes()
    for keyword, value in attributes.items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    return dataset


def dicom_bytes(dataset: FileDataset, *, preamble: bool = True) -> bytes:
    """Return the file; without preamble also without file meta group."""
    buffer = BytesIO()
    if preamble:
        dataset.save_as(buffer, enforce_file_format=True)
    else:
        bare = Dataset(dataset)
        bare.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def coded(value: str, scheme: str, meaning: str) -> Sequence:
    """Return a code sequence of one item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def lookup_table(first: int, bits: int, entries: np.ndarray | bytes, count: int) -> Sequence:
    """Return a LUT sequence of one item: numbers are US, bytes are OW."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [count % 2**16, first, bits])
    if isinstance(entries, bytes):
        item.add_new("LUTData", "OW", entries)
    else:
        item.add_new("LUTData", "US", entries.tolist())
    return Sequence([item])


def encapsulated(dataset: FileDataset, frame: bytes, syntax: UID) -> FileDataset:
    """Put one compressed frame in."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    return dataset
