"""Caches of pixels and latents change with what they were made from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.images import load_images
from privdiff_training.latents import load_latents
from privdiff_training.stages.data import TrainingImages

from privdiff_infer.errors import CohortError
from privdiff_infer.model.autoencoder import RadiographAutoencoder
from tests.unit.cohort_factory import write_cohort


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return read_manifest(write_cohort(tmp_path, patients=1))


@pytest.fixture
def autoencoder() -> RadiographAutoencoder:
    torch.manual_seed(0)
    return RadiographAutoencoder(4, (8, 8, 8)).eval()


def turn_over(path: Path) -> None:
    """Replace an image by its mirror image, under the same name."""
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)


def of_pixels(cohort: Cohort, pixels: torch.Tensor) -> TrainingImages:
    return TrainingImages(cohort, pixels, [], torch.device("cpu"))


def test_unchanged_files_are_prepared_once(cohort: Cohort, tmp_path: Path) -> None:
    for _ in range(2):
        load_images(cohort, 64, tmp_path / "cache")

    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_changed_image_is_prepared_again(cohort: Cohort, tmp_path: Path) -> None:
    before = load_images(cohort, 64, tmp_path / "cache")

    turn_over(cohort.root / cohort.rows[0].image)
    after = load_images(cohort, 64, tmp_path / "cache")

    assert torch.equal(after[0], before[0].flip(-1))
    assert torch.equal(after[1], before[1])


def test_an_image_that_is_not_there_is_an_error_that_names_it(
    cohort: Cohort, tmp_path: Path
) -> None:
    (cohort.root / cohort.rows[0].image).unlink()

    with pytest.raises(CohortError, match=r"image p0_0\.png cannot be read; check the manifest"):
        load_images(cohort, 64, tmp_path / "cache")


def test_two_cohorts_with_the_same_names_have_latents_of_their_own(
    cohort: Cohort, autoencoder: RadiographAutoencoder, tmp_path: Path
) -> None:
    black, white = (torch.full((2, 64, 64), value, dtype=torch.uint8) for value in (0, 255))

    first, second = (
        load_latents(autoencoder, of_pixels(cohort, pixels), 1, 0, tmp_path)
        for pixels in (black, white)
    )

    assert not torch.equal(first, second)


def test_another_image_size_has_latents_of_its_own(
    cohort: Cohort, autoencoder: RadiographAutoencoder, tmp_path: Path
) -> None:
    wide, narrow = torch.zeros(2, 64, 64).byte(), torch.zeros(8, 32, 32).byte()

    first, second = (
        load_latents(autoencoder, of_pixels(cohort, pixels), 1, 0, tmp_path)
        for pixels in (wide, narrow)
    )

    assert first.shape == (1, 2, 4, 4, 4)
    assert second.shape == (1, 8, 4, 2, 2)
