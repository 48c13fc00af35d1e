"""The commands: exit codes, messages, JSON, and what stands in release/ and private/."""

from __future__ import annotations

import csv
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from privdiff_training.assemble import write_metadata
from typer.testing import CliRunner

from privdiff_infer import batch
from privdiff_infer.cli import app
from privdiff_infer.commands import anonymize as anonymize_command
from privdiff_infer.commands import models as models_command
from privdiff_infer.commands.options import SAMPLE
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import ImageHeld
from privdiff_infer.radiograph import read_radiograph
from privdiff_infer.vocabulary import Profile
from tests.conftest import tiny_metadata
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp
from tests.unit.outputs import png_chunks, read_crosswalk
from tests.unit.tiny import tiny_pipeline

runner = CliRunner()


def privdiff(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `privdiff` as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "privdiff_infer", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def anonymize(bundle: Path, *arguments: object):
    return runner.invoke(
        app, ["anonymize", "--model", str(bundle), "--device", "cpu", *map(str, arguments)]
    )


@pytest.fixture
def done(tiny_bundle, pictures, tmp_path) -> Path:
    out = tmp_path / "out"
    result = anonymize(tiny_bundle, pictures, "-o", out, "--seed", 7)
    assert result.exit_code == 0, result.output
    return out


def test_crosswalk_accounts_for_every_image(done, pictures):
    with (done / "private" / "crosswalk.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "source",
        "sop_instance_uid",
        "output",
        "sha256",
        "status",
        "reason",
        "review",
    ]
    assert [row["source"] for row in rows] == [str(p) for p in sorted(pictures.iterdir())]
    assert all((done / row["output"]).is_file() for row in rows)
    assert stat.S_IMODE((done / "private").stat().st_mode) == 0o700


def test_release_tells_nothing_of_sources_and_seed(done, pictures):
    digests = {read_radiograph(path).digest for path in pictures.iterdir()}
    for path in (done / "release").rglob("*"):
        assert "Doe" not in path.name
        if path.suffix in {".html", ".json"}:
            text = path.read_text()
            assert "Doe" not in text
            assert "seed" not in text
            assert "difference" not in text
            assert not any(digest in text for digest in digests)


def test_header_of_a_source_does_not_reach_release(tiny_bundle, tmp_path):
    planted = {
        "PatientName": "DOE^JANE",
        "PatientID": "DOE-4711",
        "StudyDescription": "DOE thorax",
        "InstitutionName": "DOE hospital",
        "ImageComments": "DOE, see letter",
    }
    sources = tmp_path / "sources"
    sources.mkdir()
    for name, more in {"a": {}, "b": {"PatientAge": "005Y"}, "c": {"ViewPosition": "LL"}}.items():
        dataset = radiograph_dataset(ramp(), **planted, **more)
        (sources / f"{name}.dcm").write_bytes(dicom_bytes(dataset))
    for number, output_format in enumerate(["auto", "png", "png16", "nrrd"]):
        out = tmp_path / f"out-{number}"
        result = anonymize(tiny_bundle, sources, "-o", out, "--format", output_format)
        assert "1 released, 2 held, 0 failed" in result.stdout
        for path in (out / "release").rglob("*.*"):
            assert b"DOE" not in path.read_bytes()
            assert b"1.2.826" not in path.read_bytes()
            if path.suffix == ".png":
                assert set(png_chunks(path.read_bytes())) <= {"IHDR", "pHYs", "IDAT", "IEND"}


def test_detail_of_a_reason_stays_private(tiny_bundle, pictures, tmp_path, monkeypatch):
    def hold(path: Path) -> None:
        raise ImageHeld("no chest", "check it", detail=f"region {path.stem}")

    monkeypatch.setattr(batch, "read_source", hold)
    result = anonymize(tiny_bundle, pictures, "-o", tmp_path / "out")
    report = json.loads((tmp_path / "out/release/report.json").read_text())
    assert report["not_released"] == [
        {"number": 3, "reason": "no chest; check it", "status": "held", "text": "not checked"}
    ]
    assert "region" not in (tmp_path / "out/release/report.html").read_text()
    assert "no chest (region Doe_Jane_0); check it" in result.stderr
    assert "region Doe_Jane_0" in (tmp_path / "out/private/crosswalk.csv").read_text()
    assert "region Doe_Jane_0" in (tmp_path / "out/private/review.html").read_text()


def test_times_in_release_do_not_tell_the_order(tiny_bundle, pictures, tmp_path):
    anonymize(tiny_bundle, pictures, "-o", tmp_path / "out", "--format", "nrrd")
    files = [path for path in (tmp_path / "out/release").rglob("*.*") if path.is_file()]
    assert len(files) == 3 + 3 + 2
    assert len({path.stat().st_mtime_ns for path in files}) == 1


def test_no_picture_in_release_is_an_original(tiny_bundle, pictures, tmp_path):
    out = tmp_path / "out"
    anonymize(tiny_bundle, pictures, "-o", out, "--output-size", "original", "--strength", 0.9)
    originals = [np.asarray(Image.open(path), np.float64) for path in pictures.iterdir()]
    released = [
        np.asarray(Image.open(path), np.float64) for path in (out / "release").rglob("*.png")
    ]
    assert len(released) == 3
    for picture in released:
        for original in originals:
            assert picture.shape == original.shape
            assert np.abs(picture - original).mean() > 5
            assert not _contains_original(picture, original)


def test_report_shows_every_released_image(done):
    report = json.loads((done / "release" / "report.json").read_text())
    page = (done / "release" / "report.html").read_text()
    assert report["counts"] == {"released": 3, "held": 0, "failed": 0}
    assert len(report["images"]) == 3
    for image in report["images"]:
        assert (done / "release" / image["file"]).is_file()
        assert image["text"] == "checked"
        assert len(image["findings"]) == 14
        assert not {"findings_before", "identity_similarity"} & set(image)  # facts of the source
        assert f'src="{image["preview"]}"' in page
    assert "text: checked" in page
    assert "<dialog" in page


def test_review_shows_three_pictures_of_each(done):
    page = (done / "private" / "review.html").read_text()
    shown = re.findall(r'src="(review/[^"]+)"', page)
    assert len(shown) == 9
    assert all((done / "private" / name).is_file() for name in shown)
    assert "Doe_Jane_0.png" in page


def test_names_are_escaped(tiny_bundle, pictures, tmp_path):
    (pictures / "<script>alert(1)<").write_text("no image")
    anonymize(tiny_bundle, pictures, "-o", tmp_path / "out")
    assert "<script>alert" not in (tmp_path / "out" / "private" / "review.html").read_text()


def test_name_that_is_no_utf_8_is_a_row(tiny_bundle, pictures, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (pictures / "Doe_Jane_0.png").rename(pictures / name)
    (pictures / os.fsdecode(b"\xff.txt")).write_text("no image")
    result = anonymize(tiny_bundle, pictures, "-o", tmp_path / "out")
    assert result.exit_code == 1
    rows = read_crosswalk(tmp_path / "out/private/crosswalk.csv")
    assert {Path(row["source"]).name: row["status"] for row in rows} == {
        r"caf\udce9.png": "released",
        r"\udcff.txt": "failed",
        "Doe_Jane_1.png": "released",
        "Doe_Jane_2.png": "released",
    }
    assert r"caf\udce9.png" in (tmp_path / "out/private/review.html").read_text()
    (pictures / os.fsdecode(b"\xff.txt")).unlink()
    assert anonymize(tiny_bundle, pictures, "-o", tmp_path / "out", "--resume").exit_code == 1


def test_same_seed_gives_the_same_bytes(tiny_bundle, pictures, done, tmp_path):
    anonymize(tiny_bundle, pictures, "-o", tmp_path / "again", "--seed", 7)
    first, second = _tree(done / "release"), _tree(tmp_path / "again" / "release")
    anchors = [_without_anchor(tree) for tree in (first, second)]
    assert first == second
    assert [anchor["entries"] for anchor in anchors] == [4, 4]
    assert anchors[0]["head"] != anchors[1]["head"]  # it stands for the times of the entries
    assert (done / "private/crosswalk.csv").read_bytes() == (
        tmp_path / "again/private/crosswalk.csv"
    ).read_bytes()


def test_bad_file_is_one_line_a_row_and_exit_code_1(tiny_bundle, pictures, tmp_path):
    (pictures / "letter.txt").write_text("no image")
    result = anonymize(tiny_bundle, pictures, "-o", tmp_path / "out")
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if "letter.txt" in line]
    assert "not an image" in line
    assert "; use DICOM" in line
    report = json.loads((tmp_path / "out" / "release" / "report.json").read_text())
    assert report["counts"]["released"] == 3
    assert report["not_released"][0]["number"] == 1
    assert report["not_released"][0]["text"] == "not checked"


def test_json(tiny_bundle, pictures, tmp_path):
    result = anonymize(tiny_bundle, pictures, "-o", tmp_path / "out", "--json")
    record = json.loads(result.stdout)
    assert record["counts"] == {"released": 3, "held": 0, "failed": 0}
    assert Path(record["report"]).is_file()
    assert "seed" not in result.stdout


def test_resume_refuses_other_options(tiny_bundle, pictures, done):
    assert anonymize(tiny_bundle, pictures, "-o", done, "--resume").exit_code == 0
    result = anonymize(tiny_bundle, pictures, "-o", done, "--resume", "--strength", 0.9)
    assert "strength is 0.9 but the run was started with 0.3" in str(result.exception)
    options = ["--resume", "--profile", "fast"]
    result = anonymize(tiny_bundle, pictures, "-o", done, *options)
    assert "profile is 'fast' but the run was started with 'standard'" in str(result.exception)
    result = anonymize(tiny_bundle, pictures, "-o", done, "--resume", "--seed", 8)
    assert "--seed differs" in str(result.exception)


def test_resume_refuses_another_key(tiny_bundle, pictures, done, tmp_path, monkeypatch):
    recorded = json.loads((done / "private" / "run.json").read_text())
    assert recorded["key_fingerprint"] == Pseudonyms.load().fingerprint
    other = tmp_path / "other-key"
    other.touch(mode=0o600)
    other.write_text("another key of tests, which are no secret")
    monkeypatch.setenv("PRIVDIFF_KEY_FILE", str(other))
    result = anonymize(tiny_bundle, pictures, "-o", done, "--resume")
    assert "key_fingerprint is" in str(result.exception)


def test_key_is_nowhere_in_the_output(tiny_bundle, tmp_path, pseudonym_key):
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(radiograph_dataset(ramp())))
    anonymize(tiny_bundle, tmp_path / "a.dcm", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "release" / "images").glob("*.dcm")
    for path in (tmp_path / "out").rglob("*.*"):
        assert path.is_dir() or pseudonym_key.read_bytes() not in path.read_bytes()


