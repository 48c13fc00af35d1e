"""The keys of ``finetune.yaml``; unknown keys are errors."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from privdiff_training.config import Strict


class SplitConfig(Strict):
    """Which patients train, which judge meanwhile, and which measure in the end."""

    dataset: str | None = Field(None, description="Data set of the manifest to use; none: all.")
    train_folds: tuple[str, ...] | None = Field(
        None, description="Splits that train and judge; none: all but the test splits."
    )
    test_folds: tuple[str, ...] = Field(
        ("test",), description="Splits that measure in the end. Without any, patients are drawn."
    )
    judge_folds: tuple[str, ...] = Field(
        ("judge", "val"), description="Splits that judge. Without any, patients are drawn."
    )
    test_share: float = Field(
        0.25, gt=0, lt=1, description="Part of the patients that measure, where no split says it."
    )
    judge_share: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="Part of the other patients that judge; the fixed tenth of `select` is in it.",
    )
    least_patients: int = Field(8, ge=2, description="Patients that must be left to train on.")


class LegConfig(Strict):
    """Keys of every leg of training."""

    steps: int = Field(ge=1, description="Updates at most.")
    batch_size: int = Field(16, ge=2, description="Global batch over all processes.")
    learning_rate: float = Field(1e-4, gt=0, description="Of AdamW.")
    warmup_steps: int = Field(5, ge=0, description="Steps of rising learning rate.")
    ema_decay: float = Field(0.98, ge=0, lt=1, description="Of the average that is kept.")
    checkpoint_every: int = Field(20, ge=1, description="Steps between checkpoints.")
    log_every: int = Field(5, ge=1, description="Steps between log entries.")


class CriticsConfig(Strict):
    """How reader and identity network are fitted to the cohort."""

    reader: LegConfig | None = Field(None, description="None leaves the reader as it is.")
    identity: LegConfig | None = Field(None, description="None leaves the network as it is.")
    least_gain: float = Field(
        0.01, ge=0, description="AUC on judging patients that a refit must gain to be kept."
    )


class DiffusionLeg(LegConfig):
    """How the denoiser is adapted to the cohort."""

    rank: int = Field(16, ge=1, description="Of LoRA weights.")
    latent_versions: int = Field(4, ge=1, description="Augmented versions cached per image.")
    finding_dropout: float = Field(
        0.5, ge=0, le=1, description="Largest part of a row's findings made unknown."
    )
    snr_gamma: float | None = Field(
        None, gt=0, description="min-SNR loss weighting; none: the plain error of the prediction."
    )


class SuppressionLeg(LegConfig):
    """How the adapter of the profile `standard` is tuned against who can be recognised."""

    rank: int = Field(16, ge=1, description="Of an adapter that the base does not have yet.")
    latent_versions: int = Field(4, ge=1, description="Augmented versions cached per image.")
    further: dict[str, Any] = Field(
        default_factory=dict, description="Other keys of the stage `suppression`."
    )


class PrivateTraining(Strict):
    """Differentially private training of the diffusion leg, per patient."""

    epsilon: float = Field(8.0, gt=0, description="To be spent by all steps; the noise follows.")
    clip: float = Field(1.0, gt=0, description="Longest gradient of one patient.")


class JudgeConfig(Strict):
    """When training stops: by what is seen of redrawn judging patients, not by the loss."""

    every: int = Field(20, ge=1, description="Steps between two looks.")
    patience: int = Field(3, ge=1, description="Looks without a better one after which it ends.")
    images: int = Field(40, ge=2, description="Judging images that are redrawn, at most.")
    inference_steps: int = Field(10, ge=1, description="Of sampling, over the whole schedule.")
    tolerance: float = Field(
        0.01,
        ge=0,
        description="By how much linkage and KID may rise, and agreement fall, against the base.",
    )
    least_gain: float = Field(
        0.005, ge=0, description="By how much the score must rise for another step to be kept."
    )


class GateConfig(Strict):
    """The memorization test without which no bundle is exported."""

    drawn: int = Field(100, ge=8, description="Images that are drawn and compared.")
    members: int = Field(100, ge=2, description="Images whose loss is compared.")
    largest_share: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Fails if the part of drawn images that are copies is certainly above it.",
    )


class FinetuneConfig(Strict):
    """Keys of ``finetune.yaml``."""

    name: str = Field("privdiff-cohort", description="Of the new bundle.")
    version: str = "0.1.0"
    split: SplitConfig = SplitConfig()
    critics: CriticsConfig = CriticsConfig()
    diffusion: DiffusionLeg | None = Field(None, description="None leaves the denoiser as it is.")
    suppression: SuppressionLeg | None = Field(None, description="None trains no adapter.")
    private_training: PrivateTraining | None = Field(
        None, description="Differential privacy; needs the extra `privacy` and no other leg."
    )
    judge: JudgeConfig = JudgeConfig()
    gate: GateConfig = GateConfig()
    mixed_precision: Literal["no", "fp16", "bf16"] = Field("no", description="Of accelerate.")
    seed: int = Field(0, description="Of everything random.")

    @model_validator(mode="after")
    def _legs_fit(self) -> Self:
        if self.private_training is None:
            return self
        if self.diffusion is None:
            raise ValueError("private_training needs the leg `diffusion`")
        if self.suppression or self.critics.reader or self.critics.identity:
            raise ValueError(
                "private_training protects the leg `diffusion` alone: leave out suppression and "
                "critics, which see the same patients without noise"
            )
        return self
