"""The commands: exit codes, messages, JSON, and what stands in release/ and private/."""

from __future__ import annotations

import csv
import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from privdiff_infer import cli
from privdiff_infer.cli import app
from privdiff_infer.radiograph import read_radiograph
from privdiff_infer.vocabulary import Profile

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
        assert image["text"] == "not checked"
        assert len(image["findings_before"]) == len(image["findings_after"]) == 14
        assert f'src="{image["preview"]}"' in page
    assert "not checked" in page
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


def test_same_seed_gives_the_same_bytes(tiny_bundle, pictures, done, tmp_path):
    anonymize(tiny_bundle, pictures, "-o", tmp_path / "again", "--seed", 7)
    first, second = _tree(done / "release"), _tree(tmp_path / "again" / "release")
    assert first == second
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
    result = anonymize(tiny_bundle, pictures, "-o", done, "--resume", "--seed", 8)
    assert "--seed differs" in str(result.exception)


def test_folder_in_use_is_not_touched(tiny_bundle, pictures, done):
    before = _tree(done)
    result = anonymize(tiny_bundle, pictures, "-o", done)
    assert "is not empty" in str(result.exception)
    assert _tree(done) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["anonymize", "nowhere.png", "-o", "x"], "does not exist; name files"),
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


def test_help_does_not_import_torch():
    code = (
        "import sys; from privdiff_infer.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules; assert 'SimpleITK' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, "--help"], check=True, capture_output=True)


def test_commands_of_the_training_package_are_found():
    result = privdiff("train", "--help")
    assert result.returncode == 0
    assert "--init-from" in result.stdout


def test_stopping_keeps_what_is_done(tiny_bundle, pictures, tmp_path, monkeypatch):
    follow = cli._follow

    def interrupted(run, files, outcomes, *, quiet):
        follow(run, files[:1], outcomes, quiet=quiet)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_follow", interrupted)
    out = tmp_path / "out"
    result = anonymize(tiny_bundle, pictures, "-o", out, "--seed", 7)
    assert result.exit_code == 130
    assert "2 images left" in result.stderr
    assert len((out / "private" / "crosswalk.csv").read_text().splitlines()) == 2
    monkeypatch.undo()
    assert anonymize(tiny_bundle, pictures, "-o", out, "--resume").exit_code == 0
    assert len((out / "private" / "crosswalk.csv").read_text().splitlines()) == 4


def test_models_lists_hashes():
    result = runner.invoke(app, ["models", "--json"])
    (record,) = json.loads(result.stdout)
    assert record["name"] == "privdiff-cxr-256"
    assert len(record["sha256"]) == 64
    assert record["metadata"]["files"]
    assert "match their hashes" in runner.invoke(app, ["models"]).stdout


def test_benchmark(tiny_bundle, monkeypatch, pictures):
    monkeypatch.setattr(cli, "SAMPLE", pictures)
    arguments = ["benchmark", "--model", str(tiny_bundle), "--device", "cpu", "--repeat", "1"]
    record = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    profiles = [profile.value for profile in Profile]
    assert [speed["profile"] for speed in record["files"]] == profiles
    samplers = {(row["sampler"], row["batch_size"]): row for row in record["samplers"]}
    assert samplers.keys() == {(name, n) for name in (*profiles, "naive") for n in (1, 8)}
    assert all(row["seconds"]["median"] > 0 for row in samplers.values())
    naive, fast = samplers["naive", 1]["evaluations"], samplers["fast", 1]["evaluations"]
    assert naive == samplers["paper", 8]["evaluations"] > 9 * fast
    assert record["first_image"] > record["help"] > 0
    assert record["peak_memory"] > 50e6
    assert record["soak_memory"] == []
    table = runner.invoke(app, [*arguments, "--soak", "2"]).stdout
    assert "s/image" in table
    assert "memory after each tenth of the soak" in table


def test_demo_replaces_a_demo_and_nothing_else(tiny_bundle, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "SAMPLE", pictures)
    monkeypatch.setattr(cli, "DEFAULT_BUNDLE", str(tiny_bundle))
    out = tmp_path / "demo"
    for _ in range(2):
        result = runner.invoke(app, ["demo", "-o", str(out)])
        assert result.exit_code == 0
        assert result.stdout.splitlines()[-1] == f"report: {out / 'release' / 'report.html'}"
    (out / "thesis.tex").touch()
    result = runner.invoke(app, ["demo", "-o", str(out)])
    assert "holds files that no run" in str(result.exception)
    assert (out / "thesis.tex").exists()


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
