"""Batches on a tiny real model: accounting, determinism, resuming, bad files among good ones."""

from __future__ import annotations

import json
import logging
import pickle
from functools import partial
from pathlib import Path
from shutil import copytree

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from privdiff_training.assemble import write_metadata
from pydicom.uid import ComputedRadiographyImageStorage, SecondaryCaptureImageStorage

from privdiff_infer import batch as batch_module
from privdiff_infer.anonymizer import Anonymizer, AnonymizerOptions
from privdiff_infer.batch import HELD_RESULT, Batch, run_batch
from privdiff_infer.dicom.output import DicomOutput
from privdiff_infer.dicom.profile_table import Option
from privdiff_infer.errors import ImageHeld, ImageRejected
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.release import Status
from privdiff_infer.sources import find_sources
from tests.conftest import tiny_metadata, write_picture
from tests.unit.derived_factory import DERIVATION
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp
from tests.unit.outputs import open_journal

OPTIONS = AnonymizerOptions(device="cpu")


@pytest.fixture
def factory(tiny_bundle):
    return partial(Anonymizer.from_bundle, tiny_bundle, OPTIONS)


def make_batch(out: Path, seed: str = "1", output_format=OutputFormat.AUTO) -> Batch:
    batch = Batch(out, seed, output_format)
    batch.folders.create()
    return batch


def start(files, batch: Batch, factory, **options):
    return run_batch(files, batch, open_journal(batch.folders), factory, **options)


def results(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "release" / "images").iterdir()}


def test_every_file_becomes_a_row(tmp_path, pictures, factory):
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (pictures / "letter.txt").write_text("no image")
    (pictures / "empty.dcm").touch()
    child = radiograph_dataset(ramp(), PatientAge="005Y")
    (pictures / "child.dcm").write_bytes(dicom_bytes(child))
    (pictures / "lateral.dcm").write_bytes(
        dicom_bytes(radiograph_dataset(ramp(), ViewPosition="LL"))
    )
    outcomes = list(start(find_sources([str(pictures)]), make_batch(tmp_path / "o"), factory))
    status = {Path(o.row.source).name: o.row.status for o in outcomes}
    assert status == {
        "broken.png": Status.FAILED,
        "letter.txt": Status.FAILED,
        "empty.dcm": Status.FAILED,
        "child.dcm": Status.HELD,
        "lateral.dcm": Status.HELD,
        **{f"Doe_Jane_{n}.png": Status.RELEASED for n in range(3)},
    }
    assert len(results(tmp_path / "o")) == 3
    assert all((o.row.status is Status.RELEASED) == bool(o.row.output) for o in outcomes)
    assert not list((tmp_path / "o").rglob(".partial*"))


def test_order_workers_and_company_change_nothing(tmp_path, pictures, factory):
    files = find_sources([str(pictures)])
    list(start(files, make_batch(tmp_path / "a"), factory))
    list(start(files[::-1], make_batch(tmp_path / "b"), factory, workers=2))
    list(start(files[1:2], make_batch(tmp_path / "c"), factory))
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert results(tmp_path / "c").items() <= results(tmp_path / "a").items()


def test_another_seed_gives_other_names_and_pixels(tmp_path, pictures, factory):
    files = find_sources([str(pictures)])
    list(start(files, make_batch(tmp_path / "a"), factory))
    list(start(files, make_batch(tmp_path / "b", seed="2"), factory))
    a, b = results(tmp_path / "a"), results(tmp_path / "b")
    assert not a.keys() & b.keys()
    assert not set(a.values()) & set(b.values())


def test_stopped_run_continues(tmp_path, pictures, factory):
    files = find_sources([str(pictures)])
    list(start(files, make_batch(tmp_path / "whole"), factory))
    batch = make_batch(tmp_path / "stopped")
    run = start(files, batch, factory)
    first = next(run)
    run.close()
    with batch.folders.journal.open("a") as journal:
        journal.write('{"row": {"source": "torn')
    written = (batch.out / first.row.output).stat().st_mtime_ns
    outcomes = list(start(files, batch, factory))
    assert (batch.out / first.row.output).stat().st_mtime_ns == written
    assert sorted(o.row.source for o in outcomes) == sorted(map(str, files))
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_changed_or_lost_result_is_done_again(tmp_path, pictures, factory):
    files = find_sources([str(pictures)])
    batch = make_batch(tmp_path / "out")
    before = list(start(files, batch, factory))
    whole = results(batch.out)
    (batch.out / before[0].row.output).unlink()
    (batch.out / before[1].row.output).write_bytes(b"changed")
    list(start(files, batch, factory))
    assert results(batch.out) == whole


