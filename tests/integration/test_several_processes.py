"""Two processes train what one process trains, each on half of the batch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.integration.train_every_stage import train_every_stage
from tests.integration.training_process import ENVIRONMENT
from tests.unit.tiny import tiny_pipeline
from tests.unit.workshop import STAGE_KEYS, Workshop, weights

# `accelerate launch` starts several processes on GPUs only.
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ON_CPU = {
    **ENVIRONMENT,
    "ACCELERATE_USE_CPU": "true",
    "FORK_LAUNCHED": "1",  # keeps the processes connected from one stage to the next
}


@dataclass
class Trained:
    """What one process and two processes made of the same first components."""

    start: Path
    one: Path
    two: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("processes")
    workshop = Workshop(root)
    for name in STAGE_KEYS:
        workshop.config(name, steps=3, log_every=1)
    # Batch normalisation needs two rows in each process.
    workshop.config("suppression", steps=3, log_every=1, adversarial_rows=4)
    for name, component in tiny_pipeline().components.items():
        if component is not None:
            component.save_pretrained(root / "start" / name)
    arguments = [str(root), str(root / "start"), str(root / "two")]
    subprocess.run(
        [sys.executable, *LAUNCH, "-m", "tests.integration.train_every_stage", *arguments],
        check=True,
        env=ON_CPU,
        timeout=200,
    )
    train_every_stage(root, root / "start", root / "one")
    return Trained(root / "start", root / "one", root / "two")


def curve(output: Path, stage: str, figure: str) -> list[float]:
    events = EventAccumulator(str(output / "runs" / stage / stage))
    events.Reload()
    return [event.value for event in events.Scalars(figure)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "figure"),
    [("autoencoder", "l1"), ("diffusion", "denoising"), ("distillation", "distillation")],
)
def test_the_loss_curve_is_that_of_one_process(trained: Trained, stage: str, figure: str) -> None:
    one, two = (curve(output, stage, figure) for output in (trained.one, trained.two))

    assert len(one) == 3
    assert two == pytest.approx(one, rel=1e-3)


@pytest.mark.slow
def test_the_weights_are_those_of_one_process(trained: Trained) -> None:
    start, one, two = (
        weights(folder / "denoiser")
        for folder in (trained.start, trained.one / "bundle", trained.two / "bundle")
    )

    moved = torch.cat([(one[name] - start[name]).flatten() for name in one]).norm()
    apart = torch.cat([(one[name] - two[name]).flatten() for name in one]).norm()
    assert moved > 0
    assert apart < 1e-3 * moved  # sums in another order


@pytest.mark.slow
def test_every_stage_trains_to_its_end(trained: Trained) -> None:
    one, two = (weights(output / "bundle") for output in (trained.one, trained.two))

    assert (trained.two / "runs" / "reader" / "checkpoint-3" / "random_states_1.pkl").is_file()
    assert two.keys() == one.keys()
    assert all(weight.isfinite().all() for weight in two.values())
