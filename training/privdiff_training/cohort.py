"""A cohort: the validated rows of a manifest CSV.

Columns: ``image`` (path relative to the manifest), ``patient_id`` (may be empty), ``findings`` or
``labels`` (pipe-separated), and optionally ``sex``, ``age``, ``view``, ``study_date``, ``dataset``,
``split`` or ``fold``. Other columns are ignored.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from privdiff_infer.errors import CohortError
from privdiff_infer.vocabulary import FINDING_TOKENS, FINDINGS, NO_FINDING, FindingState, Sex

KERMANY = "kermany-paediatric"
PAEDIATRIC_YEARS = 3.0  # the set gives no ages but "one to five years old"

# Aetiologies and study labels of public sets that name no finding of the vocabulary. What such a
# row does not name was never looked for, so it is unknown rather than absent.
PARTIAL_LABELS = frozenset({"bacteria", "virus", "COVID-19"})


@dataclass(frozen=True)
class CohortImage:
    """One row of a cohort.

    `findings` holds one state per entry of ``FINDING_TOKENS``; `patient_id` is None where the
    source gives none, and `unit` is then the image's own strict unit (see `strict_unit`).
    """

    image: Path
    dataset: str
    patient_id: str | None
    unit: str
    findings: tuple[FindingState, ...]
    sex: Sex | None
    age_years: float | None
    view: str | None
    fold: str | None


@dataclass(frozen=True)
class Cohort:
    """Rows in the order of the manifest, and the folder that their paths are relative to."""

    root: Path
    rows: tuple[CohortImage, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[CohortImage]:
        return iter(self.rows)

    def where(self, keep: Callable[[CohortImage], bool]) -> Cohort:
        """Return the rows for which `keep` is true."""
        return Cohort(self.root, tuple(row for row in self.rows if keep(row)))

    def by_dataset(self) -> dict[str, Cohort]:
        """Return the rows of each data set, by its name."""
        names = sorted({row.dataset for row in self.rows})
        return {
            name: Cohort(self.root, tuple(row for row in self.rows if row.dataset == name))
            for name in names
        }

    def without_units_of(self, other: Cohort) -> Cohort:
        """Return the rows whose strict unit does not occur in `other`."""
        units = {row.unit for row in other}
        return self.where(lambda row: row.unit not in units)


def read_manifest(path: Path) -> Cohort:
    """Read and check a manifest.

    Raises
    ------
    CohortError
        If `parse_manifest` does, or a patient has images in more than one split.
    """
    cohort = parse_manifest(path)
    refuse_crossing_patients(cohort.rows)
    return cohort


def parse_manifest(path: Path) -> Cohort:
    """Read a manifest whose splits are not checked.

    Raises
    ------
    CohortError
        If the file or a required column is missing, the file is no UTF-8 text, or a finding, sex or
        age is not understood.
    """
    if not path.is_file():
        raise CohortError(f"manifest {path} does not exist", "name an existing CSV file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            records = list(csv.DictReader(file))
    except UnicodeDecodeError as error:
        raise CohortError(f"manifest {path} is no UTF-8 text", "save the file as UTF-8") from error
    if not records:
        raise CohortError(f"manifest {path} has no rows", "list at least one image")
    _require_columns(set(records[0]))
    rows = tuple(_parse(record, line) for line, record in enumerate(records, start=2))
    return Cohort(path.parent, rows)


def refuse_crossing_patients(rows: Sequence[CohortImage]) -> None:
    """Raise `CohortError` if a patient has images in more than one split."""
    crossing = crossing_patients(rows)
    if crossing:
        raise CohortError(
            f"{len(crossing)} patient(s) have images in more than one split",
            "give all images of a patient the same split or fold",
        )


def crossing_patients(rows: Sequence[CohortImage]) -> set[tuple[str, str]]:
    """Return data set and id of the patients that have images in more than one split."""
    splits = defaultdict(set)
    for row in rows:
        if row.patient_id is not None:
            splits[row.dataset, row.patient_id].add(row.fold)
    return {patient for patient, folds in splits.items() if len(folds) > 1}


def is_select_patient(row: CohortImage) -> bool:
    """Tell whether a row belongs to the tenth of the patients kept for choosing checkpoints.

    The hash is fixed, so that every stage and every measurement agrees on it.
    """
    digest = hashlib.sha256(f"select-v1:{row.dataset}:{row.unit}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 10 == 0


def is_judging_patient(row: CohortImage) -> bool:
    """Tell whether a row belongs to the fifth of the patients on whom networks are judged.

    Applied to the split of the attackers: they train on the other four fifths, and early stopping
    and the quality of critics are measured on this one.
    """
    digest = hashlib.sha256(f"judge-v1:{row.dataset}:{row.unit}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 5 == 0


def strict_unit(dataset: str, patient_id: str | None, image: str) -> str:
    """Return the coarsest person identifier that the source allows.

    Kermany's file names may split one child over several ids, so there the person number alone, or
    the prefix with the ``IM-`` series number, counts as one unit.

    Examples
    --------
    >>> strict_unit("kermany-paediatric", "kermany-v12", "kermany224/person12_virus_3.jpeg")
    'kermany-paediatric:person12'
    >>> strict_unit("kermany-paediatric", None, "kermany224/NORMAL2-IM-0005-0001.jpeg")
    'kermany-paediatric:NORMAL2-IM-0005'
    >>> strict_unit("nih-chestxray14", "nih-01280", "nih/00001280_004.jpg")
    'nih-chestxray14:nih-01280'
    """
    name = Path(image).stem
    if dataset == KERMANY:
        match = re.match(r"(person\d+)_", name) or re.match(r"(.*IM-\d+)-", name)
        if match:
            return f"{dataset}:{match.group(1)}"
    return f"{dataset}:{patient_id or name}"


def _require_columns(columns: set[str]) -> None:
    for alternatives in (("image",), ("patient_id",), ("findings", "labels")):
        if not columns & set(alternatives):
            raise CohortError(
                f"the manifest has no column {' or '.join(alternatives)}",
                "add it; the columns are image,patient_id,findings[,sex,age,view,split]",
            )


def _parse(record: dict[str, str], line: int) -> CohortImage:
    dataset = record.get("dataset") or "cohort"
    patient_id = record["patient_id"] or None
    return CohortImage(
        image=Path(record["image"]),
        dataset=dataset,
        patient_id=patient_id,
        unit=strict_unit(dataset, patient_id, record["image"]),
        findings=_findings(record.get("findings") or record.get("labels") or "", dataset, line),
        sex=_sex(record.get("sex") or "", line),
        age_years=_age(record.get("age") or "", line) if dataset != KERMANY else PAEDIATRIC_YEARS,
        view=record.get("view") or None,
        fold=record.get("split") or record.get("fold") or None,
    )


def _findings(text: str, dataset: str, line: int) -> tuple[FindingState, ...]:
    names = {name.strip() for name in text.split("|") if name.strip()}
    unknown = names - set(FINDING_TOKENS) - PARTIAL_LABELS
    if unknown:
        raise CohortError(
            f"line {line} names the unknown finding {sorted(unknown)[0]!r}",
            f"use names of this list: {', '.join(FINDING_TOKENS)}",
        )
    partial = dataset == KERMANY or not names or names & PARTIAL_LABELS
    unnamed = FindingState.UNKNOWN if partial else FindingState.ABSENT
    if NO_FINDING in names and names & set(FINDINGS):
        raise CohortError(f"line {line} has both findings and {NO_FINDING!r}", "keep one of them")
    return tuple(FindingState.PRESENT if token in names else unnamed for token in FINDING_TOKENS)


def _sex(text: str, line: int) -> Sex | None:
    if not text:
        return None
    if text not in Sex.__members__:
        raise CohortError(f"line {line} has the sex {text!r}", "write F, M or nothing")
    return Sex[text]


def _age(text: str, line: int) -> float | None:
    if not text:
        return None
    try:
        age = float(text)
    except ValueError:
        age = -1.0
    if not 0 <= age <= 120:
        raise CohortError(f"line {line} has the age {text!r}", "write years from 0 to 120")
    return age
