"""`privdiff train` in processes of its own, on a small cohort, for tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import tiny_pipeline
from tests.unit.workshop import plain

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def write_config(folder: Path, stage: str, **keys: Any) -> Path:
    """Write a cohort and the YAML file of a stage that trains on it."""
    data = {
        "manifest": str(write_cohort(folder)),
        "image_size": 64,
        "cache_dir": str(folder / "cache"),
    }
    path = folder / f"{stage}.yaml"
    path.write_text(yaml.safe_dump(plain({"stage": stage, "data": data, **keys})))
    return path


def write_base(folder: Path) -> Path:
    """Write the components that a latent stage needs of earlier ones."""
    pipeline = tiny_pipeline()
    for name in ("autoencoder", "identity"):
        getattr(pipeline, name).save_pretrained(folder / name)
    return folder


def train_command(config: Path, bundle: Path, run_dir: Path, base: Path | None) -> list[str]:
    """Return the command that trains the stage of a configuration."""
    options = ["--config", config, "--bundle", bundle, "--run-dir", run_dir]
    if base is not None:
        options += ["--init-from", base]
    return [sys.executable, "-m", "privdiff_infer", "train", config.stem, *map(str, options)]
