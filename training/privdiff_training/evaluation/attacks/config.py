"""How attackers are built and trained: the keys of the file that `--attackers` names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from privdiff_training.augmentation import Augmentation
from privdiff_training.config import Strict
from privdiff_training.sampling import row_seeds
from privdiff_training.stages.backbones import BackboneConfig

SMALL = BackboneConfig(kind="resnet", layers=(1, 1, 1, 1), widths=(24, 48, 96, 192))


class FitConfig(Strict):
    """Keys of everything that is trained."""

    image_size: int = Field(128, ge=16, description="Side in pixels that images are resampled to.")
    steps: int = Field(400, ge=1, description="Updates at most.")
    batch_size: int = Field(32, ge=2, description="Images of one update.")
    learning_rate: float = Field(1e-3, gt=0, description="Of AdamW; falls as a cosine.")
    weight_decay: float = Field(1e-2, ge=0, description="Of AdamW.")
    judge_every: int = Field(25, ge=1, description="Steps between looks at the select patients.")
    patience: int = Field(5, ge=1, description="Looks without gain after which training ends.")
    augmentation: Literal["none", "light", "strong"] = Field(
        "light", description="Of training images, beside the noise of the tool itself."
    )

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return images (n, 1, s, s) in [0, 1] as they are trained on."""
        if self.augmentation == "none":
            return images
        augmentation = Augmentation(strong=self.augmentation == "strong")
        return augmentation(images, row_seeds(len(images), generator))


class SiameseConfig(FitConfig):
    """Keys of A1 and A2."""

    steps: int = Field(400, ge=1, description="Updates at most.")
    batch_size: int = Field(32, ge=2, description="Pairs of one update, half of one person.")
    backbone: BackboneConfig = SMALL
    features: int = Field(128, ge=2, description="Features whose differences are judged.")


class MetricConfig(FitConfig):
    """Keys of A3. It starts from the weights of A0, so it has no backbone of its own."""

    steps: int = Field(240, ge=1, description="Updates at most.")
    batch_size: int = Field(
        12, ge=2, description="Patients of one update; each is seen in three images."
    )
    learning_rate: float = Field(5e-4, gt=0, description="Of AdamW; falls as a cosine.")
    judge_every: int = Field(20, ge=1, description="Steps between looks at the select patients.")
    patience: int = Field(5, ge=1, description="Looks without gain after which training ends.")
    augmentation: Literal["none", "light", "strong"] = Field(
        "strong", description="Of training images, beside the noise of the tool itself."
    )
    temperature: float = Field(0.1, gt=0, description="Of the contrastive loss.")
    reference_part: float = Field(
        0.25, ge=0, lt=1, description="Part of the patients of an update who have originals alone."
    )


class InverterConfig(FitConfig):
    """Keys of A7."""

    batch_size: int = Field(16, ge=1, description="Images of one update.")
    augmentation: Literal["none"] = Field("none", description="Copy and original must match.")
    channels: tuple[int, ...] = Field((16, 32, 64, 128), description="Of the levels of the UNet.")


class AttributeConfig(FitConfig):
    """Keys of the attackers that read sex and age."""

    steps: int = Field(250, ge=1, description="Updates at most.")
    batch_size: int = Field(32, ge=2, description="Images of one update, half of them copies.")
    backbone: BackboneConfig = SMALL


class EncoderConfig(Strict):
    """A public network on disk, for A4; nothing is downloaded."""

    kind: Literal["transformers", "torchxrayvision"] = Field(
        description="A folder of transformers (RAD-DINO, DINOv2), or a file of weights."
    )
    path: Path = Field(description="That folder, or that file (.safetensors or .pt).")
    name: str | None = Field(None, description="For the report [name of folder or file].")


class AttackersConfig(Strict):
    """Keys of the file."""

    siamese: SiameseConfig = SiameseConfig()
    metric: MetricConfig = MetricConfig()
    inverter: InverterConfig = InverterConfig()
    attributes: AttributeConfig = AttributeConfig()
    encoders: tuple[EncoderConfig, ...] = ()
