"""What the gates of results let through and what not, and when a result is drawn again."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from privdiff_training.assemble import write_metadata
from privdiff_training.evaluation.spoiled import SPOILED
from typer.testing import CliRunner

from privdiff_infer.anonymizer import Anonymizer, AnonymizerOptions
from privdiff_infer.burned_in_text import TextBox
from privdiff_infer.cli import app
from privdiff_infer.errors import OptionError
from privdiff_infer.file_formats import SourceFormat
from privdiff_infer.gallery import SMALLEST, Gallery, read_gallery
from privdiff_infer.gates import (
    MAX_ATTEMPTS,
    Failure,
    GalleryRank,
    Gate,
    ResultChecks,
    failures,
    gallery_failure,
    grain,
    next_strength,
)
from privdiff_infer.model.bundle import BundleMetadata, GateThresholds
from privdiff_infer.radiograph import HeaderFacts, Radiograph
from tests.conftest import tiny_metadata, write_picture
from tests.unit.outputs import read_crosswalk
from tests.unit.tiny import SIZE

STRICT = GateThresholds(
    frontal_logit=1.0,
    linkage_similarity=0.6,
    findings_agreement=0.8,
    grain=(0.002, 0.02),
    contrast=0.1,
)
GOOD = ResultChecks(0.6, 0.8, 1.0, 0.01, 0.1, has_text=False, gallery_rank=GalleryRank(3, 40))
BAD = {
    Gate.LINKAGE: replace(GOOD, identity_similarity=0.61),
    Gate.GALLERY: replace(GOOD, gallery_rank=GalleryRank(2, 40)),
    Gate.FINDINGS: replace(GOOD, findings_agreement=0.79),
    Gate.FRONTAL: replace(GOOD, frontal_logit=0.9),
    Gate.QUALITY: replace(GOOD, contrast=0.09),
    Gate.TEXT: replace(GOOD, has_text=True),
}
LEGIBLE = TextBox(((1, 1), (1, 9), (5, 9), (5, 1)), 0.9, None, is_legible=True)
PICTURE = Radiograph(
    pixels=np.random.default_rng(0).random((SIZE, SIZE), np.float32),
    spacing_mm=None,
    digest="0" * 64,
    source_format=SourceFormat.PNG,
    bits_stored=8,
    sop_instance_uid=None,
    header=HeaderFacts(),
)


def gates_of(checks: ResultChecks) -> list[Gate]:
    return [failure.gate for failure in failures(checks, STRICT)]


def test_what_passes_every_gate():
    assert gates_of(GOOD) == []
    assert gates_of(replace(GOOD, gallery_rank=None)) == []


@pytest.mark.parametrize("gate", list(Gate))
def test_each_gate_fails_what_it_should(gate):
    assert gates_of(BAD[gate]) == [gate]


@pytest.mark.parametrize("value", [0.0019, 0.0201])
def test_too_smooth_and_too_rough(value):
    assert gates_of(replace(GOOD, grain=value)) == [Gate.QUALITY]


@pytest.mark.parametrize(
    ("name", "gate"),
    [
        ("identity_similarity", Gate.LINKAGE),
        ("findings_agreement", Gate.FINDINGS),
        ("frontal_logit", Gate.FRONTAL),
        ("grain", Gate.QUALITY),
        ("contrast", Gate.QUALITY),
    ],
)
def test_what_is_no_number_passes_nothing(name, gate):
    assert gates_of(replace(GOOD, **{name: math.nan})) == [gate]


def test_metadata_without_thresholds_of_results_let_them_pass():
    old = {"frontal_logit": 1.3, "linkage_similarity": 0.6}
    metadata = BundleMetadata.model_validate(tiny_metadata(gates=old, files={}))
    extreme = ResultChecks(0.6, -1.0, 1.3, 8.0, 0.0, has_text=False)
    assert failures(extreme, metadata.gates) == ()
    assert BundleMetadata.model_validate_json(metadata.model_dump_json()) == metadata


@pytest.mark.parametrize("gate", list(Gate))
def test_more_noise_where_noise_helps(gate):
    helps = gate in {Gate.LINKAGE, Gate.GALLERY, Gate.TEXT}
    assert next_strength(0.6, failures(BAD[gate], STRICT)) == (0.7 if helps else 0.6)


def test_strength_ends_at_one():
    assert next_strength(0.95, [Failure(Gate.LINKAGE, "near")]) == 1.0


@pytest.mark.parametrize(
    ("size", "last"), [(20, 1), (38, 2), (99, 5), (100, 5), (199, 10), (400, 20)]
)
def test_original_may_not_be_in_the_nearest_twentieth(size, last):
    assert gallery_failure(GalleryRank(last, size))
    assert gallery_failure(GalleryRank(last + 1, size)) is None


class TestGrain:
    def test_of_nothing(self):
        assert grain(np.full((9, 9), 0.5, np.float32)) == 0
        assert grain(np.linspace(0, 1, 81, dtype=np.float32).reshape(9, 9)) < 1e-6

    def test_edges_are_left_out(self):
        pixels = np.zeros((64, 64), np.float32)
        pixels[:, 20:] = 1
        pixels[30:, :] = 0
        assert grain(pixels) == 0

    def test_of_a_checkerboard_is_the_largest_there_is(self):
        assert grain(np.indices((16, 16)).sum(0) % 2.0) == GateThresholds().grain[1]

    @pytest.mark.parametrize("name", ["speckle", "noise"])
    def test_rough(self, name):
        assert grain(self.spoiled(name)) > 3 * grain(self.picture())

    @pytest.mark.parametrize("name", ["blurred", "blocks", "pale", "grey mush"])
    def test_smooth(self, name):
        assert grain(self.spoiled(name)) < 0.3 * grain(self.picture())

    @staticmethod
    def picture() -> np.ndarray:
        rng = np.random.default_rng(1)
        coarse = torch.from_numpy(rng.random((1, 1, 6, 6), np.float32))
        smooth = torch.nn.functional.interpolate(coarse, (128, 128), mode="bicubic")[0, 0].numpy()
        noisy = 0.3 + 0.4 * smooth + 0.005 * rng.standard_normal((128, 128), np.float32)
        return np.clip(noisy, 0, 1)

    def spoiled(self, name: str) -> np.ndarray:
        image = torch.from_numpy(self.picture())[None]
        return SPOILED[name](image, torch.Generator().manual_seed(2)).clamp(0, 1)[0].numpy()


class TestAttempts:
    @pytest.fixture
    def anonymizer(self, tiny_bundle: Path) -> Anonymizer:
        options = AnonymizerOptions(device="cpu", strength=0.6)
        return Anonymizer.from_bundle(tiny_bundle, options)

    @staticmethod
    def with_gates(anonymizer: Anonymizer, **gates: float) -> Anonymizer:
        thresholds = anonymizer.bundle.metadata.gates.model_copy(update=gates)
        metadata = anonymizer.bundle.metadata.model_copy(update={"gates": thresholds})
        anonymizer.bundle = replace(anonymizer.bundle, metadata=metadata)
        return anonymizer

    def test_first_one_that_passes_is_kept(self, anonymizer):
        result = anonymizer.anonymize(PICTURE, 1)
        assert (result.attempts, result.strength) == (1, 0.6)
        assert (result.failures, result.held_reason) == ((), None)

    def test_lost_findings_are_drawn_again_at_the_same_strength(self, anonymizer):
        result = self.with_gates(anonymizer, findings_agreement=1.1).anonymize(PICTURE, 1)
        assert (result.attempts, result.strength) == (MAX_ATTEMPTS, 0.6)
        assert [failure.gate for failure in result.failures] == [Gate.FINDINGS]
        assert "the findings of the source are not in the result" in result.held_reason

    def test_every_attempt_has_fresh_noise(self, anonymizer):
        first = anonymizer.anonymize(PICTURE, 1)
        last = self.with_gates(anonymizer, findings_agreement=1.1).anonymize(PICTURE, 1)
        assert not np.array_equal(first.pixels, last.pixels)

    def test_bad_pictures_are_drawn_again_at_the_same_strength(self, anonymizer):
        result = self.with_gates(anonymizer, contrast=1.0).anonymize(PICTURE, 1)
        assert (result.attempts, result.strength) == (MAX_ATTEMPTS, 0.6)
        assert "too blurred, too noisy or too pale" in result.held_reason

    def test_similarity_takes_more_noise_whatever_else_fails(self, anonymizer):
        strict = self.with_gates(anonymizer, linkage_similarity=-1.0, findings_agreement=1.1)
        result = strict.anonymize(PICTURE, 1)
        assert (result.attempts, result.strength) == (MAX_ATTEMPTS, 0.8)
        assert [failure.gate for failure in result.failures] == [Gate.LINKAGE, Gate.FINDINGS]

    def test_result_must_look_like_a_radiograph_to_the_reader(self, anonymizer):
        head, grid = anonymizer.pipeline.reader.head, torch.from_numpy(PICTURE.pixels)[None, None]
        score = anonymizer.anonymize(PICTURE, 1).checks.frontal_logit
        with torch.no_grad():
            source = float(anonymizer.pipeline.reader(grid).frontal)
        if score > source:  # random weights can do either; the last row is the frontal logit alone
            head.weight.data[-1].neg_()
            head.bias.data[-1].neg_()
            score, source = -score, -source
        assert score < source
        between = (score + source) / 2
        result = self.with_gates(anonymizer, frontal_logit=between).anonymize(PICTURE, 1)
        assert result.attempts > 1
        assert result.strength == 0.6

    def test_gallery(self, anonymizer):
        first = anonymizer.anonymize(PICTURE, 1)
        with torch.no_grad():
            image = torch.from_numpy(np.ascontiguousarray(first.pixels))[None, None]
            vector = anonymizer.pipeline.identity(image)[0].numpy()
        assert first.identity_similarity < 0.9999

        near, far = (Gallery(np.repeat(v[None], SMALLEST, 0)) for v in (vector, -vector))
        anonymizer.options = replace(anonymizer.options, gallery=near)
        passed = anonymizer.anonymize(PICTURE, 1)
        anonymizer.options = replace(anonymizer.options, gallery=far)
        held = anonymizer.anonymize(PICTURE, 1)

        assert passed.failures == ()
        assert passed.checks.gallery_rank == GalleryRank(SMALLEST + 1, SMALLEST)
        assert np.array_equal(passed.pixels, first.pixels)
        assert (held.attempts, held.strength) == (MAX_ATTEMPTS, 0.8)
        assert held.checks.gallery_rank == GalleryRank(1, SMALLEST)
        assert "a search in the gallery would find the source" in held.held_reason

    def test_text_takes_more_noise(self, anonymizer):
        class Twice:
            """Sees nothing in the source, and text in the first result."""

            def __init__(self) -> None:
                self.calls = 0

            def find(self, pixels: np.ndarray) -> list[TextBox]:
                self.calls += 1
                return [LEGIBLE] if self.calls == 2 else []

        anonymizer.text_detector = Twice()
        result = anonymizer.anonymize(PICTURE, 1)
        assert (result.attempts, result.strength, result.failures) == (2, 0.7, ())


class TestGallery:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "Roe_John"
        folder.mkdir()
        for number in range(SMALLEST):
            write_picture(folder / f"Roe_{number}.png", 100 + number)
        return folder

    def test_ties_and_nan_count_for_the_original(self):
        gallery = Gallery(np.eye(4, dtype=np.float32))
        result = np.array([0.8, 0.6, 0.0, 0.0], np.float32)
        assert gallery.rank(result, 0.9).rank == 1
        assert gallery.rank(result, float(result[0])).rank == 1
        assert gallery.rank(result, 0.7).rank == 2
        assert gallery.rank(result, -0.1) == GalleryRank(5, 4)
        assert gallery.rank(result, math.nan).rank == 1

    def test_digest_does_not_depend_on_the_order(self):
        vectors = np.eye(4, dtype=np.float32)
        assert Gallery(vectors).digest == Gallery(vectors[::-1].copy()).digest
        assert Gallery(vectors).digest != Gallery(vectors[:3]).digest

    def test_reading(self, folder, tiny_bundle):
        (folder / "junk.png").write_bytes(b"no image")
        (folder / "copy.png").write_bytes((folder / "Roe_0.png").read_bytes())
        told: list[tuple[int, int]] = []
        gallery = read_gallery(folder, tiny_bundle, lambda *counts: told.append(counts))
        assert gallery.vectors.shape == (SMALLEST, 8)
        assert np.linalg.norm(gallery.vectors, axis=1) == pytest.approx(1, abs=1e-5)
        assert told[-1] == (SMALLEST + 2, SMALLEST + 2)
        assert b"Roe" not in pickle.dumps(AnonymizerOptions(gallery=gallery))

    def test_too_few(self, folder, tiny_bundle):
        (folder / "Roe_0.png").unlink()
        with pytest.raises(OptionError, match="the gallery has 19 frontal") as raised:
            read_gallery(folder, tiny_bundle)
        assert "Roe" not in str(raised.value)

    def test_images_that_are_no_radiographs_do_not_count(self, folder, tiny_bundle, tmp_path):
        strict = copytree(tiny_bundle, tmp_path / "strict")
        write_metadata(strict, tiny_metadata(gates={"frontal_logit": 1e9}))
        with pytest.raises(OptionError, match="the gallery has 0 frontal"):
            read_gallery(folder, strict)

    def test_run_with_processes(self, folder, tiny_bundle, pictures, tmp_path):
        out = tmp_path / "out"
        options = ["--model", str(tiny_bundle), "--device", "cpu", "--gallery", str(folder)]
        command = ["anonymize", str(pictures), "-o", str(out), *options, "--seed", "1"]
        alone = CliRunner().invoke(app, command)
        command[3] = str(tmp_path / "b")
        together = CliRunner().invoke(app, [*command, "--workers", "2"])
        assert alone.exit_code == together.exit_code
        assert alone.exit_code in (0, 1), alone.output
        rows = [read_crosswalk(each / "private/crosswalk.csv") for each in (out, tmp_path / "b")]
        assert rows[0] == rows[1]
        assert {row["status"] for row in rows[0]} <= {"released", "held"}
        written = [path for path in out.rglob("*") if path.is_file()]
        assert not any(b"Roe" in path.read_bytes() or "Roe" in path.name for path in written)

        recorded = json.loads((out / "private/run.json").read_text())["gallery"]
        assert recorded == read_gallery(folder, tiny_bundle).digest
        without = ["anonymize", str(pictures), "-o", str(out), *options[:4], "--resume"]
        refused = CliRunner().invoke(app, without)
        assert "gallery is None but the run was started with" in str(refused.exception)

    def test_too_few_begin_no_run(self, tiny_bundle, pictures, tmp_path):
        options = ["--model", str(tiny_bundle), "--gallery", str(pictures)]
        result = CliRunner().invoke(
            app, ["anonymize", str(pictures), "-o", str(tmp_path / "out"), *options]
        )
        assert isinstance(result.exception, OptionError)
        assert not (tmp_path / "out").exists()


def test_the_gates_need_no_torch():
    code = "import sys, privdiff_infer.gates; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=600).returncode == 0
