"""Action C of PS3.15: what is proven clean is kept, nothing else.

No program can tell that free text names nobody. So text goes; what stays are dates that were
moved, codes of public schemes, numbers, and shapes that cannot be letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any

from pydicom import DataElement, Dataset

from privdiff_infer.dicom.profile_table import Option

# The first eight digits of a DT, and what follows them to the end (PS3.5 6.2).
DATE_TIME = re.compile(r"(\d{8})((?:\d{2}){0,3}(?:(?<=\d{14})\.\d{1,6})?(?:[+-]\d{4})?)")
TIME = re.compile(r"\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?")
TIME_ZONE = re.compile(r"[+-]\d{4}")

CODE_PATTERNS = {
    "SCT": re.compile(r"[1-9]\d{5,17}"),
    "SRT": re.compile(r"[A-Z]\d?-[0-9A-F]{4,6}"),
    "DCM": re.compile(r"1\d{5}"),
    "LN": re.compile(r"\d{1,5}-\d"),
    "RADLEX": re.compile(r"RID\d{1,6}"),
    "FMA": re.compile(r"\d{1,6}"),
    "UCUM": re.compile(r"[\w\[\]{}./*^%'-]{1,16}", re.ASCII),
    "I10": re.compile(r"[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?"),
    "I9": re.compile(r"[EV]?\d{2,3}(\.\d{1,2})?"),
}
"""Form of the codes of schemes in PS3.16 Table 8-1."""

MODIFICATION_REASONS = frozenset({"COERCE", "CORRECT"})
"""Defined terms of ReasonForTheAttributeModification (PS3.3 C.12.1.1.9)."""

CHARACTERISTICS = frozenset(
    {
        ("DCM", "121033"),  # Subject Age
        ("DCM", "121032"),  # Subject Sex
        ("LN", "8302-2"),  # body height
        ("LN", "29463-7"), ("LN", "3141-9"), ("LN", "8339-4"), ("LN", "39156-5"),  # weight, BMI
        ("LN", "30525-0"), ("LN", "29553-5"), ("LN", "21112-8"),  # age, birth date
        ("LN", "46098-0"), ("LN", "76689-9"), ("LN", "21840-4"),  # sex
        ("SCT", "397669002"), ("SCT", "424144002"), ("SCT", "445518008"),  # age
        ("SCT", "50373000"), ("SCT", "1153637007"),  # height
        ("SCT", "27113001"), ("SCT", "60621009"),  # weight, mass index
        ("SCT", "263495000"), ("SCT", "184100006"),  # gender, sex
        ("SRT", "D-0A000"), ("SRT", "M-02290"), ("SRT", "D-F0010"),
    }
)  # fmt: skip
"""Concepts that describe the subject of a report: the Clean Structured Content Option does not
keep what Retain Patient Characteristics alone may."""

SHAPES = frozenset({"POINT", "CIRCLE", "ELLIPSE"})
"""Graphic types that cannot draw letters; lines can."""


def clean(element: DataElement, options: Iterable[Option], shift: timedelta) -> Any | None:
    """Return what is proven clean of a value, or None if nothing is.

    Parameters
    ----------
    element
        An attribute that a column of Table E.1-1 marks C; what is in a sequence is cleaned already.
    options
        The options chosen whose columns say so.
    shift
        How far the dates of the patient move.
    """
    for option in options:
        if option is Option.RETAIN_MODIFIED_DATES:
            cleaned = _moved(element, shift)
        elif option is Option.CLEAN_GRAPHICS:
            cleaned = _items(element, _shapes)
        elif option is Option.CLEAN_STRUCTURED_CONTENT:
            cleaned = _items(element, _content)
        elif option is Option.CLEAN_DESCRIPTORS:
            cleaned = _described(element)
        else:  # AE titles and words on a patient are free text
            cleaned = None
        if cleaned is not None:
            return cleaned
    return None


def move(value: str, vr: str, shift: timedelta) -> str | None:
    """Return a date or time by so many days earlier or later; None where there is no whole date.

    Parameters
    ----------
    value
        One value of VR DA, DT or TM. Times stay, for whole days move.
    vr
        Its VR.
    shift
        Whole days.

    Examples
    --------
    >>> move("20240301", "DA", timedelta(days=-1))
    '20240229'
    >>> move("20240301235959.5+0100", "DT", timedelta(days=-1))
    '20240229235959.5+0100'
    """
    bare = value.strip(" \0")
    if vr == "TM":
        return bare if TIME.fullmatch(bare) else None
    parts = DATE_TIME.fullmatch(bare)
    if parts is None or (vr == "DA" and parts[2]):
        return None
    try:
        moved = date(int(parts[1][:4]), int(parts[1][4:6]), int(parts[1][6:])) + shift
    except (ValueError, OverflowError):
        return None
    return f"{moved:%Y%m%d}".zfill(8) + parts[2]


def standard_code(item: Dataset) -> Dataset | None:
    """Return a code of a public scheme with the scheme's own meaning; None for any other item.

    The words of the file are not kept: they are free text. Where no dictionary at hand has the
    code, it stands for itself.
    """
    value, scheme = item.get("CodeValue"), item.get("CodingSchemeDesignator")
    pattern = CODE_PATTERNS.get(scheme) if isinstance(scheme, str) else None
    if pattern is None or not isinstance(value, str) or not pattern.fullmatch(value):
        return None
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = value, scheme
    code.CodeMeaning = _meanings().get((scheme, value), value)
    return code


def _moved(element: DataElement, shift: timedelta) -> Any | None:
    if element.VR == "SH":  # TimezoneOffsetFromUTC
        return element.value if TIME_ZONE.fullmatch(str(element.value)) else None
    if element.VR not in ("DA", "DT", "TM"):
        return None
    values = [element.value] if element.VM == 1 else list(element.value or ())
    moved = [move(str(value), element.VR, shift) for value in values]
    return None if None in moved or not moved else moved


def _described(element: DataElement) -> Any | None:
    if element.VR == "SQ":
        return _items(element, _codes)
    if element.keyword == "ReasonForTheAttributeModification":
        return element.value if element.value in MODIFICATION_REASONS else None
    return None


def _items(element: DataElement, clean_item: Any) -> Sequence[Dataset] | None:
    cleaned = [kept for item in element.value if (kept := clean_item(item)) is not None]
    return cleaned or None


def _codes(item: Dataset) -> Dataset | None:
    """Return a code, or the codes of an item that has some."""
    if (code := standard_code(item)) is not None:
        return code
    kept = Dataset()
    for element in item:
        if element.VR == "SQ" and (codes := _items(element, standard_code)):
            kept.add_new(element.tag, "SQ", codes)
    return kept if len(kept) else None


def _content(item: Dataset) -> Dataset | None:
    """Return a content item whose name and value are codes, numbers or other such items."""
    if "SpecimenPreparationStepContentItemSequence" in item:
        steps = _items(item["SpecimenPreparationStepContentItemSequence"], _content)
        return _with(Dataset(), SpecimenPreparationStepContentItemSequence=steps)
    kept = Dataset()
    kind = item.get("ValueType")
    if kind not in ("CODE", "NUM", "NUMERIC", "CONTAINER", "IMAGE", "COMPOSITE", "WAVEFORM"):
        return None
    kept.ValueType = kind
    for keyword in ("RelationshipType", "ContinuityOfContent"):
        if isinstance(word := item.get(keyword), str) and re.fullmatch(r"[A-Z ]{1,16}", word):
            setattr(kept, keyword, word)
    if "ConceptNameCodeSequence" in item:
        name = _first_code(item, "ConceptNameCodeSequence")
        if name is None or (name.CodingSchemeDesignator, name.CodeValue) in CHARACTERISTICS:
            return None
        kept.ConceptNameCodeSequence = [name]
    if "ContentSequence" in item:  # cleaned before
        kept.ContentSequence = item.ContentSequence
    return _with_value(kept, kind, item)


def _with_value(kept: Dataset, kind: str, item: Dataset) -> Dataset | None:
    if kind == "CONTAINER":
        return kept
    if kind == "CODE":
        code = _first_code(item, "ConceptCodeSequence")
        return _with(kept, ConceptCodeSequence=[code] if code else None)
    if kind in ("NUM", "NUMERIC"):
        if "MeasuredValueSequence" in item:
            measured = _items(item["MeasuredValueSequence"], _number)
            return _with(kept, MeasuredValueSequence=measured)
        number = _number(item)
        return None if number is None else _merged(kept, number)
    return _with(kept, ReferencedSOPSequence=item.get("ReferencedSOPSequence"))


def _number(item: Dataset) -> Dataset | None:
    unit = _first_code(item, "MeasurementUnitsCodeSequence")
    if unit is None or item.get("NumericValue") is None:
        return None
    return _with(Dataset(), NumericValue=item.NumericValue, MeasurementUnitsCodeSequence=[unit])


def _shapes(item: Dataset) -> Dataset | None:
    """Return a graphic annotation with its closed shapes and points, without its texts."""
    objects = [
        shape
        for shape in item.get("GraphicObjectSequence") or ()
        if shape.get("GraphicType") in SHAPES
    ]
    kept = _with(Dataset(), GraphicObjectSequence=objects or None)
    if kept is not None:
        for keyword in ("ReferencedImageSequence", "GraphicLayer"):
            if keyword in item:
                setattr(kept, keyword, item[keyword].value)
    return kept


def _first_code(item: Dataset, keyword: str) -> Dataset | None:
    items = item.get(keyword)
    return standard_code(items[0]) if items else None


def _with(kept: Dataset, **attributes: Any) -> Dataset | None:
    """Return the item with attributes that it needs, or None if one is missing."""
    if None in attributes.values():
        return None
    for keyword, value in attributes.items():
        setattr(kept, keyword, value)
    return kept


def _merged(kept: Dataset, other: Dataset) -> Dataset:
    kept.update(other)
    return kept


@cache
def _meanings() -> dict[tuple[str, str], str]:
    """Return the meanings of codes that DICOM uses, by scheme and value."""
    from pydicom.sr._concepts_dict import concepts  # large, and needed by two options only

    tables: dict[str, dict[str, dict[str, tuple[str, list[int]]]]] = concepts  # type: ignore[assignment]
    return {
        (scheme, value): meaning
        for scheme, words in tables.items()
        for codes in words.values()
        for value, (meaning, _) in codes.items()
    }
