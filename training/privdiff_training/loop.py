"""The training loop that all stages share: optimizers, EMA, checkpoints, progress."""

from __future__ import annotations

import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from privdiff_infer.errors import ConfigError
from privdiff_training.config import StageConfig
from privdiff_training.run_record import RunRecord
from privdiff_training.sampling import Share, Step, batch_rows, generator_for
from privdiff_training.stages.data import TrainingImages

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Player:
    """Networks that share one optimizer and one loss; adversarial stages have two players."""

    name: str
    networks: tuple[str, ...]
    learning_rate: float
    first_step: int = 0


StageConfigT = TypeVar("StageConfigT", bound=StageConfig)


class Stage(ABC, Generic[StageConfigT]):
    """What one stage of training computes; the loop does the rest.

    Attributes
    ----------
    config
        Of the stage.
    networks
        What is trained and checkpointed; frozen networks are plain attributes of the stage.
    images
        The cohort, in host memory.
    started_from
        SHA-256 of the weights that the stage started from; None if from random ones.
    """

    config: StageConfigT
    networks: dict[str, nn.Module]
    images: TrainingImages
    started_from: str | None = None

    @abstractmethod
    def players(self) -> tuple[Player, ...]:
        """Return the players in the order in which they move in every step."""

    def shares(self) -> list[Share]:
        """Return the groups of training rows and their parts of a batch."""
        return self.images.shares

    @abstractmethod
    def loss(self, player: str, step: Step) -> tuple[Tensor, Mapping[str, float]]:
        """Return the loss of one player and the figures to log."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the trained (EMA) weights to `folder`; called with EMA weights in `networks`."""

    def privacy_spent(self, steps: int) -> dict[str, float]:
        """Return epsilon and delta of so many steps, where training is differentially private."""
        return {}

    def to(self, device: torch.device) -> None:
        """Move frozen networks to `device`, and from now on what a step picks of the cohort."""
        self.images.device = device
        for value in vars(self).values():
            if isinstance(value, nn.Module):
                value.to(device)


