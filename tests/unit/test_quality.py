"""Quality of copies that are known: the originals themselves, shifted chests, noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from privdiff_training.evaluation.feature_distance import frechet_distance, kernel_distance
from privdiff_training.evaluation.lung_fields import lung_fields
from privdiff_training.evaluation.quality import ClassifierEncoder, Encoder, measure_quality
from privdiff_training.evaluation.record import Quality
from torch import Tensor

from privdiff_infer.model.critics import RadiographReader
from tests.unit.chest import chest
from tests.unit.tiny import TINY_RESNET

SIZE = 192


class CornerEncoder:
    """Three pixels for features."""

    name = "corner"

    def features(self, images):
        return images[:, 0, 0, :3]


@pytest.fixture
def chests() -> Tensor:
    return drawn([chest(SIZE, shift=shift) for shift in (-4, -2, 0, 2, 4, 6)])


def drawn(images: list[np.ndarray]) -> Tensor:
    noise = torch.rand(len(images), 1, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    return (torch.from_numpy(np.stack(images))[:, None] + 0.05 * noise).clamp(0, 1)


def measured(originals: Tensor, copies: Tensor, *encoders: Encoder) -> Quality:
    fields = [lung_fields(image) for image in originals[:, 0].numpy()]
    return measure_quality(originals, copies, encoders, 0, fields)


def test_copies_that_are_the_originals(chests):
    quality = measured(chests, chests, CornerEncoder())

    assert quality.ms_ssim == pytest.approx(1, abs=1e-5)
    assert quality.geometry == pytest.approx(1)
    assert quality.geometry_images == quality.images == 6
    assert quality.frechet_distance["corner"] == pytest.approx(0, abs=1e-4)


def test_copies_that_moved_keep_less(chests):
    moved = drawn([chest(SIZE, shift=shift + 16) for shift in (-4, -2, 0, 2, 4, 6)])
    quality = measured(chests, moved)

    assert 0.5 < quality.geometry < 0.9
    assert quality.ms_ssim < 0.9


def test_copies_without_lungs_overlap_by_nothing(chests):
    noise = torch.rand(chests.shape, generator=torch.Generator().manual_seed(0))
    assert measured(chests, noise).geometry == 0


def test_originals_without_lungs_have_no_geometry(chests):
    noise = torch.rand(chests.shape, generator=torch.Generator().manual_seed(0))
    quality = measured(noise, chests)
    assert quality.geometry is None
    assert quality.geometry_images == 0


def test_small_images_have_no_ms_ssim(chests):
    assert math.isnan(measured(chests[..., :64], chests[..., :64]).ms_ssim)


def test_classifier_has_more_features_than_a_few_images_allow(chests):
    torch.manual_seed(0)
    encoder = ClassifierEncoder(RadiographReader(TINY_RESNET, 32).eval())
    quality = measured(chests, chests, encoder)
    assert quality.kernel_distance.keys() == {"the project's classifier"}
    assert quality.frechet_distance == {}


class TestDistances:
    def test_sets_that_lie_apart(self):
        rng = torch.Generator().manual_seed(0)
        near, also_near = torch.randn(2, 80, 4, generator=rng)
        far = near + 3

        assert abs(kernel_distance(near, also_near, 0)) < kernel_distance(near, far, 0) / 10
        assert frechet_distance(near, also_near) < 1
        assert frechet_distance(near, far) == pytest.approx(4 * 9, rel=0.01)

    def test_no_frechet_distance_without_more_images_than_features(self):
        assert frechet_distance(torch.rand(4, 4), torch.rand(9, 4)) is None
        assert frechet_distance(torch.rand(5, 4), torch.rand(5, 4)) is not None

    def test_seed_decides_the_subsets(self):
        first, second = torch.rand(2, 90, 4, generator=torch.Generator().manual_seed(0))
        assert kernel_distance(first, second, 1) == kernel_distance(first, second, 1)
        assert kernel_distance(first, second, 1) != kernel_distance(first, second, 2)
