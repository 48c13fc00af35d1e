"""Batches on a tiny real model: accounting, determinism, resuming, bad files among good ones."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import partial
from pathlib import Path
from shutil import copytree

import pytest
from privdiff_training.assemble import write_metadata

from privdiff_infer.anonymizer import Anonymizer, AnonymizerOptions
from privdiff_infer.batch import Batch, run_batch
from privdiff_infer.image_files import OutputFormat
from privdiff_infer.release import Review, Status
from privdiff_infer.sources import find_sources
from tests.conftest import tiny_metadata, write_picture
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp

OPTIONS = AnonymizerOptions(device="cpu")


@pytest.fixture
def factory(tiny_bundle):
    return partial(Anonymizer.from_bundle, tiny_bundle, OPTIONS)


def make_batch(out: Path, seed: str = "1", output_format=OutputFormat.AUTO) -> Batch:
    batch = Batch(out, seed, output_format)
    batch.folders.create()
    return batch


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
    outcomes = list(run_batch(find_sources([str(pictures)]), make_batch(tmp_path / "o"), factory))
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
    assert all((o.row.review is Review.PENDING) == bool(o.row.output) for o in outcomes)
    assert not list((tmp_path / "o").rglob(".partial*"))


def test_order_workers_and_company_change_nothing(tmp_path, pictures, factory):
    files = find_sources([str(pictures)])
    list(run_batch(files, make_batch(tmp_path / "a"), factory))
    list(run_batch(files[::-1], make_batch(tmp_path / "b"), factory, workers=2))
    list(run_batch(files[1:2], make_batch(tmp_path / "c"), factory))
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert results(tmp_path / "c").items() <= results(tmp_path / "a").items()


def test_another_seed_gives_other_names_and_pixels(tmp_path, pictures, factory):
    files = find_sources([str(pictures)])
    list(run_batch(files, make_batch(tmp_path / "a"), factory))
    list(run_batch(files, make_batch(tmp_path / "b", seed="2"), factory))
    a, b = results(tmp_path / "a"), results(tmp_path / "b")
    assert not a.keys() & b.keys()
    assert not set(a.values()) & set(b.values())


def test_stopped_run_continues(tmp_path, pictures, factory):
    files = find_sources([str(pictures)])
    list(run_batch(files, make_batch(tmp_path / "whole"), factory))
    batch = make_batch(tmp_path / "stopped")
    run = run_batch(files, batch, factory)
    first = next(run)
    run.close()
    with batch.folders.journal.open("a") as journal:
        journal.write('{"row": {"source": "torn')
    written = (batch.out / first.row.output).stat().st_mtime_ns
    outcomes = list(run_batch(files, batch, factory))
    assert (batch.out / first.row.output).stat().st_mtime_ns == written
    assert sorted(o.row.source for o in outcomes) == sorted(map(str, files))
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_changed_or_lost_result_is_done_again(tmp_path, pictures, factory):
    files = find_sources([str(pictures)])
    batch = make_batch(tmp_path / "out")
    before = list(run_batch(files, batch, factory))
    whole = results(batch.out)
    (batch.out / before[0].row.output).unlink()
    (batch.out / before[1].row.output).write_bytes(b"changed")
    list(run_batch(files, batch, factory))
    assert results(batch.out) == whole


def test_dying_worker_costs_one_image(tmp_path, pictures, tiny_bundle):
    files = find_sources([str(pictures)])
    factory = partial(_fragile, tiny_bundle)
    outcomes = list(run_batch(files, make_batch(tmp_path / "out"), factory, workers=2))
    reasons = {Path(o.row.source).name: o.row.reason for o in outcomes}
    assert len(outcomes) == 3
    assert "died" in reasons["Doe_Jane_1.png"]
    assert not reasons["Doe_Jane_0.png"]
    assert not reasons["Doe_Jane_2.png"]


def test_result_too_close_to_its_source_is_held(tmp_path, pictures, tiny_bundle):
    strict = copytree(tiny_bundle, tmp_path / "strict")
    gates = {"frontal_logit": -1e9, "linkage_similarity": -1.0}
    write_metadata(strict, tiny_metadata(gates=gates))
    factory = partial(Anonymizer.from_bundle, strict, OPTIONS)
    outcome = next(run_batch(find_sources([str(pictures)]), make_batch(tmp_path / "o"), factory))
    assert outcome.row.status is Status.HELD
    assert outcome.row.output.startswith("private/held/")
    assert outcome.figures is not None
    assert outcome.figures.attempts == 3
    assert outcome.figures.strength == pytest.approx(0.5)
    assert results(tmp_path / "o") == {}


def test_nrrd_has_a_preview(tmp_path, pictures, factory):
    batch = make_batch(tmp_path / "out", output_format=OutputFormat.NRRD)
    list(run_batch(find_sources([str(pictures)]), batch, factory))
    assert len(list(batch.folders.previews.glob("*.png"))) == 3
    assert len(list(batch.folders.images.glob("*.nrrd"))) == 3


def test_same_file_twice_is_two_rows_and_one_result(tmp_path, factory):
    write_picture(tmp_path / "a.png", 0)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    outcomes = list(run_batch(files, make_batch(tmp_path / "out"), factory))
    assert len(outcomes) == 2
    assert len(results(tmp_path / "out")) == 1


def test_journal_lines_are_json(tmp_path, pictures, factory):
    batch = make_batch(tmp_path / "out")
    list(run_batch(find_sources([str(pictures)]), batch, factory))
    lines = batch.folders.journal.read_text().splitlines()
    assert [json.loads(line)["row"]["status"] for line in lines] == ["released"] * 3


class _Fragile:
    """Kills its process on one image, as a crashing decoder would."""

    def __init__(self, anonymizer: Anonymizer, deadly: str) -> None:
        self.anonymizer = anonymizer
        self.deadly = deadly

    def anonymize(self, radiograph, image_seed, progress=None):
        if radiograph.digest == self.deadly:
            os._exit(1)
        return self.anonymizer.anonymize(radiograph, image_seed, progress)


DEADLY = 1  # number of the picture


def _fragile(bundle: Path) -> _Fragile:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deadly.png"
        write_picture(path, DEADLY)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return _Fragile(Anonymizer.from_bundle(bundle, OPTIONS), digest)