def test_format_without_header_needs_no_key(tiny_bundle, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVDIFF_KEY_FILE", str(tmp_path / "absent"))
    assert anonymize(tiny_bundle, pictures, "-o", tmp_path / "a", "--format", "png").exit_code == 0
    result = anonymize(tiny_bundle, pictures, "-o", tmp_path / "b")
    assert "cannot be read" in str(result.exception)
    assert not (tmp_path / "b").exists()


def test_what_a_user_retains_is_in_the_file(tiny_bundle, tmp_path):
    dataset = radiograph_dataset(ramp(), DeviceSerialNumber="SN-1", StudyDate="20200131")
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(dataset))
    options = ["--retain", "device-identity", "--retain", "modified-dates"]
    options += ["--clean", "recognizable-visual-features"]
    anonymize(tiny_bundle, tmp_path / "a.dcm", "-o", tmp_path / "out", *options)
    (path,) = (tmp_path / "out/release/images").iterdir()
    derived = pydicom.dcmread(path)
    assert derived.DeviceSerialNumber == "SN-1"
    assert derived.StudyDate not in ("", "20200131")
    assert derived.RecognizableVisualFeatures == "NO"
    codes = {item.CodeValue for item in derived.DeidentificationMethodCodeSequence}
    assert codes == {"113100", "113102", "113107", "113109"}


