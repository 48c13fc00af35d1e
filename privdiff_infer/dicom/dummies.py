"""Values that stand where one is required: of the right VR, and the same for everybody."""

from __future__ import annotations

from collections.abc import Callable

from pydicom import DataElement, Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

TEXT = "ANONYMIZED"

DUMMIES: dict[str, object] = {
    "AE": TEXT,
    "AS": "000Y",
    "AT": 0,
    "CS": TEXT,
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "FD": 0.0,
    "FL": 0.0,
    "IS": "0",
    "LO": TEXT,
    "LT": TEXT,
    "OB": b"\0\0",
    "OD": b"\0" * 8,
    "OF": b"\0" * 4,
    "OL": b"\0" * 4,
    "OV": b"\0" * 8,
    "OW": b"\0\0",
    "PN": TEXT,
    "SH": TEXT,
    "SL": 0,
    "SS": 0,
    "ST": TEXT,
    "SV": 0,
    "TM": "000000",
    "UC": TEXT,
    "UL": 0,
    "UN": b"\0\0",
    "UR": "urn:anonymized",
    "US": 0,
    "UT": TEXT,
    "UV": 0,
}
"""By VR; UI is not here, for a UID is mapped, and SQ is made of the item that was there."""

CONTENT_SEQUENCE = 0x0040A730


def dummy(
    tag: int, vr: str, first_item: Dataset | None, new_uid: Callable[[str], str]
) -> DataElement:
    """Return an element of a type 1 attribute with a value that tells nothing.

    A sequence gets one item: a code that says "unknown", a line of text for a report, or else
    dummies in the shape of the item that was there.

    Parameters
    ----------
    tag, vr
        Of the attribute.
    first_item
        What the sequence held, if it is one.
    new_uid
        Maps UIDs.
    """
    if vr != "SQ":
        return DataElement(tag, vr, DUMMIES[vr])
    if tag == CONTENT_SEQUENCE:
        item = _text_item()
    elif keyword_for_tag(tag).endswith("CodeSequence"):
        item = _code("261665006", "SCT", "Unknown")
    else:
        item = _dummy_item(first_item or Dataset(), new_uid)
    return DataElement(tag, vr, Sequence([item]))


def _dummy_item(item: Dataset, new_uid: Callable[[str], str]) -> Dataset:
    """Return an item of the same standard attributes, each with a dummy."""
    result = Dataset()
    for tag in item.keys():
        if element := _dummy_of(item, tag, new_uid):
            result[tag] = element
    return result


def _dummy_of(item: Dataset, tag: BaseTag, new_uid: Callable[[str], str]) -> DataElement | None:
    if tag.is_private or tag.element == 0 or not keyword_for_tag(tag):
        return None
    element = item[tag]
    if element.VR == "SQ":
        first = element.value[0] if element.value else None
        return dummy(tag, "SQ", first, new_uid)
    if element.VR == "UI":
        values = [element.value] if element.VM == 1 else list(element.value or ())
        return DataElement(tag, "UI", [new_uid(value) for value in values])
    return DataElement(tag, element.VR, DUMMIES[element.VR]) if element.VR in DUMMIES else None


def _text_item() -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "TEXT"
    item.ConceptNameCodeSequence = [_code("121106", "DCM", "Comment")]
    item.TextValue = TEXT
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
