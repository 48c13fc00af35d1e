"""Fixtures that several test modules use."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from privdiff_training.assemble import write_metadata

from tests.unit.outputs import AUDIT_KEY
from tests.unit.tiny import SIZE, TINY_UNET, tiny_pipeline

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run."""
    no_gpu = pytest.mark.skip(reason="no CUDA device")
    no_shared = pytest.mark.skip(reason="../shared with real images is absent")
    no_browser = pytest.mark.skip(reason="chromium and chromedriver are absent")
    has_browser = shutil.which("chromium") and shutil.which("chromedriver")
    for item in items:
        if item.get_closest_marker("browser") and not has_browser:
            item.add_marker(no_browser)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(no_shared)


@pytest.fixture(scope="session", autouse=True)
def audit_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file with the tests' own audit key, also for the processes that they start."""
    file = tmp_path_factory.mktemp("key") / "audit-key"
    file.touch(mode=0o600)
    file.write_bytes(AUDIT_KEY + b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVDIFF_AUDIT_KEY_FILE", str(file))
        yield file


@pytest.fixture(scope="session", autouse=True)
def pseudonym_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A key of the tests' own, also for the processes that they start."""
    file = tmp_path_factory.mktemp("key") / "key"
    file.touch(mode=0o600)
    file.write_text("a key of tests, which are no secret")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVDIFF_KEY_FILE", str(file))
        yield file


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete bundle of random weights whose gates let everything through."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    (folder / "README.md").write_text("A bundle for tests.\n")
    write_metadata(folder, tiny_metadata())
    return folder


@pytest.fixture
def stable_diffusion_folder(tmp_path: Path) -> Path:
    """A tiny random model in the layout of Stable Diffusion."""
    torch.manual_seed(0)
    UNet2DConditionModel(**TINY_UNET).save_pretrained(tmp_path / "unet")
    AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
    ).save_pretrained(tmp_path / "vae")
    DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    index = (
        '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}'
    )
    (tmp_path / "model_index.json").write_text(index)
    return tmp_path


def tiny_metadata(**changes: object) -> dict[str, object]:
    """Return the fields of a bundle's metadata.json but for the hashes."""
    fields: dict[str, object] = {
        "name": "tiny",
        "version": "1.0",
        "licence": "Apache-2.0",
        "summary": "Random weights.",
        "training_data": "None.",
        "trained_on": ("cohort",),
        "intended_use": "Tests.",
        "image_size": SIZE,
        "operating_points": {
            name: {"strength": 0.3} for name in ("standard", "fast", "vanilla", "paper")
        },
        "gates": {"frontal_logit": -1e9, "linkage_similarity": 1.0},
    }
    return fields | changes


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three small radiograph-like PNG files with telling names."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        write_picture(folder / f"Doe_Jane_{number}.png", number)
    return folder


def write_picture(path: Path, seed: int, shape: tuple[int, int] = (90, 70)) -> None:
    """Write a smooth random PNG of 8 bits."""
    coarse = np.random.default_rng(seed).random((5, 4)) * 255
    image = Image.fromarray(coarse.astype(np.uint8))
    image.resize(shape[::-1], Image.Resampling.BICUBIC).save(path)
