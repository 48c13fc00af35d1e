"""Training of an attacker: the weights that are best on the select patients are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from privdiff_training.evaluation.attacks.attack import Curve
from privdiff_training.evaluation.attacks.config import FitConfig
from privdiff_training.sampling import generator_for

BATCH = 64
"""Images that are looked at together where nothing is learned."""


@dataclass(frozen=True)
class Fitted:
    """How a training went: the judgement of every step that was judged; the best one was kept."""

    curve: Curve

    @property
    def step(self) -> int:
        """The step whose weights were kept."""
        return min(self.curve, key=lambda point: point[1])[0]


def fit(
    network: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    judge: Callable[[], float],
    config: FitConfig,
    seed: int,
    title: str,
) -> Fitted:
    """Train a network in place; it is left in evaluation mode with its best weights.

    Parameters
    ----------
    network
        All its parameters are trained.
    loss
        Draws a batch by the generator of the step and returns its loss.
    judge
        How bad the network is on the select patients; called in evaluation mode without gradients,
        the first time before anything is learned.
    config
        Steps, learning rate, patience.
    seed
        Of all draws.
    title
        For the progress bar.
    """
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    network.requires_grad_(True)
    curve = [(0, _judged(network, judge))]
    best, kept = curve[0], _weights(network)
    with Progress() as progress:
        task = progress.add_task(title, total=config.steps)
        for step in range(1, config.steps + 1):
            torch.manual_seed(generator_for(seed, "layers", step).initial_seed())  # dropout
            value = loss(generator_for(seed, "step", step))
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.update(task, completed=step)
            if step % config.judge_every and step < config.steps:
                continue
            curve.append((step, _judged(network, judge)))
            if curve[-1][1] < best[1]:
                best, kept = curve[-1], _weights(network)
            elif step - best[0] >= config.patience * config.judge_every:
                break
    network.load_state_dict(kept)
    network.eval().requires_grad_(False)
    return Fitted(tuple(curve))


def resampled(pixels: Tensor, size: int) -> Tensor:
    """Return images of any leading shape (..., 1, s, s), uint8, at another side, by area."""
    if pixels.shape[-1] == size:
        return pixels
    flat = pixels.flatten(0, -4)
    small = [
        functional.interpolate(part.float(), (size, size), mode="area").round().byte()
        for part in flat.split(BATCH)
    ]
    return torch.cat(small).unflatten(0, pixels.shape[:-3])


def in_batches(network: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """Return what a network makes of images (n, 1, s, s), uint8, without gradients."""
    with torch.no_grad():
        return torch.cat([network(part.float() / 255) for part in pixels.split(BATCH)])


def _judged(network: nn.Module, judge: Callable[[], float]) -> float:
    network.eval()
    with torch.no_grad():
        judgement = judge()
    network.train()
    return judgement


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in network.state_dict().items()}
