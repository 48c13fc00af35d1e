"""What the user named, as a manifest: a CSV, a folder of DICOM files, or a DICOMweb store."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom import Dataset
from rich.progress import track

from privdiff_infer.dicom.web import WebInstance
from privdiff_infer.errors import CohortError, ImageError
from privdiff_infer.radiograph import decode_radiograph
from privdiff_infer.release import write_private
from privdiff_infer.sources import Source, find_sources, read_source
from privdiff_infer.vocabulary import FINDING_TOKENS, FindingState
from privdiff_training.cohort import PARTIAL_LABELS, Cohort, CohortImage, parse_manifest
from privdiff_training.finetuning.folder import RunFolder

COLUMNS = ("image", "dataset", "patient_id", "findings", "sex", "age", "view")


def read_csv(manifest: Path) -> Cohort:
    """Read the user's own manifest; its splits are not checked yet.

    Raises
    ------
    CohortError
        If it cannot be read; unknown findings are named all at once, with their numbers.
    """
    unknown = _unknown_findings(manifest) if manifest.is_file() else Counter()
    if unknown:
        named = ", ".join(f"{name!r} ({count} rows)" for name, count in sorted(unknown.items()))
        raise CohortError(
            f"the manifest names unknown findings: {named}",
            f"use names of this list, or leave the field empty: {', '.join(FINDING_TOKENS)}",
        )
    return parse_manifest(manifest)


def _unknown_findings(manifest: Path) -> Counter[str]:
    with manifest.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        named = (
            name.strip()
            for record in csv.DictReader(file)
            for name in (record.get("findings") or record.get("labels") or "").split("|")
        )
        return Counter(name for name in named if name and name not in KNOWN)


KNOWN = frozenset({*FINDING_TOKENS, *PARTIAL_LABELS})


def read_dicom(named: str, folder: RunFolder) -> Cohort:
    """List DICOM files, or instances of a store, with what their headers say, as a manifest.

    Instances are fetched into the folder of the run. Headers name no findings: they stay unknown.
    A file that cannot be used stays in the list, so that the checks can say why.

    Parameters
    ----------
    named
        A folder or file, or the query of a DICOMweb store.
    folder
        Of the run.

    Raises
    ------
    OptionError, StoreError
        If nothing is found, or the store cannot be asked.
    """
    if not folder.found.exists():
        sources = find_sources([named])
        rows = [_row(source, folder) for source in track(sources, "Reading headers")]
        write_private(folder.found, _csv(rows))
    return parse_manifest(folder.found)


def _row(source: Source, folder: RunFolder) -> tuple[str, ...]:
    path, content = _local(source, folder)
    try:
        radiograph = decode_radiograph(content) if content else None
    except ImageError:
        radiograph = None  # the checks read it again and say what is wrong
    if radiograph is None:
        return (str(path), "cohort", "", "", "", "", "")
    header = radiograph.header
    age = header.age_years
    return (
        str(path),
        "cohort",
        _patient(radiograph.dataset),
        "",
        header.sex.name if header.sex is not None else "",
        "" if age is None or not 0 <= age <= 120 else f"{age:.1f}",
        header.view_position or "",
    )


def _local(source: Source, folder: RunFolder) -> tuple[Path, bytes]:
    """Return where a source lies on this machine, and its bytes; none if it cannot be read."""
    if not isinstance(source, WebInstance):
        try:
            return source.resolve(), read_source(source)
        except ImageError:
            return source.resolve(), b""
    path = folder.originals / f"{hashlib.sha256(str(source).encode()).hexdigest()[:16]}.dcm"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_private(path, read_source(source))
        except ImageError:
            return path, b""
    return path, path.read_bytes()


def _patient(dataset: Dataset | None) -> str:
    """Return a name for the patient that stays the same from run to run, empty without an ID."""
    if dataset is None or not dataset.get("PatientID"):
        return ""
    text = f"{dataset.get('IssuerOfPatientID', '')}:{dataset.PatientID}"
    return f"patient-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def write_used(cohort: Cohort, roles: Sequence[str], path: Path) -> None:
    """Write the manifest of the images that are used, with their roles as splits."""
    rows = (
        (
            str((cohort.root / row.image).resolve()),
            row.dataset,
            row.patient_id or "",
            _findings(row),
            row.sex.name if row.sex is not None else "",
            "" if row.age_years is None else row.age_years,
            row.view or "",
            role,
        )
        for row, role in zip(cohort, roles, strict=True)
    )
    write_private(path, _csv(rows, (*COLUMNS, "split")))


def _findings(row: CohortImage) -> str:
    """Return the findings as a manifest writes them."""
    states = zip(FINDING_TOKENS, row.findings, strict=True)
    present = [token for token, state in states if state is FindingState.PRESENT]
    is_partial = present and FindingState.UNKNOWN in row.findings
    return "|".join([*present, *([min(PARTIAL_LABELS)] if is_partial else [])])


def _csv(
    rows: Iterator[tuple[object, ...]] | Sequence[tuple[object, ...]],
    columns: Sequence[str] = COLUMNS,
) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()
