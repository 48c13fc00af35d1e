"""Data sets in which every row of Table E.1-1 carries a marker, for tests and measurements."""

from __future__ import annotations

import struct
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from io import BytesIO

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from privdiff_infer.dicom.profile_table import Row, table_rows
from tests.unit.dicom_factory import radiograph_dataset, ramp

DEPTHS = (0, 1, 2, 3)
SEQUENCES = (0x00082218, 0x00540220, 0x00082228)  # of codes of anatomy and view; not in the table

NOT_IN_DATA_SETS = ("0000", "0002", "FFFA")
"""Groups of rows of commands, file meta information and signatures' delimiters."""

PATTERN_TAGS = {
    "50xxxxxx": (0x50001000, 0x50023000),
    "60xx3000": (0x60003000, 0x60023000),
    "60xx4000": (0x60004000, 0x60024000),
    "private": (0x00091001, 0x7FE11010),
}
OVERLAY_LABELS = (0x60001500, 0x60000022)
CREATORS = (0x00090010, 0x7FE10010)

MARKER = "ZQMARK"


@dataclass(frozen=True)
class Marker:
    """A value at one tag, and how its bytes read in a file; None for short numbers."""

    row: str
    element: DataElement
    token: bytes | None


@cache
def markers(depth: int) -> list[Marker]:
    """Return markers of every row that can be in a data set, for one depth."""
    found = [
        _marker(row.tag, tag, 1000 * depth + number)
        for number, row in enumerate(table_rows())
        if not row.tag.startswith(NOT_IN_DATA_SETS)
        for tag in _tags(row)
    ]
    extra = [_marker("60xx", tag, 1000 * depth + 900 + n) for n, tag in enumerate(OVERLAY_LABELS)]
    return found + extra


def nested(item: Dataset, depth: int) -> Dataset:
    """Put an item that many sequences deep; the table does not list the sequences."""
    for tag in SEQUENCES[:depth]:
        outer = Dataset()
        outer.add_new(tag, "SQ", Sequence([item]))
        item = outer
    return item


def planted(found: list[Marker]) -> Dataset:
    """Return an item with markers and the creators of its private ones."""
    item = Dataset()
    for tag in CREATORS:
        item.add_new(tag, "LO", f"{MARKER}CREATOR")
    for marker in found:
        item[marker.element.tag] = deepcopy(marker.element)
    return item


def marked_dataset(sop_class: str, syntax: UID = ExplicitVRLittleEndian) -> Dataset:
    """Return an object with every marker at every depth."""
    dataset = radiograph_dataset(ramp(shape=(16, 16)))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.3.4.5.6.7.8.9"
    dataset.file_meta.PrivateInformation = MARKER.encode() + b"META"
    dataset.file_meta.SourceApplicationEntityTitle = f"{MARKER}AE"
    dataset.preamble = (MARKER.encode() * 22)[:128]
    for depth in DEPTHS:
        dataset.update(nested(planted(markers(depth)), depth))
    return dataset


def file_of(dataset: Dataset) -> bytes:
    """Return the bytes of a file."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def survivors(content: bytes) -> list[str]:
    """Return the rows, or other places, whose marker is in a file."""
    found = [
        f"{marker.row} at depth {depth}"
        for depth in DEPTHS
        for marker in markers(depth)
        if marker.token is not None and marker.token in content
    ]
    return found + (["somewhere"] if MARKER.encode() in content and not found else [])


def _tags(row: Row) -> tuple[int, ...]:
    return PATTERN_TAGS.get(row.tag) or (int(row.tag, 16),)


def _marker(row: str, tag: int, number: int) -> Marker:
    vr = dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
    if row == "private" or tag >> 24 in (0x50, 0x60):
        vr = "LO" if tag in OVERLAY_LABELS else "OB" if row != "60xx4000" else "LT"
    value, token = _value(vr, number)
    return Marker(row, DataElement(tag, vr, value), token)


def _value(vr: str, number: int) -> tuple[object, bytes | None]:
    """Return a value of a VR that no other number gives, and its bytes in a file."""
    if vr == "SQ":
        item = Dataset()
        item.ReferencedSOPInstanceUID = uid = f"1.3.777.{number}.777"
        item.PatientName = f"{MARKER}{number}S"
        return Sequence([item]), uid.encode()
    if vr in ("US", "FD", "FL"):
        return 7000 + number % 1000, None
    if vr == "AT":
        return 0x00777777, struct.pack("<HH", 0x0077, 0x7777)
    text = {
        "UI": f"1.2.777.{number}.777",
        "DA": f"{1901 + number // 300}{1 + number % 12:02}{1 + number % 27:02}",
        "TM": f"{number % 23:02}{number % 59:02}{number % 58:02}.{number:06}",
        "DT": f"19770707070707.{number:06}",
        "AS": f"{number % 1000:03}W",
        "DS": f"0.777{number:06}",
        "IS": f"777{number:06}",
    }.get(vr, f"{MARKER}{number:05}Z")
    if vr in ("OB", "OW", "UN"):
        return text.encode(), text.encode()
    return text, text.encode()
