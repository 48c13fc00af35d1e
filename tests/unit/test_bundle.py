"""Bundles: hashes, tampering, bases for training, gates and devices."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from shutil import copytree

import pytest
import torch
from privdiff_training.assemble import write_metadata

from privdiff_infer.anonymizer import Anonymizer, AnonymizerOptions
from privdiff_infer.device import pick_device
from privdiff_infer.errors import BundleError, ImageHeld, OptionError, PrivDiffError
from privdiff_infer.gates import check_frontal, check_patient, linkage_failure
from privdiff_infer.model.bundle import (
    GateThresholds,
    find_bundle,
    list_bundles,
    read_bundle,
    verify_bundle,
)
from privdiff_infer.radiograph import HeaderFacts, read_radiograph
from privdiff_infer.vocabulary import FINDINGS, Precision
from tests.conftest import tiny_metadata


@pytest.fixture
def bundle(tiny_bundle, tmp_path) -> Path:
    return copytree(tiny_bundle, tmp_path / "bundle")


def test_intact_bundle(bundle):
    info = verify_bundle(bundle)
    assert (info.name, info.version) == ("tiny", "1.0")
    assert info.size_bytes > 0


@pytest.mark.parametrize("change", ["edit", "remove", "add"])
def test_tampering_names_the_file(bundle, change):
    weights = bundle / "denoiser" / "diffusion_pytorch_model.safetensors"
    target = weights if change != "add" else bundle / "denoiser" / "extra.bin"
    if change == "remove":
        target.unlink()
    else:
        target.write_bytes((target.read_bytes() if target.exists() else b"") + b"x")
    with pytest.raises(BundleError, match=f"denoiser/{target.name} of bundle tiny"):
        verify_bundle(bundle)


def test_metadata_with_an_unknown_key(bundle):
    record = json.loads((bundle / "metadata.json").read_text())
    (bundle / "metadata.json").write_text(json.dumps(record | {"colour": "blue"}))
    with pytest.raises(BundleError, match="colour"):
        read_bundle(bundle)


def test_base_for_training_cannot_anonymize(stable_diffusion_folder):
    sentence = "base for training, without privacy tuning and without codebooks"
    with pytest.raises(BundleError, match=sentence):
        Anonymizer.from_bundle(stable_diffusion_folder, AnonymizerOptions())


def test_unknown_bundle_lists_the_known_ones():
    with pytest.raises(BundleError, match="name a bundle folder or one of: "):
        find_bundle("no-such-bundle")


def test_embedded_bundles_are_intact_and_complete():
    bundles = list_bundles()
    assert [info.name for info in bundles] == ["privdiff-cxr-256"]
    for info in bundles:
        metadata = verify_bundle(info.path).metadata
        assert set(metadata.operating_points) == {"standard", "fast", "vanilla", "paper"}
        assert metadata.licence
        assert metadata.training_data
        assert info.size_bytes <= 80_000_000
        assert {path.suffix for path in info.path.rglob("*") if path.is_file()} <= {
            ".json",
            ".md",
            ".safetensors",
        }


class TestGates:
    def test_children_are_held_unless_evaluated(self):
        with pytest.raises(ImageHeld, match="under 18"):
            check_patient(HeaderFacts(age_years=17.9), evaluated_under_18=False)
        check_patient(HeaderFacts(age_years=17.9), evaluated_under_18=True)
        check_patient(HeaderFacts(age_years=18), evaluated_under_18=False)
        check_patient(HeaderFacts(), evaluated_under_18=False)

    def test_frontal(self):
        thresholds = GateThresholds(frontal_logit=1.0)
        check_frontal(1.5, thresholds)
        with pytest.raises(ImageHeld, match="upright frontal"):
            check_frontal(0.5, thresholds)

    @pytest.mark.parametrize("logit", [math.nan, -math.inf])
    def test_frontal_fails_closed(self, logit):
        with pytest.raises(ImageHeld):
            check_frontal(logit, GateThresholds(frontal_logit=1.0))

    def test_linkage(self):
        thresholds = GateThresholds(linkage_similarity=0.5)
        assert linkage_failure(0.5, thresholds) is None
        assert "0.51" in (linkage_failure(0.51, thresholds) or "")
        assert linkage_failure(math.nan, thresholds) is not None


class TestDevice:
    @pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cpu:0", ""])
    def test_nonsense(self, name):
        with pytest.raises(OptionError, match="not understood"):
            pick_device(name)

    def test_device_that_does_not_exist(self):
        with pytest.raises(OptionError, match="CUDA device"):
            pick_device("cuda:99")

    def test_auto(self):
        expected = "cuda" if torch.cuda.is_available() else "cpu"
        assert pick_device("auto").type == expected


class TestAnonymizer:
    @pytest.mark.parametrize("precision", list(Precision))
    def test_precisions(self, tiny_bundle, pictures, precision):
        options = AnonymizerOptions(device="cpu", precision=precision)
        anonymizer = Anonymizer.from_bundle(tiny_bundle, options)
        image = anonymizer.anonymize(read_radiograph(next(pictures.iterdir())), 1)
        assert image.pixels.shape == (64, 50)
        assert 0 <= image.pixels.min() <= image.pixels.max() <= 1
        assert set(image.findings_before) == set(image.findings_after) == set(FINDINGS)

    def test_missing_operating_point(self, bundle):
        write_metadata(bundle, tiny_metadata(operating_points={}))
        with pytest.raises(OptionError, match="name a strength"):
            Anonymizer.from_bundle(bundle, AnonymizerOptions(device="cpu"))

    @pytest.mark.gpu
    @pytest.mark.parametrize("precision", list(Precision))
    def test_gpu(self, tiny_bundle, pictures, precision):
        radiograph = read_radiograph(next(pictures.iterdir()))
        images = [
            Anonymizer.from_bundle(
                tiny_bundle, AnonymizerOptions(device=device, precision=precision)
            ).anonymize(radiograph, 1)
            for device in ("cpu", "cuda")
        ]
        difference = abs(images[0].pixels - images[1].pixels).mean()
        assert difference < 0.02


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(ImageHeld("a problem", "a remedy")))
    assert isinstance(error, PrivDiffError)
    assert str(error) == "a problem; a remedy"
