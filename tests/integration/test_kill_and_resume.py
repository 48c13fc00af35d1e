"""A training process that is killed outright continues as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.unit.cohort_factory import write_cohort

STEPS = 12
WEIGHTS = Path("autoencoder/diffusion_pytorch_model.safetensors")


def command(config: Path, bundle: Path, run_dir: Path) -> list[str]:
    arguments = ["--config", config, "--bundle", bundle, "--run-dir", run_dir]
    return [
        sys.executable,
        "-m",
        "privdiff_infer",
        "train",
        "autoencoder",
        *map(str, arguments),
    ]


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    config = tmp_path / "autoencoder.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "stage": "autoencoder",
                "data": {
                    "manifest": str(write_cohort(tmp_path)),
                    "image_size": 64,
                    "cache_dir": str(tmp_path / "cache"),
                },
                "steps": STEPS,
                "batch_size": 4,
                "checkpoint_every": 2,
                "latent_channels": 4,
                "block_out_channels": [8, 8, 8],
                "crop_size": 32,
            }
        )
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, parts, run_dir = tmp_path / "whole", tmp_path / "parts", tmp_path / "run-parts"
    subprocess.run(
        command(config, whole, tmp_path / "run-whole"), check=True, env=environment, timeout=300
    )

    process = subprocess.Popen(
        command(config, parts, run_dir), env=environment, start_new_session=True
    )
    deadline = time.monotonic() + 200
    while not (run_dir / "LATEST").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    killed_before_the_end = not (parts / WEIGHTS).exists()
    subprocess.run(command(config, parts, run_dir), check=True, env=environment, timeout=300)

    assert killed_before_the_end
    expected, actual = load_file(whole / WEIGHTS), load_file(parts / WEIGHTS)
    assert all(torch.equal(actual[name], weight) for name, weight in expected.items())