class _Position:
    """The number of steps done, as accelerate checkpoints it."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


Watch = Callable[[int, Mapping[str, float]], bool]
"""Called by the first process after every step with the number of steps done and the figures of the
last one. If it returns True, the run ends there as if that had been its last step."""


class Judge(Protocol):
    """Looks at the averaged weights now and then, and says which of them are exported."""

    def is_due(self, step: int) -> bool:
        """Tell whether it looks after this step; 0 is before the first."""

    def look(self, step: int) -> bool:
        """Look at the averaged weights, which are in the networks of the stage meanwhile.

        Called by the first process. If it returns True, the run ends there. A run that continues
        asks again for the step that it continues from.
        """

    def choose(self) -> None:
        """Put the weights that were best into the networks of the stage, before the export."""


def train(
    stage: Stage[Any],
    run_dir: Path,
    export_to: Path,
    watch: Watch | None = None,
    judge: Judge | None = None,
) -> None:
    """Train a stage to its last step, or as far as `watch` and `judge` let it, and export it.

    The run continues from the last complete checkpoint in `run_dir`, with the same result as if it
    had not been interrupted. Without a judge the last averaged weights are exported.

    Raises
    ------
    ConfigError
        If `run_dir` has a checkpoint of a run with another configuration or other first weights,
        or the batch cannot be divided among the processes.
    """
    _Run(stage, run_dir, judge).train(export_to, watch)


# A step runs the branches that it drew, so not every parameter has a gradient. Buffers stay with
# their process: up to torch 2.12, copying those of the first one between two calls of a network
# with batch normalisation, as for the images of a pair, spoils the gradient of the first call.
DISTRIBUTION = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)


class _Run:
    """One run of one stage in one folder."""

    def __init__(self, stage: Stage[Any], run_dir: Path, judge: Judge | None) -> None:
        config = stage.config
        run_dir.mkdir(parents=True, exist_ok=True)
        self.stage = stage
        self.judge = judge
        self.config = config
        self.run_dir = run_dir
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            log_with="tensorboard",
            project_dir=run_dir,
            kwargs_handlers=[DISTRIBUTION],
        )
        self._check_batch()
        self.position = _Position()
        self.players = stage.players()
        self.shares = stage.shares()
        self.optimizers = {p.name: self._optimizer(p) for p in self.players}
        self.schedules = {
            p.name: self.accelerator.prepare(
                get_scheduler(
                    "cosine" if config.decay == "cosine" else "constant_with_warmup",
                    self.optimizers[p.name],
                    num_warmup_steps=config.warmup_steps * self.accelerator.num_processes,
                    num_training_steps=config.steps * self.accelerator.num_processes,
                )
            )
            for p in self.players
        }
        self.ema = {
            name: EMAModel(network.parameters(), decay=config.ema_decay, use_ema_warmup=True)
            for name, network in stage.networks.items()
            if name in self.players[0].networks
        }
        for name, network in stage.networks.items():
            stage.networks[name] = self.accelerator.prepare(network)
        stage.to(self.accelerator.device)
        for ema in self.ema.values():
            ema.to(self.accelerator.device)
        self.accelerator.register_for_checkpointing(self.position, *self.ema.values())
        self.accelerator.init_trackers(config.stage)

    def train(self, export_to: Path, watch: Watch | None) -> None:
        self._continue()
        with self._progress() as progress:
            task = progress.add_task(
                self.config.stage, total=self.config.steps, completed=self.position.step, note=""
            )
            done = self.position.step >= self.config.steps
            done = self._judge_ends() or done
            while not done:
                figures = self._step(self.position.step)
                self.position.step += 1
                self._log(figures)
                note = " ".join(f"{key} {value:.3g}" for key, value in figures.items())
                progress.update(task, completed=self.position.step, note=note)
                done = self._is_last(figures, watch)
                done = self._judge_ends() or done
                if done or self.position.step % self.config.checkpoint_every == 0:
                    self._save_checkpoint()
        self._export(export_to)
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.wait_for_everyone()

    def _is_last(self, figures: Mapping[str, float], watch: Watch | None) -> bool:
        """Tell whether the run ends with the step that was just done; all processes agree."""
        last = self.position.step >= self.config.steps
        if watch is None:
            return last
        return self._agreed(lambda: watch(self.position.step, figures)) or last

    def _judge_ends(self) -> bool:
        """Let the judge look, if it is due, and tell whether the run ends; all processes agree."""
        judge, step = self.judge, self.position.step
        if judge is None or not judge.is_due(step):
            return False

        def looks() -> bool:
            with self._averaged():
                return judge.look(step)

        return self._agreed(looks)

    def _agreed(self, of_the_first: Callable[[], bool]) -> bool:
        """Return what the first process says, in every process."""
        told = [self.accelerator.is_main_process and of_the_first()]
        return bool(broadcast_object_list(told)[0])

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Have the averaged weights in the networks, in evaluation mode, for a while."""
        networks = {
            name: self.accelerator.unwrap_model(network)
            for name, network in self.stage.networks.items()
        }
        modes = {name: network.training for name, network in networks.items()}
        for name, ema in self.ema.items():
            ema.store(networks[name].parameters())
            ema.copy_to(networks[name].parameters())
        for network in networks.values():
            network.eval()
        with torch.no_grad():
            yield
        for name, ema in self.ema.items():
            ema.restore(networks[name].parameters())
        for name, network in networks.items():
            network.train(modes[name])

    def _check_batch(self) -> None:
        processes = self.accelerator.num_processes
        if self.config.batch_size % processes:
            raise ConfigError(
                f"batch_size: {self.config.batch_size} rows cannot be divided among {processes} "
                "processes",
                "choose a multiple",
            )

    def _optimizer(self, player: Player) -> Any:
        parameters = [
            parameter
            for name in player.networks
            for parameter in self.stage.networks[name].parameters()
            if parameter.requires_grad
        ]
        return self.accelerator.prepare(
            torch.optim.AdamW(
                parameters, lr=player.learning_rate, weight_decay=self.config.weight_decay
            )
        )

    def _step(self, index: int) -> dict[str, float]:
        figures: dict[str, float] = {}
        for player in self.players:
            if index < player.first_step:
                continue
            loss, scalars = self.stage.loss(player.name, self._draw(index, player.name))
            self.accelerator.backward(loss)
            # An adversarial loss leaves gradients in the other player's networks too.
            self._clip_and_update(player)
            figures |= scalars
        for name, ema in self.ema.items():
            ema.step(self.accelerator.unwrap_model(self.stage.networks[name]).parameters())
        return figures

    def _draw(self, index: int, player: str) -> Step:
        config = self.config
        # Code that takes no generator (dropout, library layers) draws from the global one.
        torch.manual_seed(generator_for(config.seed, "global", index, player).initial_seed())
        return Step(
            index=index,
            rows=batch_rows(self.shares, config.batch_size, config.seed, index),
            generator=generator_for(config.seed, "step", index, player),
            process_index=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
        )

    def _clip_and_update(self, player: Player) -> None:
        parameters = [p for n in player.networks for p in self.stage.networks[n].parameters()]
        self.accelerator.clip_grad_norm_(parameters, self.config.max_grad_norm)
        self.optimizers[player.name].step()
        self.schedules[player.name].step()
        for network in self.stage.networks.values():
            network.zero_grad(set_to_none=True)

    def _log(self, figures: Mapping[str, float]) -> None:
        if self.position.step % self.config.log_every:
            return
        figures = self._of_all_processes(figures)
        self.accelerator.log(figures, step=self.position.step)
        if self.accelerator.is_main_process:
            logger.info("%s step %d: %s", self.config.stage, self.position.step, figures)

    def _of_all_processes(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Return the means over the parts of the batch."""
        values = torch.tensor(list(figures.values()), device=self.accelerator.device)
        means = self.accelerator.reduce(values, reduction="mean").tolist()
        return dict(zip(figures, means, strict=True))

    def _save_checkpoint(self) -> None:
        """Write a new folder, then point LATEST at it: a kill leaves the old one whole."""
        name = f"checkpoint-{self.position.step}"
        self.accelerator.save_state(str(self.run_dir / name))
        self.accelerator.wait_for_everyone()  # every process writes a part of the checkpoint
        if not self.accelerator.is_main_process:
            return
        pointer = self.run_dir / "LATEST"
        partial = pointer.with_suffix(".partial")
        partial.write_text(name, encoding="utf-8")
        os.replace(partial, pointer)
        for old in self.run_dir.glob("checkpoint-*"):
            if old.name != name:
                shutil.rmtree(old)

    def _continue(self) -> None:
        """Load the last complete checkpoint, if it is one of this very run."""
        record = RunRecord.of(self.config, self.stage.started_from)
        pointer = self.run_dir / "LATEST"
        if pointer.exists():
            record.refuse_another(self.run_dir)
            name = pointer.read_text(encoding="utf-8")
            self.accelerator.load_state(str(self.run_dir / name))
            logger.info("resumed %s from %s", self.config.stage, name)
        self.accelerator.wait_for_everyone()  # all have compared before the record changes
        if self.accelerator.is_main_process:
            record.write(self.run_dir)

    def _export(self, folder: Path) -> None:
        if not self.accelerator.is_main_process:
            return
        networks = self.stage.networks
        for name in networks:
            networks[name] = self.accelerator.unwrap_model(networks[name])
        for name, ema in self.ema.items():
            ema.copy_to(networks[name].parameters())
        for network in networks.values():
            network.eval()
        if self.judge is not None:
            self.judge.choose()
        with torch.no_grad():
            self.stage.export(folder)

    def _progress(self) -> Progress:
        columns: Iterable[Any] = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        return Progress(*columns, disable=not self.accelerator.is_main_process)
