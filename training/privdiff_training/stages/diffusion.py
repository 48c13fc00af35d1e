"""Stage `diffusion`: the base latent diffusion model over all branches."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import compute_snr
from pydantic import Field, field_validator
from torch import Tensor

from privdiff_infer.model.autoencoder import RadiographAutoencoder
from privdiff_infer.model.conditioning import Condition
from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.model.sas import SASMode, SASSettings
from privdiff_infer.model.stable_diffusion import KLAutoencoder
from privdiff_infer.vocabulary import Branch, FindingState
from privdiff_training.config import StageConfig, Strict
from privdiff_training.latents import load_latents
from privdiff_training.loop import Player, Stage
from privdiff_training.sampling import Step
from privdiff_training.stages.adapter import attach_adapter
from privdiff_training.stages.data import TrainingImages
from privdiff_training.stages.reader import UNLABELLED, Labels
from privdiff_training.whole_folder import whole_folder

MERGED_ADAPTER = "cohort"
"""Name of LoRA weights that no bundle holds, for they end in the denoiser."""


class ScheduleConfig(Strict):
    """The forward process; the betas are those of the MONAI chest X-ray bundle."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0205
    beta_schedule: str = "scaled_linear"
    prediction_type: Literal["epsilon", "v_prediction"] = "v_prediction"

    def scheduler(self) -> DDPMScheduler:
        """Return the scheduler that adds noise; it is saved with the bundle."""
        return DDPMScheduler(**self.model_dump(), clip_sample=False)


class BranchConfig(Strict):
    """Part of the rows that train each branch; the rest trains the diagnostic branch."""

    identity: float = 0.15
    age: float = 0.10
    sex: float = 0.10
    unconditional: float = 0.15


class SASMixture(Strict):
    """How often a step runs each form of SAS.

    The weights must also serve the profile `vanilla`, the honest null without SAS, and the literal
    equations of `paper`; a model that had seen only one form would handicap the others.
    """

    centered: float = 0.7
    paper: float = 0.1
    off: float = 0.2


class LatentStageConfig(StageConfig):
    """Keys of every stage that trains on latents."""

    schedule: ScheduleConfig = ScheduleConfig()
    branches: BranchConfig = BranchConfig()
    sas: SASMixture = SASMixture()
    finding_dropout: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Largest part of a row's findings made unknown; each row draws its own part.",
    )
    snr_gamma: float | None = Field(
        5.0, gt=0, description="min-SNR loss weighting; none: the plain error of the prediction."
    )
    latent_versions: int = Field(4, ge=1, description="Augmented versions cached per image.")
    latent_seed: int = Field(0, description="Seed of those versions; equal in all latent stages.")


class DiffusionConfig(LatentStageConfig):
    """Keys of the diffusion stage."""

    stage: Literal["diffusion"] = "diffusion"
    unet: dict[str, Any] = Field(description="Arguments of UNet2DConditionModel.")
    rank: int | None = Field(
        None,
        ge=1,
        description="Of LoRA weights to train, which end in the denoiser; none: all weights.",
    )
    gate: float = Field(
        0.0, ge=0, description="Smallest size of the cross-attentions' gates when the leg starts."
    )

    @field_validator("unet")
    @classmethod
    def _known_arguments(cls, unet: dict[str, Any]) -> dict[str, Any]:
        unknown = unet.keys() - inspect.signature(UNet2DConditionModel).parameters.keys()
        if unknown:
            raise ValueError(f"UNet2DConditionModel has no argument {min(unknown)!r}")
        return unet


class DiffusionStage(Stage[DiffusionConfig]):
    """Denoising loss with one condition per row, all branches in one batch."""

    def __init__(
        self,
        config: DiffusionConfig,
        autoencoder: RadiographAutoencoder | KLAutoencoder,
        identity: IdentityEmbedder,
        initial: PrivDiffDenoiser | None,
    ) -> None:
        self.config = config
        self.scheduler = config.schedule.scheduler()
        self.data = LatentData.load(config, autoencoder, identity)
        self.images = self.data.images
        torch.manual_seed(config.seed)
        prototypes = len(identity.prototypes)
        self.autoencoder = autoencoder
        self.denoiser = initial or PrivDiffDenoiser(config.unet, identity_prototypes=prototypes)
        self.denoiser.open_gates(config.gate)
        if config.rank is not None:
            attach_adapter(self.denoiser, MERGED_ADAPTER, config.rank, None)
        self.networks = {"denoiser": self.denoiser}

    def players(self) -> tuple[Player, ...]:
        return (Player("denoiser", ("denoiser",), self.config.learning_rate),)

    def loss(self, player: str, step: Step) -> tuple[Tensor, Mapping[str, float]]:
        rows = step.local(step.rows)
        latents = self.data.draw(step)
        timesteps = self.data.timesteps(step, self.config.schedule.num_train_timesteps)
        noise = step.randn(len(step.rows), *latents.shape[1:]).to(latents.device)
        condition = draw_condition(self.data, rows, step, self.config)
        predicted = self.networks["denoiser"](
            self.scheduler.add_noise(latents, noise, timesteps),
            timesteps,
            condition.to(latents.device),
            draw_settings(self.config.sas, step),
        )
        loss = denoising_loss(
            self.scheduler, predicted, latents, noise, timesteps, self.config.snr_gamma
        )
        return loss, {"denoising": loss.item()}

    def export(self, folder: Path) -> None:
        if isinstance(self.autoencoder, KLAutoencoder):  # a base's own, which no stage trains
            with whole_folder(folder / "autoencoder") as partial:
                self.autoencoder.save_pretrained(partial)
        if self.config.rank is not None:
            self.denoiser.merge_adapter(MERGED_ADAPTER)
        with whole_folder(folder / "denoiser") as partial:
            self.denoiser.save_pretrained(partial)
        with whole_folder(folder / "scheduler") as partial:
            self.scheduler.save_pretrained(partial)