def test_resume_with_fewer_sources_keeps_every_row(tiny_bundle, pictures, done):
    crosswalk, report = done / "private/crosswalk.csv", done / "release/report.json"
    before = crosswalk.read_bytes(), json.loads(report.read_text())
    result = anonymize(tiny_bundle, pictures / "Doe_Jane_1.png", "-o", done, "--resume")
    assert result.exit_code == 0
    after = json.loads(report.read_text())
    assert after.pop("audit")["entries"] > before[1].pop("audit")["entries"]
    assert (crosswalk.read_bytes(), after) == before
    assert "3 released" in result.stdout


def test_resume_under_another_spelling_does_nothing_again(tiny_bundle, pictures, done):
    before = (done / "private/crosswalk.csv").read_bytes()
    other = pictures / ".." / "pictures"
    assert anonymize(tiny_bundle, other, "-o", done, "--resume").exit_code == 0
    assert (done / "private/crosswalk.csv").read_bytes() == before


def test_output_below_the_sources_is_not_redrawn(tiny_bundle, pictures):
    out = pictures / "out"
    assert anonymize(tiny_bundle, pictures, "-o", out).exit_code == 0
    assert anonymize(tiny_bundle, pictures, "-o", out, "--resume").exit_code == 0
    assert len(read_crosswalk(out / "private/crosswalk.csv")) == 3
    assert anonymize(tiny_bundle, pictures, "-o", pictures / "other").exit_code == 0
    assert len(read_crosswalk(pictures / "other/private/crosswalk.csv")) == 3


