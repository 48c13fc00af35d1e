"""The method under test and its baselines."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import torch
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.evaluation.methods.bundle import BundleMethod
from privdiff_training.evaluation.methods.method import Method
from privdiff_training.evaluation.methods.pixelwise import (
    Blur,
    Downsampling,
    DPPix,
    Identity,
    Noise,
    pixelwise_methods,
)
from privdiff_training.evaluation.redraw import Told, redraw_with
from privdiff_training.images import load_images
from torch import Tensor

from privdiff_infer.errors import OptionError
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.vocabulary import Profile
from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import SIZE


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return read_manifest(write_cohort(tmp_path_factory.mktemp("cohort"), patients=4))


@pytest.fixture(scope="module")
def originals(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    pixels = load_images(cohort, SIZE, tmp_path_factory.mktemp("cache"))
    return pixels.unsqueeze(1).float() / 255


EVERY_PIXELWISE = pytest.mark.parametrize(
    "method", [Identity(), *pixelwise_methods()], ids=lambda method: method.name
)


class TestPixelwise:
    @EVERY_PIXELWISE
    def test_shape_and_range_are_kept(self, method: Method, cohort, originals):
        copies = method.anonymize(cohort, originals, 0)

        assert copies.shape == originals.shape
        assert copies.dtype == torch.float32
        assert 0 <= copies.min() and copies.max() <= 1

    @EVERY_PIXELWISE
    def test_a_seed_gives_the_same_copies_again(self, method: Method, cohort, originals):
        first, second = (method.anonymize(cohort, originals, 7) for _ in range(2))

        assert torch.equal(first, second)

    @pytest.mark.parametrize("method", [Noise(0.1), DPPix(8, 1.0)], ids=lambda m: m.name)
    def test_another_seed_and_another_row_have_other_noise(self, method: Method, cohort):
        grey = torch.full((2, 1, SIZE, SIZE), 0.5)

        first, second = (method.anonymize(cohort, grey, seed) for seed in (0, 1))

        assert not torch.equal(first, second)
        assert not torch.equal(first[0], first[1])

    def test_an_image_does_not_depend_on_what_follows_it(self, cohort, originals):
        whole = DPPix(8, 1.0).anonymize(cohort, originals, 0)

        assert torch.equal(DPPix(8, 1.0).anonymize(cohort, originals[:3], 0), whole[:3])

    def test_settings_of_a_curve_distort_more_and_more(self, cohort, originals):
        curves = groupby(pixelwise_methods(), key=lambda method: method.family)

        for _, methods in curves:
            errors = [
                float((method.anonymize(cohort, originals, 0) - originals).square().mean())
                for method in methods
            ]
            assert len(errors) == 5
            assert all(milder < stronger for milder, stronger in pairwise(errors))

    def test_identity_changes_nothing(self, cohort, originals):
        assert torch.equal(Identity().anonymize(cohort, originals, 0), originals)

    def test_downsampling_and_blur_leave_an_even_image_as_it_is(self, cohort):
        grey = torch.full((1, 1, SIZE, SIZE), 0.3)

        for method in (Downsampling(8), Blur(4.0)):
            torch.testing.assert_close(method.anonymize(cohort, grey, 0), grey)

    def test_names_and_fingerprints_are_unique(self):
        methods = [Identity(), *pixelwise_methods()]

        assert len({method.name for method in methods}) == len(methods)
        assert len({method.fingerprint for method in methods}) == len(methods)


class TestDPPix:
    def test_noise_has_the_scale_of_the_source(self, cohort):
        method = DPPix(cell=4, epsilon=100.0, neighbours=16)
        grey = torch.full((8, 1, 256, 256), 0.5)

        noise = method.anonymize(cohort, grey, 0)[..., ::4, ::4] - 0.5

        assert method.scale == pytest.approx(255 * 16 / (4**2 * 100))
        assert float(noise.abs().mean()) == pytest.approx(method.scale / 255, rel=0.02)
        assert float(noise.square().mean()) == pytest.approx(
            2 * (method.scale / 255) ** 2, rel=0.05
        )

    def test_cells_are_even(self, cohort, originals):
        copies = DPPix(8, 1.0).anonymize(cohort, originals, 0)
        cells = copies.unfold(-2, 8, 8).unfold(-2, 8, 8)

        assert torch.equal(cells, cells[..., :1, :1].expand_as(cells))

    @pytest.mark.parametrize("change", [{"cell": 16}, {"epsilon": 2.0}, {"neighbours": 8}])
    def test_every_parameter_changes_the_fingerprint(self, change):
        assert replace(DPPix(8, 1.0), **change).fingerprint != DPPix(8, 1.0).fingerprint

    def test_cells_that_do_not_fill_the_image_are_an_error(self, cohort, originals):
        with pytest.raises(OptionError, match="cells of 7 pixels do not fill an image of 64 x 64"):
            DPPix(7, 1.0).anonymize(cohort, originals, 0)


class TestBundle:
    @pytest.fixture
    def method(self, tiny_bundle: Path) -> BundleMethod:
        return BundleMethod(tiny_bundle, Profile.STANDARD, 0.3)

    def test_copies_are_what_the_pipeline_draws(self, method, cohort, originals, tiny_bundle):
        copies = method.anonymize(cohort, originals, 3)

        drawn = redraw_with(
            PrivDiffPipeline.from_pretrained(tiny_bundle), originals, Profile.STANDARD, 0.3, 3
        )
        assert copies.shape == originals.shape
        assert torch.equal(copies, drawn)

    def test_another_seed_gives_other_copies_and_the_same_one_the_same(
        self, method, cohort, originals
    ):
        copies = method.anonymize(cohort, originals, 3)

        assert torch.equal(method.anonymize(cohort, originals, 3), copies)
        assert not torch.equal(method.anonymize(cohort, originals, 4), copies)

    def test_name_tells_profile_strength_and_what_is_told(self, method):
        assert (method.name, method.family, method.setting) == ("standard 0.3", "standard", "0.3")
        told = replace(method, told_what=Told.REPORT)
        assert (told.name, told.told) == ("standard 0.3, told the report", "report")
        assert replace(method, profile=Profile.VANILLA, strength=1.0).name == "labels to image"

    @pytest.mark.parametrize(
        "change", [{"profile": Profile.FAST}, {"strength": 0.4}, {"told_what": Told.HEADER}]
    )
    def test_every_parameter_changes_the_fingerprint(self, method, change):
        assert replace(method, **change).fingerprint != method.fingerprint

    def test_what_is_told_decides_the_copies(self, method, cohort, originals):
        told = replace(method, told_what=Told.REPORT)

        assert not torch.equal(
            told.anonymize(cohort, originals, 0), method.anonymize(cohort, originals, 0)
        )

    def test_labels_to_image_owes_nothing_to_the_pixels_but_the_findings(
        self, method, cohort, originals
    ):
        # With the report told, nothing at all is read from the pixels.
        labels = replace(method, profile=Profile.VANILLA, strength=1.0, told_what=Told.REPORT)

        assert torch.equal(
            labels.anonymize(cohort, originals, 0), labels.anonymize(cohort, 1 - originals, 0)
        )