class LatentData:
    """Cached latents with the labels of every branch, in host memory."""

    def __init__(self, images: TrainingImages, latents: Tensor, prototypes: Tensor) -> None:
        self.images = images
        self.latents = latents  # (versions, images, c, h, w) float16
        self.labels = Labels.of(images)
        self.prototypes = prototypes  # (images,) row of the identity codebook

    @classmethod
    def load(
        cls,
        config: LatentStageConfig,
        autoencoder: RadiographAutoencoder | KLAutoencoder,
        identity: IdentityEmbedder,
    ) -> LatentData:
        """Encode the cohort, or read it from the cache, and assign identity prototypes."""
        images = TrainingImages.load(config.data)
        latents = load_latents(
            autoencoder, images, config.latent_versions, config.latent_seed, config.data.cache_dir
        )
        identity.to(images.device)
        with torch.no_grad():
            prototypes = [identity.nearest_prototype(batch).cpu() for batch in images.batches()]
        return cls(images, latents, torch.cat(prototypes))

    def draw(self, step: Step) -> Tensor:
        """Return a random version of each row's latent on the device: (n, c, h, w), float32."""
        versions = torch.randint(len(self.latents), (len(step.rows),), generator=step.generator)
        chosen = self.latents[step.local(versions), step.local(step.rows)]
        return chosen.to(self.images.device).float()

    def timesteps(self, step: Step, limit: int) -> Tensor:
        """Return one uniform timestep per row, stratified over the batch."""
        count = len(step.rows)
        offsets = torch.rand(count, generator=step.generator)
        strata = torch.randperm(count, generator=step.generator)
        drawn = ((strata + offsets) / count * limit).long().clamp_max(limit - 1)
        return step.local(drawn).to(self.images.device)

    def values(self, branch: Branch) -> Tensor:
        """Return the codebook row of every image for a sensitive branch, or `UNLABELLED`."""
        return {
            Branch.IDENTITY: self.prototypes,
            Branch.AGE: self.labels.age,
            Branch.SEX: self.labels.sex,
        }[branch]


def draw_condition(
    data: LatentData, rows: Tensor, step: Step, config: LatentStageConfig
) -> Condition:
    """Draw the branch of every row; rows without the label of that branch train the diagnosis."""
    findings = data.labels.findings[rows]
    dropout = config.finding_dropout * step.rand(len(step.rows), 1)
    dropped = step.rand(len(step.rows), findings.shape[1]) < dropout
    findings = findings.masked_fill(dropped, FindingState.UNKNOWN)
    draws = step.rand(len(step.rows))
    parts = config.branches
    condition = Condition.of_findings(findings)
    first = 0.0
    for branch, part in (
        (Branch.IDENTITY, parts.identity),
        (Branch.AGE, parts.age),
        (Branch.SEX, parts.sex),
    ):
        values = data.values(branch)[rows]
        chosen = (draws >= first) & (draws < first + part) & (values != UNLABELLED)
        condition.branch[chosen] = branch.value
        condition.value[chosen] = values[chosen]
        first += part
    condition.findings[(draws >= first) & (draws < first + parts.unconditional)] = (
        FindingState.UNKNOWN
    )
    return condition


def draw_settings(mixture: SASMixture, step: Step) -> SASSettings:
    """Draw the form of SAS that this step runs."""
    draw = float(torch.rand((), generator=step.generator))
    if draw < mixture.off:
        return SASSettings(strength=0.0)
    if draw < mixture.off + mixture.paper:
        return SASSettings(mode=SASMode.PAPER)
    return SASSettings()


def denoising_loss(
    scheduler: DDPMScheduler,
    predicted: Tensor,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    snr_gamma: float | None,
) -> Tensor:
    """Return the weighted mean squared error of a prediction.

    Weighting: min-SNR-gamma (Hang et al., ICCV 2023), in the form for the prediction type; none
    without a gamma, which gives high noise, where the anatomy is decided, its full share.
    """
    is_velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise
    error = (predicted - target).square().mean(dim=(1, 2, 3))
    if snr_gamma is None:
        return error.mean()
    snr = compute_snr(scheduler, timesteps)
    weight = snr.clamp_max(snr_gamma) / (snr + 1 if is_velocity else snr)
    return (weight * error).mean()