def test_folder_in_use_is_not_touched(tiny_bundle, pictures, done):
    before = _tree(done)
    result = anonymize(tiny_bundle, pictures, "-o", done)
    assert "is not empty" in str(result.exception)
    assert _tree(done) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["anonymize", "nowhere.png", "-o", "x"], "does not exist; name files"),
        (
            ["anonymize", str(SAMPLE), "-o", "x", "--format", "png", "--retain", "uids"],
            "png files have no header",
        ),
        (["anonymize", "empty", "-o", "x"], "source 'empty' holds no files"),
        (["anonymize", "{picture}", "-o", "x", "--model", "nothing"], "no model bundle 'nothing'"),
        (["anonymize", "{picture}", "-o", "x", "--strength", "1.5"], "outside (0, 1]"),
        (["anonymize", "{picture}", "-o", "x", "--device", "cuda:99"], "does not exist"),
        (["anonymize", "{picture}", "-o", "x", "--device", "tpu"], "not understood"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments, words, pictures, tiny_bundle, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    picture = str(next(pictures.iterdir()))
    filled = [picture if a == "{picture}" else a for a in arguments]
    if "--model" not in filled:
        filled += ["--model", str(tiny_bundle)]
    result = privdiff(*filled)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_usage_errors_of_the_command_line_exit_with_2():
    assert runner.invoke(app, ["anonymize"]).exit_code == 2
    assert runner.invoke(app, ["anonymize", "a", "-o", "b", "--profile", "best"]).exit_code == 2


def test_help_imports_nothing_that_is_slow_to_import():
    slow = (
        "torch",
        "numpy",
        "pydantic",
        "SimpleITK",
        "fastapi",
        "sqlalchemy",
        "monailabel",
        "distributed",
    )
    code = (
        "import sys; from privdiff_infer.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"assert not sys.modules.keys() & set({slow})"
    )
    subprocess.run([sys.executable, "-c", code, "--help"], check=True, capture_output=True)


def test_commands_of_the_training_package_are_found():
    result = privdiff("train", "--help")
    assert result.returncode == 0
    assert "--init-from" in result.stdout


def test_stopping_keeps_what_is_done(tiny_bundle, pictures, tmp_path, monkeypatch):
    follow = anonymize_command._follow

    def interrupted(run, files, *, quiet):
        follow(run, files[:1], quiet=quiet)
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(anonymize_command, "_follow", interrupted)
        result = anonymize(tiny_bundle, pictures, "-o", out, "--seed", 7)
    assert result.exit_code == 130
    assert "2 images left" in result.stderr
    assert len(read_crosswalk(out / "private/crosswalk.csv")) == 1
    assert anonymize(tiny_bundle, pictures, "-o", out, "--resume").exit_code == 0
    assert len(read_crosswalk(out / "private/crosswalk.csv")) == 3


@pytest.mark.parametrize("name", ["release/report.html", "private/crosswalk.csv"])
def test_report_that_cannot_be_written_is_one_line_and_exit_code_1(
    tiny_bundle, pictures, done, name
):
    (done / name).unlink()
    (done / name).mkdir()
    (done / "private/review.html").unlink()
    result = anonymize(tiny_bundle, pictures, "-o", done, "--resume")
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if "not up to date" in line]
    assert "cannot be written" in line
    assert (done / "private/review.html").is_file()


def test_models_lists_hashes():
    result = runner.invoke(app, ["models", "--json"])
    (record,) = json.loads(result.stdout)
    assert record["name"] == "privdiff-cxr-256"
    assert len(record["sha256"]) == 64
    assert record["metadata"]["files"]
    assert "match their hashes" in runner.invoke(app, ["models"]).stdout


