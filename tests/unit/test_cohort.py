"""Manifests: what is read, what is refused, and what the public sets' labels mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from privdiff_training.cohort import (
    CohortImage,
    is_judging_patient,
    is_select_patient,
    read_manifest,
)
from privdiff_training.config import DataConfig

from privdiff_infer.errors import CohortError
from privdiff_infer.vocabulary import FINDING_TOKENS, FindingState, Sex

UNKNOWN, ABSENT, PRESENT = FindingState.UNKNOWN, FindingState.ABSENT, FindingState.PRESENT


def manifest(
    folder: Path, *rows: str, header: str = "image,dataset,patient_id,labels,sex,age,fold"
) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def state(row: CohortImage, token: str) -> FindingState:
    return row.findings[FINDING_TOKENS.index(token)]


def test_a_row_is_read_with_its_labels(tmp_path: Path) -> None:
    path = manifest(tmp_path, "a.png,nih-chestxray14,p1,Edema|Mass,F,61,2")

    row = read_manifest(path).rows[0]

    assert (row.patient_id, row.sex, row.age_years, row.fold) == ("p1", Sex.F, 61.0, "2")
    assert state(row, "Edema") is PRESENT
    assert state(row, "Hernia") is ABSENT
    assert state(row, "No Finding") is ABSENT


def test_pneumonia_with_an_aetiology_leaves_other_findings_unknown(tmp_path: Path) -> None:
    path = manifest(tmp_path, "a.jpeg,kermany-paediatric,k1,Pneumonia|virus,,,0")

    row = read_manifest(path).rows[0]

    assert state(row, "Pneumonia") is PRESENT
    assert {state(row, token) for token in FINDING_TOKENS if token != "Pneumonia"} == {UNKNOWN}


def test_no_finding_of_the_paediatric_set_is_that_token_alone(tmp_path: Path) -> None:
    path = manifest(tmp_path, "a.jpeg,kermany-paediatric,,No Finding,,,0")

    row = read_manifest(path).rows[0]

    assert state(row, "No Finding") is PRESENT
    assert state(row, "Pneumonia") is UNKNOWN


def test_a_study_label_makes_all_findings_unknown(tmp_path: Path) -> None:
    path = manifest(tmp_path, "a.jpg,hannover-covid19,h1,COVID-19,M,,3")

    assert set(read_manifest(path).rows[0].findings) == {UNKNOWN}


def test_findings_and_split_are_accepted_as_column_names(tmp_path: Path) -> None:
    path = manifest(tmp_path, "a.png,p1,Edema,train", header="image,patient_id,findings,split")

    assert read_manifest(path).rows[0].fold == "train"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,x,p1,Broken rib,F,61,2", "line 2 names the unknown finding 'Broken rib'"),
        ("a.png,x,p1,Edema,X,61,2", "line 2 has the sex 'X'"),
        ("a.png,x,p1,Edema,F,old,2", "line 2 has the age 'old'"),
        ("a.png,x,p1,Edema|No Finding,F,61,2", "line 2 has both findings"),
    ],
)
def test_a_row_that_is_not_understood_is_an_error_with_its_line(
    tmp_path: Path, row: str, message: str
) -> None:
    with pytest.raises(CohortError, match=message):
        read_manifest(manifest(tmp_path, row))


def test_a_manifest_in_another_encoding_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes("image,patient_id,findings\nä.png,p1,Edema\n".encode("latin-1"))

    with pytest.raises(CohortError, match="no UTF-8 text; save the file as UTF-8"):
        read_manifest(path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no column findings or labels"):
        read_manifest(manifest(tmp_path, "a.png,p1", header="image,patient_id"))


def test_select_patients_are_about_a_tenth_and_whole_patients(tmp_path: Path) -> None:
    rows = [f"{p}_{i}.png,x,p{p},Edema,F,61,{p % 3}" for p in range(1000) for i in range(2)]
    cohort = read_manifest(manifest(tmp_path, *rows))

    selected = {row.patient_id for row in cohort if is_select_patient(row)}
    others = {row.patient_id for row in cohort if not is_select_patient(row)}

    assert 70 < len(selected) < 130
    assert not selected & others


def test_judging_patients_of_a_split_train_nothing(tmp_path: Path) -> None:
    rows = [f"{p}_{i}.png,x,p{p},Edema,F,61,{p % 4}" for p in range(1000) for i in range(2)]
    path = manifest(tmp_path, *rows)
    sources = ({"dataset": "x"},)

    (whole,) = DataConfig(manifest=path, sources=sources).read_sources()
    (kept,) = DataConfig(manifest=path, sources=sources, judging_folds=("3",)).read_sources()

    left_out = {row.patient_id for row in whole} - {row.patient_id for row in kept}
    judges = {row.patient_id for row in whole if row.fold == "3" and is_judging_patient(row)}
    assert left_out == judges
    assert 30 < len(judges) < 70