def test_result_too_close_to_its_source_is_held(tmp_path, pictures, tiny_bundle):
    strict = copytree(tiny_bundle, tmp_path / "strict")
    gates = {"frontal_logit": -1e9, "linkage_similarity": -1.0}
    write_metadata(strict, tiny_metadata(gates=gates))
    factory = partial(Anonymizer.from_bundle, strict, OPTIONS)
    outcome = next(start(find_sources([str(pictures)]), make_batch(tmp_path / "o"), factory))
    assert outcome.row.status is Status.HELD
    assert outcome.row.output.startswith("private/held/")
    assert outcome.figures is not None
    assert outcome.figures.attempts == 3
    assert outcome.figures.strength == pytest.approx(0.5)
    assert "cosine" in outcome.row.reason
    assert outcome.public_reason == HELD_RESULT
    assert results(tmp_path / "o") == {}


def test_nrrd_has_a_preview(tmp_path, pictures, factory):
    batch = make_batch(tmp_path / "out", output_format=OutputFormat.NRRD)
    list(start(find_sources([str(pictures)]), batch, factory))
    assert len(list(batch.folders.previews.glob("*.png"))) == 3
    assert len(list(batch.folders.images.glob("*.nrrd"))) == 3


class TestDicomResults:
    @pytest.fixture
    def files(self, tmp_path, pictures):
        (tmp_path / "sources").mkdir()
        path = tmp_path / "sources" / "Doe_Jane.dcm"
        path.write_bytes(dicom_bytes(radiograph_dataset(ramp())))
        return [path, pictures / "Doe_Jane_0.png"]

    def batch(self, out: Path, output_format=OutputFormat.AUTO, **options) -> Batch:
        batch = Batch(out, "1", output_format, DicomOutput(DERIVATION, **options))
        batch.folders.create()
        return batch

    def test_auto_writes_dicom_for_dicom_with_a_preview(self, tmp_path, files, factory):
        batch = self.batch(tmp_path / "out")
        outcomes = list(start(files, batch, factory))

        assert [Path(o.row.output).suffix for o in outcomes] == [".dcm", ".png"]
        name = Path(outcomes[0].row.output).stem
        assert [path.name for path in batch.folders.previews.iterdir()] == [f"{name}.png"]
        dataset = pydicom.dcmread(batch.out / outcomes[0].row.output)
        preview = np.asarray(Image.open(batch.folders.previews / f"{name}.png"), np.float64)
        half_a_step_of_each = 0.5 / 255 + 0.51 / 4095
        shown = dataset.pixel_array / 4095
        np.testing.assert_allclose(shown, preview / 255, rtol=0, atol=half_a_step_of_each)

    def test_every_source_becomes_dicom_on_demand(self, tmp_path, files, factory):
        batch = self.batch(tmp_path / "out", OutputFormat.DICOM)
        outcomes = list(start(files, batch, factory))
        classes = [pydicom.dcmread(batch.out / o.row.output).SOPClassUID for o in outcomes]
        assert classes == [ComputedRadiographyImageStorage, SecondaryCaptureImageStorage]

    def test_workers_change_no_byte(self, tmp_path, files, factory):
        for name, workers in (("a", 1), ("b", 2)):
            list(start(files, self.batch(tmp_path / name), factory, workers=workers))
        assert results(tmp_path / "a") == results(tmp_path / "b")

    def test_key_does_not_travel_with_the_batch(self, tmp_path, pseudonym_key):
        batch = self.batch(tmp_path / "out")
        assert pseudonym_key.read_bytes() not in pickle.dumps(batch)
        assert pseudonym_key.read_text() not in repr(batch.encoder())

    def test_held_result_is_dicom_too_and_has_no_preview(self, tmp_path, files, tiny_bundle):
        strict = copytree(tiny_bundle, tmp_path / "strict")
        gates = {"frontal_logit": -1e9, "linkage_similarity": -1.0}
        write_metadata(strict, tiny_metadata(gates=gates))
        batch = self.batch(tmp_path / "out")
        factory = partial(Anonymizer.from_bundle, strict, OPTIONS)
        (outcome,) = start(files[:1], batch, factory)

        assert outcome.row.output.startswith("private/held/")
        dataset = pydicom.dcmread(batch.out / outcome.row.output)
        assert "strength 0.5" in dataset.DerivationDescription
        assert not list(batch.folders.release.rglob("*.*"))

    def test_options_of_the_profile_reach_the_file(self, tmp_path, files, factory):
        options = frozenset({Option.RETAIN_UIDS})
        batch = self.batch(tmp_path / "out", options=options)
        (outcome,) = start(files[:1], batch, factory)
        dataset = pydicom.dcmread(batch.out / outcome.row.output)
        (source,) = dataset.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == outcome.row.sop_instance_uid


def test_same_file_twice_is_two_rows_and_one_result(tmp_path, factory):
    write_picture(tmp_path / "a.png", 0)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    outcomes = list(start(files, make_batch(tmp_path / "out"), factory))
    assert len(outcomes) == 2
    assert len(results(tmp_path / "out")) == 1


