"""What `privdiff finetune` finds in a cohort before it trains: sources, checks, roles, report."""

from __future__ import annotations

import csv
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from privdiff_training.cohort import is_select_patient, parse_manifest, read_manifest
from privdiff_training.finetune_command import named_source
from privdiff_training.finetuning.checks import CheckedCohort, check_cohort
from privdiff_training.finetuning.cohort_report import checks_record, write_cohort_report
from privdiff_training.finetuning.config import SplitConfig
from privdiff_training.finetuning.folder import RunFolder, read_record
from privdiff_training.finetuning.problems import Effect
from privdiff_training.finetuning.roles import Role, assign_roles, patients
from privdiff_training.finetuning.sources import read_csv, read_dicom, write_used

from privdiff_infer.errors import CohortError, OptionError
from privdiff_infer.model.bundle import find_bundle, read_bundle
from privdiff_infer.model.critics import RadiographReader
from privdiff_infer.vocabulary import FINDINGS, FindingState
from tests.unit.cohort_factory import write_cohort
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp
from tests.unit.tiny import SIZE, TINY_RESNET

COHORT = Path(__file__).resolve().parents[1] / "data" / "cohort.csv"
EVERYTHING = -1e9
"""A frontal threshold that lets every image through, for readers of random weights."""


def checked(manifest: Path, **split: object) -> CheckedCohort:
    reader = RadiographReader(TINY_RESNET, 32).eval()
    return check_cohort(parse_manifest(manifest), SplitConfig(**split), reader, EVERYTHING, SIZE)


def problem(found: CheckedCohort, words: str):
    titles = [p.title for p in found.problems]
    assert any(words in title for title in titles), titles
    return next(p for p in found.problems if words in p.title)


def rewrite(manifest: Path, change) -> Path:
    """Let `change` change the rows of a manifest."""
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def write_dicom(path: Path, **attributes: str) -> None:
    path.write_bytes(dicom_bytes(radiograph_dataset(ramp(), **attributes)))


@pytest.fixture(scope="module")
def drawn_cohort() -> CheckedCohort:
    """The cohort of nobody, looked at with the reader of the embedded model."""
    bundle = find_bundle("privdiff-cxr-256")
    reader = RadiographReader.from_pretrained(bundle / "reader").eval()
    logit = read_bundle(bundle).metadata.gates.frontal_logit
    return check_cohort(read_csv(COHORT), SplitConfig(), reader, logit, 256)


@pytest.mark.parametrize(
    ("words", "effect", "image"),
    [
        ("duplicates of an earlier image: 1", Effect.LEFT_OUT, "cohort/nobody-duplicate.jpg"),
        (
            "near duplicates of an earlier image: 1",
            Effect.LEFT_OUT,
            "cohort/nobody-near-duplicate.png",
        ),
        ("photometric sense", Effect.LEFT_OUT, "cohort/nobody-inverted.png"),
        ("view is not frontal", Effect.LEFT_OUT, "cohort/nobody-lateral.jpg"),
        ("have no findings", Effect.WARNING, "cohort/nobody-unlabelled.jpg"),
    ],
)
def test_the_mistakes_of_the_drawn_cohort_are_found(drawn_cohort, words, effect, image):
    found = problem(drawn_cohort, words)

    assert found.effect is effect
    assert image in found.images
    is_used = image in {str(row.image) for row in drawn_cohort.cohort}
    assert is_used == (effect is Effect.WARNING)
    assert image in drawn_cohort.shown


def test_the_rest_of_the_drawn_cohort_is_used(drawn_cohort):
    assert not drawn_cohort.is_refused
    assert len(drawn_cohort.cohort) == len(drawn_cohort.roles) == len(drawn_cohort.pixels)
    assert len(drawn_cohort.cohort) >= 45
    assert patients(drawn_cohort.cohort) == 26
    assert all(patients(drawn_cohort.part(role)) >= 2 for role in Role)


