"""Groups of a cohort's own patients in a fine-tuning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from privdiff_training.assemble import write_metadata
from privdiff_training.config import DataConfig
from privdiff_training.finetuning.groups import lacks_patients_for_groups, regroup

from privdiff_infer.model.bundle import BundleInfo, read_bundle
from privdiff_infer.model.clusters import PatientClusters
from privdiff_infer.model.critics import RadiographReader
from privdiff_infer.pipeline import PrivDiffPipeline
from tests.conftest import tiny_metadata
from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import SIZE, tiny_pipeline


def bundle(folder: Path, clusters: PatientClusters | None) -> BundleInfo:
    pipeline = tiny_pipeline()
    pipeline.register_modules(clusters=clusters)
    pipeline.save_pretrained(folder)
    write_metadata(folder, tiny_metadata())
    return read_bundle(folder)


@pytest.fixture
def grouped(tmp_path: Path) -> BundleInfo:
    clusters = PatientClusters(3, (4, 4, 4), num_exemplars=2)
    clusters.patients.copy_(torch.tensor([20, 20, 30]))
    return bundle(tmp_path / "base", clusters)


def cohort(folder: Path, patients: int) -> DataConfig:
    root = folder / f"cohort-{patients}"
    root.mkdir()
    manifest = write_cohort(root, patients=patients)
    return DataConfig(manifest=manifest, image_size=SIZE, cache_dir=folder / "cache")


def trained_reader(folder: Path) -> Path:
    tiny_pipeline(seed=3).reader.save_pretrained(folder / "reader")
    return folder / "reader"


def test_a_fitted_reader_brings_groups_of_its_cohort(grouped: BundleInfo, tmp_path: Path) -> None:
    data, components = cohort(tmp_path, 30), tmp_path / "components"
    reader = trained_reader(tmp_path)

    regroup(grouped, reader, data, components, seed=0)

    clusters = PatientClusters.from_pretrained(components / "clusters")
    patients = len({row.unit for source in data.read_sources() for row in source})
    assert clusters.patients.sum() == patients
    assert clusters.patients.min() >= 10 and len(clusters.patients) <= 3
    assert clusters.exemplars.shape[:2] == (len(clusters.patients), 2)
    pipeline = PrivDiffPipeline.from_pretrained(grouped.path)
    pipeline.register_modules(reader=RadiographReader.from_pretrained(reader), clusters=clusters)
    assert pipeline(torch.rand(1, 1, SIZE, SIZE)).images.isfinite().all()


def test_a_small_cohort_cannot_have_groups(grouped: BundleInfo, tmp_path: Path) -> None:
    reason = lacks_patients_for_groups(grouped, cohort(tmp_path, 6))

    assert reason is not None
    assert "need 50 training patients" in reason
    assert lacks_patients_for_groups(grouped, cohort(tmp_path, 80)) is None


def test_a_base_without_groups_needs_none(tmp_path: Path) -> None:
    plain, components = bundle(tmp_path / "plain", None), tmp_path / "components"
    data = cohort(tmp_path, 6)

    regroup(plain, trained_reader(tmp_path), data, components, seed=0)

    assert lacks_patients_for_groups(plain, data) is None
    assert not (components / "clusters").exists()
