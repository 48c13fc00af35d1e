"""A training process that is killed outright continues as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.training_process import (
    ENVIRONMENT,
    train_command,
    write_base,
    write_config,
)
from tests.unit.tiny import TINY_UNET

AUTOENCODER = {
    "steps": 12,
    "latent_channels": 4,
    "block_out_channels": [8, 8, 8],
    "crop_size": 32,
}
DIFFUSION = {"steps": 40, "unet": TINY_UNET, "latent_versions": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "component", "keys"),
    [("autoencoder", "autoencoder", AUTOENCODER), ("diffusion", "denoiser", DIFFUSION)],
)
def test_a_run_that_was_killed_ends_with_the_same_weights(
    tmp_path: Path, stage: str, component: str, keys: dict[str, Any]
) -> None:
    weights = Path(component) / "diffusion_pytorch_model.safetensors"
    config = write_config(tmp_path, stage, batch_size=4, checkpoint_every=2, **keys)
    base = write_base(tmp_path / "base") if stage == "diffusion" else None
    whole, parts, run_dir = tmp_path / "whole", tmp_path / "parts", tmp_path / "run-parts"
    uninterrupted = train_command(config, whole, tmp_path / "run-whole", base)
    interrupted = train_command(config, parts, run_dir, base)
    subprocess.run(uninterrupted, check=True, env=ENVIRONMENT, timeout=300)

    process = subprocess.Popen(interrupted, env=ENVIRONMENT, start_new_session=True)
    deadline = time.monotonic() + 200
    while not (run_dir / "LATEST").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    killed_before_the_end = not (parts / weights).exists()
    subprocess.run(interrupted, check=True, env=ENVIRONMENT, timeout=300)

    assert killed_before_the_end
    expected, actual = load_file(whole / weights), load_file(parts / weights)
    assert all(torch.equal(actual[name], weight) for name, weight in expected.items())