def test_a_patient_in_two_splits_is_refused(tmp_path):
    def change(rows):
        rows[1]["split"] = "7"

    found = checked(rewrite(write_cohort(tmp_path, patients=20), change))

    assert problem(found, "1 patients have images in more than one split").effect is Effect.REFUSED
    assert found.is_refused


def test_the_same_image_of_two_patients_is_left_out(tmp_path):
    manifest = write_cohort(tmp_path, patients=20)
    (tmp_path / "p9_0.png").write_bytes((tmp_path / "p2_0.png").read_bytes())

    found = checked(manifest)

    assert "another patient's" in problem(found, "duplicates of an earlier image: 1").title
    assert "p9_0.png" not in {str(row.image) for row in found.cohort}


def test_too_few_patients_are_refused(tmp_path):
    found = checked(write_cohort(tmp_path, patients=4))
    assert problem(found, "too few patients").effect is Effect.REFUSED


def test_what_cannot_be_measured_is_said(tmp_path):
    found = checked(write_cohort(tmp_path, patients=20, images_per_patient=1))

    assert problem(found, "no linkage to follow-up").effect is Effect.WARNING
    assert problem(found, "no AUC of findings").effect is Effect.WARNING
    assert problem(found, "patients measure in the end").effect is Effect.WARNING
    assert not found.is_refused


def test_an_unreadable_image_is_left_out_with_its_reason(tmp_path):
    manifest = write_cohort(tmp_path, patients=20)
    (tmp_path / "p3_0.png").write_bytes(b"no image")

    found = checked(manifest)

    assert any("p3_0.png" in p.images and p.effect is Effect.LEFT_OUT for p in found.problems)
    assert "p3_0.png" not in {str(row.image) for row in found.cohort}


def test_a_cohort_without_a_readable_image_is_refused(tmp_path):
    manifest = write_cohort(tmp_path, patients=3)
    for image in tmp_path.glob("*.png"):
        image.write_bytes(b"no image")
    assert checked(manifest).is_refused


def test_unknown_findings_are_named_at_once(tmp_path):
    def change(rows):
        rows[0]["findings"] = "Pneumonitis"
        rows[1]["findings"] = "Effusion|Cough"

    manifest = rewrite(write_cohort(tmp_path), change)
    with pytest.raises(CohortError, match=r"'Cough' \(1 rows\), 'Pneumonitis' \(1 rows\)"):
        read_csv(manifest)


@pytest.mark.parametrize("named", [(None, None, None), (Path("a.csv"), Path("folder"), None)])
def test_one_cohort_is_named(named):
    with pytest.raises(OptionError, match="cohorts are named; name one"):
        named_source(*named)


def test_roles_follow_the_splits_where_there_are_any(tmp_path):
    cohort = parse_manifest(write_cohort(tmp_path, patients=20))
    roles = assign_roles(cohort, SplitConfig(test_folds=("1",)))

    for row, role in zip(cohort, roles, strict=True):
        assert (role is Role.TEST) == (row.fold == "1")
        assert not (is_select_patient(row) and role is Role.TRAIN), "no stage trains on them"


def test_drawn_roles_keep_patients_whole_and_do_not_change(tmp_path):
    cohort = parse_manifest(write_cohort(tmp_path, patients=30))
    config = SplitConfig(test_share=0.2, judge_share=0.25)
    roles = assign_roles(cohort, config)

    by_patient = {}
    for row, role in zip(cohort, roles, strict=True):
        by_patient.setdefault(row.unit, set()).add(role)
    assert all(len(found) == 1 for found in by_patient.values())
    assert roles == assign_roles(cohort, config)
    counts = [sum(found == {role} for found in by_patient.values()) for role in Role]
    assert counts == [18, 6, 6]


