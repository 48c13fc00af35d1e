"""Stage `distillation`: three guided branches become one pass, as LoRA weights for `fast`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from diffusers import DDPMScheduler
from pydantic import Field
from torch import Tensor

from privdiff_infer.model.autoencoder import RadiographAutoencoder
from privdiff_infer.model.conditioning import Condition
from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.model.guidance import rescaled
from privdiff_infer.model.sas import SASSettings
from privdiff_infer.model.stable_diffusion import KLAutoencoder
from privdiff_infer.vocabulary import SENSITIVE_BRANCHES
from privdiff_training.loop import Player, Stage
from privdiff_training.sampling import Step
from privdiff_training.stages.adapter import attach_adapter, export_adapter
from privdiff_training.stages.diffusion import LatentData, LatentStageConfig
from privdiff_training.stages.reader import UNLABELLED


class DistillationConfig(LatentStageConfig):
    """Keys of the distillation stage; the data keys must be those of the diffusion stage."""

    stage: Literal["distillation"] = "distillation"
    adapter: str = Field("fast", description="Name of the LoRA weights in the bundle.")
    rank: int = Field(16, ge=1, description="Of the LoRA weights.")
    findings_weight: float = Field(1.5, ge=1, description="w_diag.")
    attribute_weight: float = Field(
        1 / 3,
        ge=0,
        le=1,
        description="|w_s| of every attribute; sampling takes one of three in each step.",
    )


class DistillationStage(Stage[DistillationConfig]):
    """The student's findings branch learns the frozen base model's guided prediction.

    target = T(phi) + w_d [T(diag) - T(phi)] - sum_s |w_s| [T(s) - T(phi)]

    rescaled to the deviation of T(diag), as sampling does. The student needs no sensitive label and
    no second branch. Teacher and student are one network: the teacher is the base with its adapter
    switched off.
    """

    def __init__(
        self,
        config: DistillationConfig,
        autoencoder: RadiographAutoencoder | KLAutoencoder,
        identity: IdentityEmbedder,
        denoiser: PrivDiffDenoiser,
        initial: Path | None,
    ) -> None:
        self.config = config
        self.scheduler: DDPMScheduler = config.schedule.scheduler()
        self.data = LatentData.load(config, autoencoder, identity)
        self.images = self.data.images
        torch.manual_seed(config.seed)
        attach_adapter(denoiser, config.adapter, config.rank, initial)
        self.denoiser = denoiser
        self.networks = {"denoiser": denoiser}

    def players(self) -> tuple[Player, ...]:
        return (Player("denoiser", ("denoiser",), self.config.learning_rate),)

    def loss(self, player: str, step: Step) -> tuple[Tensor, Mapping[str, float]]:
        rows = step.local(step.rows)
        latents = self.data.draw(step)
        timesteps = self.data.timesteps(step, self.config.schedule.num_train_timesteps)
        noise = step.randn(len(step.rows), *latents.shape[1:]).to(latents.device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        target = self._target(noisy, timesteps, rows)
        findings = Condition.of_findings(self.data.labels.findings[rows]).to(latents.device)
        predicted = self.networks["denoiser"](noisy, timesteps, findings, SASSettings())
        loss = (predicted - target).square().mean()
        return loss, {"distillation": loss.item()}

    def export(self, folder: Path) -> None:
        export_adapter(self.denoiser, self.config.adapter, folder)

    @torch.no_grad()
    def _target(self, noisy: Tensor, timesteps: Tensor, rows: Tensor) -> Tensor:
        """Return the teacher's guided prediction; an attribute without a label is left out."""
        config, count = self.config, len(rows)
        values = [self.data.values(branch)[rows] for branch in SENSITIVE_BRANCHES]
        branches = Condition.cat(
            [
                Condition.unconditional(count),
                Condition.of_findings(self.data.labels.findings[rows]),
                *(
                    Condition.of_attribute(branch, value.clamp_min(0))
                    for branch, value in zip(SENSITIVE_BRANCHES, values, strict=True)
                ),
            ]
        ).to(noisy.device)
        copies = 2 + len(SENSITIVE_BRANCHES)
        self.denoiser.activate_adapter(None)
        predictions = self.denoiser(
            noisy.repeat(copies, 1, 1, 1), timesteps.repeat(copies), branches, SASSettings()
        )
        self.denoiser.activate_adapter(config.adapter)
        unconditional, diagnostic, *sensitive = predictions.chunk(copies)
        target = unconditional + config.findings_weight * (diagnostic - unconditional)
        for value, prediction in zip(values, sensitive, strict=True):
            known = (value != UNLABELLED).to(noisy)[:, None, None, None]
            target = target - config.attribute_weight * known * (prediction - unconditional)
        return rescaled(target, diagnostic)
