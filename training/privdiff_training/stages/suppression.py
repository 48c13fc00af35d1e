"""Stage `suppression`: privacy tuning by SPG, adversaries and findings consistency."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from diffusers import DDPMScheduler
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from privdiff_infer.model.autoencoder import RadiographAutoencoder
from privdiff_infer.model.conditioning import Condition
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.model.guidance import guided_prediction, sensitive_branch
from privdiff_infer.model.sas import SASMode, SASSettings
from privdiff_infer.model.stable_diffusion import KLAutoencoder
from privdiff_infer.vocabulary import Branch
from privdiff_training.loop import Player, Stage
from privdiff_training.sampling import Step
from privdiff_training.stages.adapter import attach_adapter, export_adapter
from privdiff_training.stages.diffusion import (
    LatentData,
    LatentStageConfig,
    denoising_loss,
    draw_condition,
    draw_settings,
)
from privdiff_training.stages.reader import UNLABELLED


class SuppressionConfig(LatentStageConfig):
    """Keys of the suppression stage; the data keys must be those of the diffusion stage."""

    stage: Literal["suppression"] = "suppression"
    adapter: str = Field("standard", description="Name of the LoRA weights in the bundle.")
    rank: int = Field(16, ge=1, description="Of the LoRA weights.")
    spg_mode: Literal["sg", "paper"] = Field(
        "sg", description="Repaired loss with stop-gradients, or the paper's L_SPG alone."
    )
    spg_weight: float = Field(0.5, ge=0, description="Of the SPG loss beside denoising.")
    findings_weight: float = Field(1.5, ge=1, description="w_diag.")
    attribute_weight: float = Field(0.5, ge=0, le=1, description="|w_s|.")
    adversarial_rows: int = Field(
        8, ge=0, description="Rows per batch that are decoded, one per process at least."
    )
    adversarial_below: float = Field(0.5, description="Decode only timesteps below this part of T.")
    identity_weight: float = Field(1.0, ge=0, description="Of the identity adversary.")
    attribute_loss_weight: float = Field(0.1, ge=0, description="Of the age and sex adversary.")
    findings_loss_weight: float = Field(1.0, ge=0, description="Of consistent findings.")
    preservation_weight: float = Field(
        0.0, ge=0, description="Of the squared distance to what the frozen base predicts."
    )
    adversary_learning_rate: float = Field(1e-4, gt=0, description="Of both adversaries.")


class SuppressionStage(Stage[SuppressionConfig]):
    """Repaired (or literal) SPG on top of a frozen base.

    The live adversaries start as copies of the critics and are trained against what the denoiser
    draws; they guide it and judge nothing else.
    """

    def __init__(
        self,
        config: SuppressionConfig,
        autoencoder: RadiographAutoencoder | KLAutoencoder,
        identity: IdentityEmbedder,
        reader: RadiographReader,
        denoiser: PrivDiffDenoiser,
        initial: Path | None,
    ) -> None:
        self.config = config
        self.scheduler: DDPMScheduler = config.schedule.scheduler()
        self.data = LatentData.load(config, autoencoder, identity)
        self.images = self.data.images
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.reader = reader.eval().requires_grad_(False)
        torch.manual_seed(config.seed)
        attach_adapter(denoiser, config.adapter, config.rank, initial)
        self.denoiser = denoiser
        self.networks = {"denoiser": denoiser}
        self.has_adversaries = config.spg_mode == "sg" and config.adversarial_rows > 0
        if self.has_adversaries:
            self.networks["identity_adversary"] = copy.deepcopy(identity).train()
            self.networks["attribute_adversary"] = copy.deepcopy(reader).requires_grad_().train()

    def players(self) -> tuple[Player, ...]:
        denoiser = Player("denoiser", ("denoiser",), self.config.learning_rate)
        if not self.has_adversaries:
            return (denoiser,)
        adversary = Player(
            "adversary",
            ("identity_adversary", "attribute_adversary"),
            self.config.adversary_learning_rate,
        )
        return (denoiser, adversary)

    def loss(self, player: str, step: Step) -> tuple[Tensor, Mapping[str, float]]:
        if player == "adversary":
            return self._adversary_loss(step)
        if self.config.spg_mode == "paper":
            loss = self._spg_loss(step, SASSettings(mode=SASMode.PAPER))
            return loss, {"spg": loss.item()}
        denoising = self._denoising_loss(step)
        spg = self._spg_loss(step, SASSettings())
        loss = denoising + self.config.spg_weight * spg
        figures = {"denoising": denoising.item(), "spg": spg.item()}
        if self.has_adversaries:
            privacy, more = self._privacy_loss(step)
            loss, figures = loss + privacy, figures | more
        return loss, figures

    def export(self, folder: Path) -> None:
        export_adapter(self.denoiser, self.config.adapter, folder)

    def _denoising_loss(self, step: Step) -> Tensor:
        rows = step.local(step.rows)
        latents, noise, timesteps = self._noised(step)
        condition = draw_condition(self.data, rows, step, self.config)
        predicted = self.networks["denoiser"](
            self.scheduler.add_noise(latents, noise, timesteps),
            timesteps,
            condition.to(latents.device),
            draw_settings(self.config.sas, step),
        )
        return denoising_loss(
            self.scheduler, predicted, latents, noise, timesteps, self.config.snr_gamma
        )

    def _spg_loss(self, step: Step, settings: SASSettings) -> Tensor:
        """Return L_SPG; in the mode `sg` only the diagnostic branch receives gradients.

        Minimised literally, the combination is best when it contains the attribute, and the
        sensitive branch merely learns its sign flipped.

        The mode `paper` is the literal ``|| eps_p - eps ||^2``, without a weight per timestep. The
        combination carries over to v-predictions (see `guidance`): the error of the guided v is
        that of the guided eps, divided by sqrt(abar_t), so every timestep has the same minimum.
        """
        rows = step.local(step.rows)
        latents, noise, timesteps = self._noised(step)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        findings = Condition.of_findings(self.data.labels.findings[rows]).to(latents.device)
        others = Condition.cat(
            [Condition.unconditional(len(rows)), self._sensitive(rows, step.index)]
        ).to(latents.device)
        denoiser = self.networks["denoiser"]
        diagnostic = denoiser(noisy, timesteps, findings, settings)
        with torch.set_grad_enabled(self.config.spg_mode == "paper"):
            predictions = denoiser(noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), others, settings)
        unconditional, sensitive = predictions.chunk(2)
        guided = guided_prediction(
            unconditional,
            diagnostic,
            sensitive,
            self.config.findings_weight,
            self.config.attribute_weight,
        )
        gamma = None if self.config.spg_mode == "paper" else self.config.snr_gamma
        return denoising_loss(self.scheduler, guided, latents, noise, timesteps, gamma)

    def _sensitive(self, rows: Tensor, index: int) -> Condition:
        """Return this step's attribute; rows without its label use their identity prototype."""
        branch = sensitive_branch(index)
        values = self.data.values(branch)[rows]
        missing = values == UNLABELLED
        condition = Condition.of_attribute(branch, values.masked_fill(missing, 0))
        condition.branch[missing] = Branch.IDENTITY.value
        condition.value[missing] = self.data.prototypes[rows][missing]
        return condition

    def _privacy_loss(self, step: Step) -> tuple[Tensor, dict[str, float]]:
        config = self.config
        originals, redrawn, rows, drift = self._redraw(step)
        identity = self.networks["identity_adversary"]
        attributes = self.networks["attribute_adversary"]
        similarity, strangers = self._similarities(identity, originals, redrawn, rows)
        identity_loss = functional.relu(similarity - strangers).mean()
        reading = attributes(redrawn)
        # The most private answer of an attribute head is one that prefers no class.
        attribute_loss = (
            -reading.age.log_softmax(dim=-1).mean() + functional.softplus(reading.sex.abs()).mean()
        )
        wanted = self.reader(originals).findings.sigmoid()
        findings_loss = functional.binary_cross_entropy_with_logits(
            self.reader(redrawn).findings, wanted
        )
        loss = (
            config.identity_weight * identity_loss
            + config.attribute_loss_weight * attribute_loss
            + config.findings_loss_weight * findings_loss
            + config.preservation_weight * drift
        )
        return loss, {
            "drift": drift.item(),
            "similarity": similarity.mean().item(),
            "strangers": strangers.mean().item(),
            "attributes": attribute_loss.item(),
            "findings": findings_loss.item(),
        }

    def _similarities(
        self, identity: nn.Module, originals: Tensor, redrawn: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the cosine of each redrawing to its own original, and the mean one to strangers.

        The strangers are the other patients of the batch and carry no gradient: an image that is no
        closer to its source than to them is private enough, and below that the adversary rests.
        Pushed further (GMIA, arXiv 2501.09114, takes a cosine of -0.7), or rewarded for likeness to
        everybody, all images become one archetype.
        """
        units = [self.images.cohort.rows[row].unit for row in rows.tolist()]
        stranger = torch.tensor([[one != other for other in units] for one in units])
        cosines = identity(redrawn) @ identity(originals).detach().mT
        stranger = stranger.to(cosines)
        others = (cosines.detach() * stranger).sum(dim=1) / stranger.sum(dim=1).clamp_min(1)
        return cosines.diagonal(), others

    def _adversary_loss(self, step: Step) -> tuple[Tensor, Mapping[str, float]]:
        """Teach the adversaries to link fresh redrawings and to read their attributes."""
        with torch.no_grad():
            originals, redrawn, rows, _ = self._redraw(step)
        identity = self.networks["identity_adversary"]
        logits = identity(redrawn) @ identity(originals).mT / 0.1
        linkage = functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
        reading = self.networks["attribute_adversary"](redrawn)
        labels = self.data.labels.pick(rows, redrawn.device)
        known = labels.sex != UNLABELLED
        age_loss = functional.cross_entropy(
            reading.age, labels.age, ignore_index=UNLABELLED, reduction="sum"
        ) / (labels.age != UNLABELLED).sum().clamp_min(1)
        sex_loss = (
            functional.binary_cross_entropy_with_logits(
                reading.sex[known], labels.sex[known].float()
            )
            if known.any()
            else reading.sex.sum() * 0
        )
        return linkage + age_loss + sex_loss, {"adversary_linkage": linkage.item()}

    def _redraw(self, step: Step) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Redraw a few rows in one step.

        Returns
        -------
        tuple
            Originals and redrawings, shape (n, 1, h, w), the row numbers, and the mean squared
            distance of the prediction to that of the base: adversaries pull without end, and what
            draws lungs and hearts is in the base.
        """
        count = max(1, step.local_count(self.config.adversarial_rows))
        latents, noise, timesteps = (part[:count] for part in self._noised(step))
        timesteps = (timesteps * self.config.adversarial_below).long()
        rows = step.local(step.rows)[:count]
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        findings = Condition.of_findings(self.data.labels.findings[rows]).to(latents.device)
        predicted = self.networks["denoiser"](noisy, timesteps, findings, SASSettings())
        drift = (predicted - self._base(noisy, timesteps, findings)).square().mean()
        clean = predicted_latents(self.scheduler, predicted, noisy, timesteps)
        redrawn = self.autoencoder.decode(clean).clamp(0, 1)
        return self.images.images(rows), redrawn, rows, drift

    @torch.no_grad()
    def _base(self, noisy: Tensor, timesteps: Tensor, findings: Condition) -> Tensor:
        self.denoiser.activate_adapter(None)
        predicted: Tensor = self.denoiser(noisy, timesteps, findings, SASSettings())
        self.denoiser.activate_adapter(self.config.adapter)
        return predicted

    def _noised(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        latents = self.data.draw(step)
        timesteps = self.data.timesteps(step, self.config.schedule.num_train_timesteps)
        noise = step.randn(len(step.rows), *latents.shape[1:]).to(latents.device)
        return latents, noise, timesteps


def predicted_latents(
    scheduler: DDPMScheduler, predicted: Tensor, noisy: Tensor, timesteps: Tensor
) -> Tensor:
    """Return the clean latents z_0 that a prediction at given timesteps implies."""
    signal = scheduler.alphas_cumprod.to(noisy.device)[timesteps].sqrt()[:, None, None, None]
    spread = (1 - signal.square()).sqrt()
    if scheduler.config.prediction_type == "v_prediction":
        return signal * noisy - spread * predicted
    return (noisy - spread * predicted) / signal
