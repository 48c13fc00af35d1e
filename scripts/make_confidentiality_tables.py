r"""Make the tables of privdiff_infer/dicom from facts of the DICOM standard.

Run it from the root of the repository with the extra ``test`` installed:

    python scripts/make_confidentiality_tables.py \
        ../shared/standard/confidentiality_profile_attributes.json

``table_e1_1.json`` holds action and options of every row of PS3.15 Table E.1-1: those of the
2025 edition from the given file, and those that the 2026c edition adds, with their basic action
alone, from the lists of dicom-anonymizer. ``attribute_types.json`` holds the types (PS3.3) of the
attributes whose action depends on them, for radiographs and Secondary Capture, from the module
tables of highdicom. Both libraries are needed here and in tests only.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import highdicom
from pydicom.datadict import tag_for_keyword

TARGET = Path(__file__).resolve().parents[1] / "privdiff_infer" / "dicom"

OPTIONS = {
    "rtnSafePrivOpt": "113111",
    "rtnUIDsOpt": "113110",
    "rtnDevIdOpt": "113109",
    "rtnInstIdOpt": "113112",
    "rtnPatCharsOpt": "113108",
    "rtnLongFullDatesOpt": "113106",
    "rtnLongModifDatesOpt": "113107",
    "cleanDescOpt": "113105",
    "cleanStructContOpt": "113104",
    "cleanGraphOpt": "113103",
}

PATTERNS = {"50xxxxxx": "50xxxxxx", "60xx3000": "60xx3000", "60xx4000": "60xx4000"}
PRIVATE = "private"

DATABASE = "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"
LISTS = {
    "D_TAGS": "D",
    "U_TAGS": "U",
    "X_D_TAGS": "X/D",
    "X_TAGS": "X",
    "X_Z_D_TAGS": "X/Z/D",
    "X_Z_TAGS": "X/Z",
    "X_Z_U_STAR_TAGS": "X/Z/U*",
    "Z_D_TAGS": "Z/D",
    "Z_TAGS": "Z",
}

SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "computed-radiography-image",
    "1.2.840.10008.5.1.4.1.1.1.1": "digital-x-ray-image",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "digital-x-ray-image",
    "1.2.840.10008.5.1.4.1.1.7": "secondary-capture-image",
    "1.2.840.10008.5.1.4.1.1.7.1": "multi-frame-single-bit-secondary-capture-image",
    "1.2.840.10008.5.1.4.1.1.7.2": "multi-frame-grayscale-byte-secondary-capture-image",
    "1.2.840.10008.5.1.4.1.1.7.3": "multi-frame-grayscale-word-secondary-capture-image",
    "1.2.840.10008.5.1.4.1.1.7.4": "multi-frame-true-color-secondary-capture-image",
}
STRICTEST_FIRST = ("1", "1C", "2", "2C", "3")

Row = tuple[str, str, dict[str, str]]


def profile_rows(published: list[dict[str, str]]) -> list[Row]:
    """Return (tag or pattern, action, options) of every row, sorted."""
    rows = [(_tag(record["id"]), record["basicProfile"], _options(record)) for record in published]
    known = {tag for tag, _, _ in rows}
    rows += [(tag, action, {}) for tag, action in _rows_of_2026c() if tag not in known]
    return sorted(rows, key=lambda row: row[0])


def attribute_types(tags: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return, by SOP class, the type of every place in which one of `tags` may stand.

    A place is the tags of the sequences on the way and the tag itself, joined by ``/``. Where
    several modules have one place, the strictest type counts.
    """
    standard = Path(highdicom.__file__).parent / "_standard"
    modules_of = json.loads((standard / "iod_module_map.json").read_text())
    attributes_of = json.loads((standard / "module_attribute_map.json").read_text())
    wanted = set(tags)
    types: dict[str, dict[str, str]] = {}
    for sop_class, iod in SOP_CLASSES.items():
        places: dict[str, str] = {}
        for module in modules_of[iod]:
            for attribute in attributes_of[module["key"]]:
                place = [_hexadecimal(word) for word in (*attribute["path"], attribute["keyword"])]
                if place[-1] in wanted and "" not in place:
                    name = "/".join(place)
                    both = (attribute["type"], places.get(name, "3"))
                    places[name] = min(both, key=STRICTEST_FIRST.index)
        types[sop_class] = dict(sorted(places.items()))
    return types


def _tag(identity: str) -> str:
    if "odd" in identity:
        return PRIVATE
    return PATTERNS.get(identity, identity.upper())


def _options(record: dict[str, str]) -> dict[str, str]:
    return {code: record[column] for column, code in OPTIONS.items() if column in record}


def _rows_of_2026c() -> Iterator[tuple[str, str]]:
    database = importlib.import_module(DATABASE)
    for name, action in LISTS.items():
        for tag in getattr(database, name):
            if len(tag) == 2:  # the others are the patterns
                yield f"{tag[0]:04X}{tag[1]:04X}", action


def _hexadecimal(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    return "" if tag is None else f"{tag:08X}"


def _lines(values: Iterable[Any]) -> str:
    return ",\n".join(json.dumps(value) for value in values)


def main() -> None:
    """Write both tables."""
    rows = profile_rows(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    head = {
        "source": "DICOM PS3.15 Annex E, Table E.1-1: what the standard prescribes",
        "edition": "2026c; rows that it adds to the edition of January 2025 have no options yet",
        "made_by": "scripts/make_confidentiality_tables.py",
        "columns": ["tag", "action", "options"],
    }
    table = json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n{_lines(rows)}\n ]\n}}\n'
    (TARGET / "table_e1_1.json").write_text(table, encoding="utf-8")
    typed = [tag for tag, action, _ in rows if "/" in action or action == "Z"]
    head = {
        "source": "DICOM PS3.3, module tables; attributes of Z and of choices in Table E.1-1",
        "made_by": "scripts/make_confidentiality_tables.py",
        "types": attribute_types(typed),
    }
    content = json.dumps(head, indent=1) + "\n"
    (TARGET / "attribute_types.json").write_text(content, encoding="utf-8")
    print(f"{len(rows)} rows")


if __name__ == "__main__":
    main()
