"""Trains every stage of a workshop once; run by `torchrun` with several processes."""

from __future__ import annotations

import sys
from pathlib import Path

from privdiff_training.loop import train
from privdiff_training.stages.registry import STAGES, build_stage


def train_every_stage(configs: Path, components: Path, output: Path) -> None:
    """Train the stages whose YAML files are in `configs`, each on the same first components."""
    for name in STAGES:
        stage = build_stage(name, configs / f"{name}.yaml", components, components)
        train(stage, output / "runs" / name, output / "bundle")


if __name__ == "__main__":
    train_every_stage(*map(Path, sys.argv[1:]))
