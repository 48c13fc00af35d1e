"""What a DICOM header says, as plain values: text, numbers, the facts and the patient's age.

An element that is there but empty says nothing, like one that is absent (PS3.5 7.4.5).
"""

from __future__ import annotations

import math
import re
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue

from privdiff_infer.errors import ImageHeld
from privdiff_infer.radiograph import HeaderFacts
from privdiff_infer.vocabulary import Sex

Date = tuple[int, int, int]
"""Year, month, day."""

AGE_UNITS_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
"""Units of PS3.5 6.2, VR AS. Public data sets also hold bare numbers, which are years."""

OLDEST_YEARS = 130
FIRST_PLAUSIBLE_YEAR = 1850
"""De-identifiers write days such as 00010101 where a date was; they are no dates."""

EXAMINATION_DATES = ("StudyDate", "AcquisitionDate", "SeriesDate", "ContentDate")
"""Where the day of the examination is looked for, in this order."""

NOTHING_STATED = frozenset(
    {
        "",
        "UNKNOWN",
        "UNK",
        "NONE",
        "NULL",
        "NA",
        "N A",
        "N/A",
        "NOT SPECIFIED",
        "UNSPECIFIED",
        "UNDEFINED",
    }
)
"""Upper-case words that say that nothing is known."""


SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""Distances of pixel centres, (row, column) in mm: calibrated, at the imager, of a scanned film."""


def text(dataset: Dataset, keyword: str) -> str | None:
    """Return an element as stripped text, several values separated by backslashes, or None."""
    value = dataset.get(keyword)
    if isinstance(value, MultiValue):
        value = "\\".join(str(part) for part in value)
    return str(value).strip() or None if value is not None else None


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return the first value of a numeric element, or None.

    Raises
    ------
    ValueError
        If the element holds text that is no number.
    """
    value: Any = dataset.get(keyword)
    if isinstance(value, MultiValue):
        value = value[0] if value else None
    return float(value) if value is not None and str(value).strip() else None


def spacing(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Return one of `SPACINGS`, or None where it is absent or cannot be one, such as 0\\0."""
    values = dataset.get(keyword)
    if values is None or isinstance(values, str) or len(values) != 2:
        return None
    row, column = float(values[0]), float(values[1])
    usable = math.isfinite(row) and math.isfinite(column) and row > 0 and column > 0
    return (row, column) if usable else None


def header_facts(dataset: Dataset) -> HeaderFacts:
    """Collect the facts.

    Raises
    ------
    ImageHeld
        If the header states an age that cannot be understood.
    """
    return HeaderFacts(
        modality=text(dataset, "Modality"),
        body_part=text(dataset, "BodyPartExamined"),
        view_position=text(dataset, "ViewPosition"),
        sex=Sex.__members__.get((text(dataset, "PatientSex") or "").upper()),
        age_years=_age_years(dataset),
    )


def _age_years(dataset: Dataset) -> float | None:
    """Return the age at the examination in years: as stated, else between two dates.

    A stated age that makes no sense may be a child's, so it is not the same as none.
    """
    stated, born = text(dataset, "PatientAge") or "", text(dataset, "PatientBirthDate") or ""
    birth = _date(born)
    for age in (_stated_age(stated), _age_between(birth, _examination_date(dataset))):
        if age is not None and 0 <= age <= OLDEST_YEARS:
            return age
    born_unknown = born.upper() in NOTHING_STATED or (birth is not None and _is_dummy(birth))
    if stated.upper() in NOTHING_STATED and born_unknown:
        return None
    raise ImageHeld(
        "the age of the patient in the header cannot be understood, so it may be a child's",
        "correct PatientAge, or PatientBirthDate and StudyDate",
        detail=f"PatientAge {stated!r}, PatientBirthDate {born!r}",
    )


def _stated_age(stated: str) -> float | None:
    match = re.fullmatch(r"(\d{1,3})\s*([YMWD]?)", stated, re.IGNORECASE)
    return int(match[1]) / AGE_UNITS_PER_YEAR[match[2].upper()] if match else None


def _age_between(birth: Date | None, examination: Date | None) -> float | None:
    """Return whole years between two dates."""
    if birth is None or examination is None or _is_dummy(birth):
        return None
    return float(examination[0] - birth[0] - (examination[1:] < birth[1:]))


def _examination_date(dataset: Dataset) -> Date | None:
    for keyword in EXAMINATION_DATES:
        date = _date(text(dataset, keyword) or "")
        if date is not None and not _is_dummy(date):
            return date
    return None


def _date(stated: str) -> Date | None:
    """Read a DA value (PS3.5 6.2), also in the older form with dots."""
    match = re.fullmatch(r"(\d{4})(\.?)(\d{2})\2(\d{2})", stated)
    return (int(match[1]), int(match[3]), int(match[4])) if match else None


def _is_dummy(date: Date) -> bool:
    return date[0] < FIRST_PLAUSIBLE_YEAR
