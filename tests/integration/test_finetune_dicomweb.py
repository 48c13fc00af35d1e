"""A cohort in a DICOMweb store, as `privdiff finetune --dicomweb` reads it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from privdiff_training.finetuning.folder import RunFolder
from privdiff_training.finetuning.sources import read_dicom

from tests.integration.orthanc import Orthanc, needs_orthanc
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp

pytestmark = needs_orthanc

STUDY = "1.2.826.0.1.3680043.8.498.7"


def add(store: Orthanc, number: int, **attributes: object) -> None:
    facts = {
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": f"{STUDY}.{number}",
        "SOPInstanceUID": f"{STUDY}.{number}.1",
        **attributes,
    }
    dataset = radiograph_dataset(ramp(12), **facts)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    store.add(dicom_bytes(dataset))


def test_a_store_becomes_a_manifest_and_is_asked_once(
    orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(orthanc, 1, PatientSex="M", PatientAge="050Y")
    add(orthanc, 2, PatientSex="M", PatientAge="051Y")
    add(orthanc, 3, PatientID="another", ViewPosition="LL")
    folder = RunFolder(tmp_path / "run")
    folder.create()
    query = f"dicomweb+{orthanc.url}?Modality=CR"

    cohort = read_dicom(query, folder)

    frontal = [row for row in cohort if row.patient_id]
    assert len(cohort) == 3 and len(frontal) == 2, "what is no frontal image is told by the checks"
    assert len({row.unit for row in frontal}) == 1
    assert {row.age_years for row in frontal} == {50.0, 51.0}
    assert "PHI-4711" not in folder.found.read_text()
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in folder.originals.iterdir())

    orthanc.clear()
    assert read_dicom(query, folder) == cohort, "a run that continues has everything"
