"""Table E.1-1 of PS3.15 as data: what becomes of an attribute, by tag number."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Any


class Option(str, Enum):
    """Options of PS3.15 E.3; the values are their codes in CID 7050, scheme DCM."""

    CLEAN_PIXEL_DATA = "113101"
    CLEAN_RECOGNIZABLE_VISUAL_FEATURES = "113102"
    CLEAN_GRAPHICS = "113103"
    CLEAN_STRUCTURED_CONTENT = "113104"
    CLEAN_DESCRIPTORS = "113105"
    RETAIN_FULL_DATES = "113106"
    RETAIN_MODIFIED_DATES = "113107"
    RETAIN_PATIENT_CHARACTERISTICS = "113108"
    RETAIN_DEVICE_IDENTITY = "113109"
    RETAIN_UIDS = "113110"
    RETAIN_SAFE_PRIVATE = "113111"
    RETAIN_INSTITUTION_IDENTITY = "113112"


BASIC_PROFILE = "113100"
"""Code of the Basic Application Confidentiality Profile in CID 7050."""

MEANINGS = {
    BASIC_PROFILE: "Basic Application Confidentiality Profile",
    Option.CLEAN_PIXEL_DATA.value: "Clean Pixel Data Option",
    Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES.value: "Clean Recognizable Visual Features Option",
    Option.CLEAN_GRAPHICS.value: "Clean Graphics Option",
    Option.CLEAN_STRUCTURED_CONTENT.value: "Clean Structured Content Option",
    Option.CLEAN_DESCRIPTORS.value: "Clean Descriptors Option",
    Option.RETAIN_FULL_DATES.value: ("Retain Longitudinal Temporal Information Full Dates Option"),
    Option.RETAIN_MODIFIED_DATES.value: (
        "Retain Longitudinal Temporal Information Modified Dates Option"
    ),
    Option.RETAIN_PATIENT_CHARACTERISTICS.value: "Retain Patient Characteristics Option",
    Option.RETAIN_DEVICE_IDENTITY.value: "Retain Device Identity Option",
    Option.RETAIN_UIDS.value: "Retain UIDs Option",
    Option.RETAIN_SAFE_PRIVATE.value: "Retain Safe Private Option",
    Option.RETAIN_INSTITUTION_IDENTITY.value: "Retain Institution Identity Option",
}
"""Code meanings of CID 7050."""


class Action(str, Enum):
    """What an attribute needs (PS3.15 E.1.1, Table E.1-1a)."""

    KEEP = "K"  # a sequence is kept, and what is in it is cleaned
    CLEAN = "C"
    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    NEW_UID = "U"
    REMOVE_OR_EMPTY = "X/Z"
    REMOVE_OR_DUMMY = "X/D"
    EMPTY_OR_DUMMY = "Z/D"
    REMOVE_EMPTY_OR_DUMMY = "X/Z/D"
    REMOVE_EMPTY_OR_NEW_UIDS = "X/Z/U*"


@dataclass(frozen=True)
class Rule:
    """What is done to one attribute under a set of options.

    Attributes
    ----------
    action
        Of the Basic Profile.
    kept
        Whether an option keeps it as it is.
    cleaned_by
        The options that keep of it what is proven clean.
    """

    action: Action
    kept: bool
    cleaned_by: tuple[Option, ...]


@dataclass(frozen=True)
class Row:
    """One row of the table: a tag such as ``00100010``, or a pattern, with its columns."""

    tag: str
    action: Action
    options: Mapping[Option, Action]

    @property
    def is_pattern(self) -> bool:
        """Whether this is a row of curves, overlays or private attributes."""
        return "x" in self.tag or self.tag == "private"


Place = tuple[int, ...]
"""Tags of the sequences on the way and of the attribute itself."""


@cache
def table_rows() -> tuple[Row, ...]:
    """Return all rows of Table E.1-1."""
    return tuple(
        Row(tag, Action(action), {Option(code): Action(does) for code, does in options.items()})
        for tag, action, options in _load("table_e1_1.json")["rows"]
    )


def rules(options: Collection[Option]) -> dict[int, Rule]:
    """Return what is done to every single attribute of the table; patterns are left out."""
    return {int(row.tag, 16): _rule(row, options) for row in table_rows() if not row.is_pattern}


@cache
def attribute_types(sop_class_uid: str) -> Mapping[Place, str] | None:
    """Return the types (1, 1C, 2, 2C, 3) of attributes in an IOD by place; None if not known."""
    types = _load("attribute_types.json")["types"].get(sop_class_uid)
    if types is None:
        return None
    return {tuple(int(tag, 16) for tag in place.split("/")): kind for place, kind in types.items()}


@cache
def safe_private() -> Mapping[tuple[str, int, int], str]:
    """Return the VR of private attributes without identity, by creator, group and element."""
    return {
        (creator, int(group, 16), int(element, 16)): vr
        for creator, group, element, vr in _load("safe_private.json")["rows"]
    }


def _rule(row: Row, options: Collection[Option]) -> Rule:
    chosen = {option: does for option, does in row.options.items() if option in options}
    return Rule(
        row.action,
        kept=Action.KEEP in chosen.values(),
        cleaned_by=tuple(option for option, does in chosen.items() if does is Action.CLEAN),
    )


def _load(name: str) -> dict[str, Any]:
    return json.loads(files("privdiff_infer.dicom").joinpath(name).read_text(encoding="utf-8"))