def test_journal_lines_are_json(tmp_path, pictures, factory):
    batch = make_batch(tmp_path / "out")
    list(start(find_sources([str(pictures)]), batch, factory))
    lines = batch.folders.journal.read_text().splitlines()
    assert [json.loads(line)["row"]["status"] for line in lines] == ["released"] * 3


def test_changed_source_is_done_again_and_its_old_result_goes(tmp_path, pictures, factory):
    files = find_sources([str(pictures)])
    batch = make_batch(tmp_path / "out")
    before = [o.row.output for o in start(files, batch, factory)]
    write_picture(files[0], seed=99)
    after = [o.row.output for o in start(files, batch, factory)]

    assert not (batch.out / before[0]).exists()
    assert before[0] not in after
    assert set(before[1:]) < set(after)
    assert {f"release/images/{name}" for name in results(batch.out)} == set(after)


def test_lost_result_of_a_source_that_is_not_named_is_a_failed_row(tmp_path, pictures, factory):
    files = find_sources([str(pictures)])
    batch = make_batch(tmp_path / "out")
    outcomes = list(start(files, batch, factory))
    (batch.out / outcomes[2].row.output).unlink()
    journal = open_journal(batch.folders)
    list(run_batch(files[:1], batch, journal, factory))

    rows = {o.row.source: o.row for o in journal.outcomes}
    assert [rows[str(path)].status.value for path in files] == ["released", "released", "failed"]
    assert "removed or changed" in rows[str(files[2])].reason


def test_interruption_between_result_and_pictures_leaves_no_result(
    tmp_path, pictures, factory, monkeypatch
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch_module, "write_review_pictures", interrupt)
    batch = make_batch(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        next(start(find_sources([str(pictures)]), batch, factory))

    assert results(batch.out) == {}


@pytest.mark.parametrize("lost", ["private/review", "release/images", "release/previews"])
def test_result_that_cannot_be_written_as_a_whole_is_a_failed_row(
    tmp_path, pictures, factory, lost
):
    batch = make_batch(tmp_path / "out", output_format=OutputFormat.NRRD)
    folder = batch.out / lost
    if folder.exists():
        folder.rmdir()
    folder.touch()
    (outcome,) = start(find_sources([str(pictures)])[:1], batch, factory)

    assert outcome.row.status is Status.FAILED
    assert "cannot be written" in outcome.row.reason
    left = [path for path in batch.out.rglob("*") if path.is_file() and path != folder]
    records = {"journal.jsonl", "audit.jsonl", "audit.lock"}
    assert {path.name for path in left} <= records


def test_result_whose_line_cannot_be_written_is_a_failed_row(tmp_path, pictures, factory):
    batch = make_batch(tmp_path / "out")
    journal = open_journal(batch.folders)

    def spoil_the_journal() -> Anonymizer:
        batch.folders.journal.mkdir()
        return factory()

    (outcome,) = run_batch(find_sources([str(pictures)])[:1], batch, journal, spoil_the_journal)

    assert outcome.row.status is Status.FAILED
    assert results(batch.out) == {}
    assert journal.outcomes == [outcome]


class Failing:
    """Stands for an anonymizer that raises an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def anonymize(self, radiograph, image_seed, progress=None):
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "public", "private"),
    [
        (ImageHeld("no chest", "check it", detail="DOE"), "held", "no chest; check it", "(DOE)"),
        (ImageRejected("bad", "check it", detail="DOE"), "failed", "bad; check it", "(DOE)"),
        (MemoryError(), "failed", "not enough memory; use fewer", "fewer workers"),
        (
            torch.OutOfMemoryError("DOE"),
            "failed",
            "not enough memory on the device; use fewer workers",
            "--device cpu",
        ),
        (ValueError("DOE"), "failed", "unexpected ValueError; run with --verbose", "report it"),
    ],
)
def test_error_is_a_row_whose_public_reason_is_constant(
    tmp_path, pictures, caplog, error, status, public, private
):
    caplog.set_level(logging.DEBUG)
    batch = make_batch(tmp_path / "out")
    (outcome,) = start(find_sources([str(pictures)])[:1], batch, lambda: Failing(error))

    assert outcome.row.status.value == status
    assert outcome.public_reason.startswith(public)
    assert private in outcome.row.reason
    assert "DOE" not in outcome.public_reason
    assert "DOE" not in caplog.text


def test_uid_of_an_image_that_its_reader_held_is_kept(tmp_path, pictures, factory, monkeypatch):
    def hold(path: Path) -> None:
        error = ImageHeld("no chest", "check it")
        error.sop_instance_uid = "1.2.3"
        raise error

    monkeypatch.setattr(batch_module, "decode_radiograph", hold)
    outcome = next(start(find_sources([str(pictures)]), make_batch(tmp_path / "out"), factory))

    assert outcome.row.sop_instance_uid == "1.2.3"
