"""A folder in which every stage of training runs in seconds, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from privdiff_training.loop import Stage, train
from privdiff_training.sampling import Step, batch_rows, generator_for
from privdiff_training.stages.registry import build_stage
from safetensors.torch import load_file

from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import SIZE, TINY_RESNET, TINY_UNET

LATENT: dict[str, Any] = {"latent_versions": 2, "batch_size": 4}
STAGE_KEYS: dict[str, dict[str, Any]] = {
    "autoencoder": {
        "batch_size": 4,
        "latent_channels": 4,
        "block_out_channels": [8, 8, 8],
        "crop_size": 32,
        "adversarial_weight": 0.1,
        "feature_weight": 0.1,
        "adversarial_first_step": 1,
    },
    "identity": {
        "batch_size": 4,
        "backbone": TINY_RESNET,
        "critic_image_size": 32,
        "embedding_dim": 8,
        "prototypes": 4,
    },
    "reader": {"batch_size": 8, "backbone": TINY_RESNET, "critic_image_size": 32},
    "diffusion": {**LATENT, "unet": TINY_UNET},
    "suppression": {**LATENT, "rank": 2, "adversarial_rows": 2},
    "distillation": {**LATENT, "rank": 2},
}


def plain(value: Any) -> Any:
    """Turn tuples into lists, which YAML can hold."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


class Workshop:
    """A folder with a cohort, configurations and the bundle that is being built."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bundle = root / "bundle"
        self.manifest = write_cohort(root)

    def config(self, stage: str, **changes: Any) -> Path:
        data = {
            "manifest": str(self.manifest),
            "image_size": SIZE,
            "cache_dir": str(self.root / "cache"),
        }
        keys = {"stage": stage, "steps": 3, "checkpoint_every": 2, "data": data}
        path = self.root / f"{stage}.yaml"
        path.write_text(yaml.safe_dump(plain({**keys, **STAGE_KEYS[stage], **changes})))
        return path

    def stage(self, name: str, init_from: Path | None = None, **changes: Any) -> Stage[Any]:
        return build_stage(name, self.config(name, **changes), self.bundle, init_from)

    def train(self, name: str, run: str = "run", **changes: Any) -> None:
        train(self.stage(name, **changes), self.root / run / name, self.bundle)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors below a folder by component and name."""
    return {
        f"{path.parent.name}/{name}": weight
        for path in sorted(folder.rglob("*.safetensors"))
        for name, weight in load_file(path).items()
    }


def step_of(stage: Stage[Any], player: str, index: int = 0, part: tuple[int, int] = (0, 1)) -> Step:
    """Return a step of a stage as the loop draws it for process `part[0]` of `part[1]`."""
    seed = stage.config.seed
    rows = batch_rows(stage.shares(), stage.config.batch_size, seed, index)
    return Step(index, rows, generator_for(seed, "step", index, player), *part)