def test_the_used_manifest_says_what_the_found_one_said(tmp_path):
    def change(rows):
        rows[0]["findings"] = "Effusion|Mass"
        rows[1]["findings"] = ""
        rows[2]["findings"] = "Pneumonia|virus"  # what it does not name was never looked for

    found = parse_manifest(rewrite(write_cohort(tmp_path, patients=10), change))
    roles = [role.value for role in assign_roles(found, SplitConfig())]
    write_used(found, roles, tmp_path / "used.csv")
    used = read_manifest(tmp_path / "used.csv")

    assert [row.fold for row in used] == roles
    for one, other in zip(found, used, strict=True):
        assert one.findings == other.findings
        assert (one.unit, one.sex, one.age_years, one.view) == (
            other.unit,
            other.sex,
            other.age_years,
            other.view,
        )
    assert used.rows[2].findings[FINDINGS.index("Mass")] is FindingState.UNKNOWN


def test_a_dicom_folder_becomes_a_manifest(tmp_path):
    (tmp_path / "dicom").mkdir()
    for number in range(2):
        write_dicom(
            tmp_path / "dicom" / f"{number}.dcm",
            PatientID="Müller-17",
            PatientSex="F",
            PatientAge="047Y",
            ViewPosition="PA",
        )
    write_dicom(tmp_path / "dicom" / "lateral.dcm", PatientID="other", ViewPosition="LL")
    (tmp_path / "dicom" / "notes.txt").write_text("no image")
    folder = RunFolder(tmp_path / "run")
    folder.create()

    cohort = read_dicom(str(tmp_path / "dicom"), folder)

    by_name = {row.image.name: row for row in cohort}
    assert set(by_name) == {"0.dcm", "1.dcm", "lateral.dcm", "notes.txt"}
    first, second = by_name["0.dcm"], by_name["1.dcm"]
    assert first.unit == second.unit
    assert "Müller" not in folder.found.read_text()
    assert first.sex is not None and first.sex.name == "F"
    assert first.age_years == pytest.approx(47, abs=0.1)
    assert all(state is FindingState.UNKNOWN for state in first.findings)
    assert stat.S_IMODE(folder.found.stat().st_mode) == 0o600


def test_the_report_is_private_and_shows_pictures(tmp_path, drawn_cohort):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    write_cohort_report(drawn_cohort, folder)

    page = folder.report.read_text()
    assert page.count("data:image/png;base64") >= 15
    assert "must not leave" in page
    assert "nobody-inverted.png" in page
    assert stat.S_IMODE(folder.report.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700


def test_a_report_without_labels_says_so(tmp_path):
    def forget(rows):
        for row in rows:
            row["findings"] = ""

    folder = RunFolder(tmp_path / "run")
    folder.create()
    write_cohort_report(checked(rewrite(write_cohort(tmp_path), forget)), folder)
    page = folder.report.read_text()
    assert "No image is labelled with a finding." in page
    assert ">finding</th>" not in page


def test_the_record_of_the_checks_names_nobody(tmp_path, drawn_cohort):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    write_cohort_report(drawn_cohort, folder)
    record = read_record(folder.checks)

    assert record == checks_record(drawn_cohort)
    assert "nobody" not in folder.checks.read_text()
    assert record["roles"]["train"]["patients"] == patients(drawn_cohort.part(Role.TRAIN))


def test_most_images_inverted_is_refused(tmp_path):
    """A cohort that is inverted as a whole is no cohort with a few mistakes."""
    bundle = find_bundle("privdiff-cxr-256")
    reader = RadiographReader.from_pretrained(bundle / "reader").eval()
    rows = [["image", "patient_id", "findings"]]
    for number in range(6):
        original = Image.open(COHORT.parent / "cohort" / f"nobody-{number:02}-0.jpg")
        inverse = Image.fromarray(255 - np.asarray(original))
        inverse.save(tmp_path / f"{number}.png")
        rows.append([f"{number}.png", str(number), "No Finding"])
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows(rows)

    logit = read_bundle(bundle).metadata.gates.frontal_logit
    found = check_cohort(read_csv(manifest), SplitConfig(), reader, logit, 256)

    assert problem(found, "photometric sense").effect is Effect.REFUSED