def test_benchmark(tiny_bundle, monkeypatch, pictures, tmp_path):
    monkeypatch.setattr(models_command, "SAMPLE", pictures)
    bundle = tmp_path / "bundle"
    tiny_pipeline().save_pretrained(bundle)
    strengths = {"standard": 0.3, "fast": 0.6, "vanilla": 0.3, "paper": 0.3}
    points = {name: {"strength": strength} for name, strength in strengths.items()}
    write_metadata(bundle, tiny_metadata(operating_points=points))
    arguments = ["benchmark", "--model", str(bundle), "--device", "cpu", "--repeat", "1"]
    record = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    profiles = [profile.value for profile in Profile]
    assert [speed["profile"] for speed in record["files"]] == profiles
    evaluations = {
        (row["sampler"], row["strength"], row["batch_size"]): row["evaluations"]
        for row in record["samplers"]
    }
    rows = [*strengths.items(), ("naive", 0.3), ("naive", 0.6)]
    assert evaluations.keys() == {(*row, size) for row in rows for size in (1, 8)}
    assert all(row["seconds"]["median"] > 0 for row in record["samplers"])
    assert evaluations["naive", 0.3, 1] == evaluations["paper", 0.3, 8]
    assert evaluations["naive", 0.6, 1] > 9 * evaluations["fast", 0.6, 1]
    assert record["first_image"] > record["help"] > 0
    assert record["peak_memory"] > 50e6
    assert record["soak_memory"] == []
    table = runner.invoke(app, [*arguments, "--soak", "2"]).stdout
    assert "s/image" in table
    assert "memory after each tenth of the soak" in table


@pytest.fixture
def demo(tiny_bundle, pictures, tmp_path, monkeypatch):
    """Run `privdiff demo` on the pictures; returns its result."""
    monkeypatch.setattr(anonymize_command, "SAMPLE", pictures)
    monkeypatch.setattr(anonymize_command, "DEFAULT_BUNDLE", str(tiny_bundle))
    return lambda: runner.invoke(app, ["demo", "-o", str(tmp_path / "demo")])


def test_demo_replaces_a_demo(demo, tmp_path):
    (tmp_path / "demo").mkdir()
    for _ in range(2):
        result = demo()
        assert result.exit_code == 0
        report = tmp_path / "demo" / "release" / "report.html"
        assert result.stdout.splitlines()[-1] == f"report: {report}"


def test_demo_replaces_nothing_else(demo, tmp_path):
    demo()
    (tmp_path / "demo" / "thesis.tex").touch()
    result = demo()
    assert "holds something else than an earlier demo" in str(result.exception)
    assert (tmp_path / "demo" / "thesis.tex").exists()


def test_demo_keeps_a_run_of_real_images(demo, tiny_bundle, pictures, tmp_path):
    anonymize(tiny_bundle, pictures, "-o", tmp_path / "demo", "--seed", anonymize_command.DEMO_SEED)
    before = _tree(tmp_path / "demo")
    result = demo()
    assert "holds something else than an earlier demo" in str(result.exception)
    assert _tree(tmp_path / "demo") == before


def test_run_of_real_images_does_not_continue_a_demo(demo, tiny_bundle, pictures, tmp_path):
    demo()
    result = anonymize(tiny_bundle, pictures, "-o", tmp_path / "demo", "--resume")
    assert "demo is False but the run was started with True" in str(result.exception)


def test_demo_tolerates_held_images_but_no_failed_one(demo, pictures):
    child = radiograph_dataset(ramp(), PatientAge="005Y")
    (pictures / "child.dcm").write_bytes(dicom_bytes(child))
    assert demo().exit_code == 0
    (pictures / "letter.txt").write_text("no image")
    assert demo().exit_code == 1


def _without_anchor(tree: dict[str, bytes]) -> dict[str, Any]:
    """Take number and head of the audit log out of a tree's report.json and return them."""
    report = json.loads(tree["report.json"])
    anchor = report.pop("audit")
    tree["report.json"] = json.dumps(report).encode()
    return anchor


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _contains_original(picture: np.ndarray, original: np.ndarray) -> bool:
    """Tell whether a picture follows an original pixel by pixel, inverted or mirrored or not."""
    return any(
        abs(np.corrcoef(turned.ravel(), original.ravel())[0, 1]) > 0.99
        for turned in (picture, picture[:, ::-1], picture[::-1])
    )
