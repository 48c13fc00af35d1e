"""Stage `reader`: findings, age, sex and whether an image is a frontal chest radiograph at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from privdiff_infer.model.critics import RadiographReader, Reading
from privdiff_infer.vocabulary import FindingState, age_bin
from privdiff_training.augmentation import Augmentation
from privdiff_training.config import StageConfig
from privdiff_training.impostors import impostors
from privdiff_training.loop import Player, Stage
from privdiff_training.sampling import Step
from privdiff_training.stages.backbones import BackboneConfig, load_pretrained
from privdiff_training.stages.data import TrainingImages
from privdiff_training.whole_folder import whole_folder

UNLABELLED = -1


class ReaderConfig(StageConfig):
    """Keys of the reader stage."""

    stage: Literal["reader"] = "reader"
    backbone: BackboneConfig = BackboneConfig()
    critic_image_size: int = 128
    attribute_weight: float = Field(0.5, ge=0, description="Weight of the age and sex losses.")
    frontal_weight: float = Field(0.5, ge=0)
    impostor_fraction: float = Field(
        0.25, ge=0, le=1, description="Images per batch, relative, that are no frontal radiograph."
    )


class ReaderStage(Stage[ReaderConfig]):
    """Multi-task classification; a label that a source does not give adds nothing to the loss.

    Parameters
    ----------
    config
        Of the stage.
    initial
        Weights to start from; None starts afresh.
    images
        What is trained on; None reads the sources of the configuration.
    """

    def __init__(
        self,
        config: ReaderConfig,
        initial: RadiographReader | None,
        images: TrainingImages | None = None,
    ) -> None:
        self.config = config
        self.images = images or TrainingImages.load(config.data)
        self.augmentation = Augmentation(strong=True)
        self.labels = Labels.of(self.images)
        torch.manual_seed(config.seed)
        self.reader = initial or RadiographReader(
            backbone=config.backbone.model_dump(exclude={"pretrained"}, exclude_none=True),
            image_size=config.critic_image_size,
        )
        if initial is None and config.backbone.pretrained:
            load_pretrained(self.reader, config.backbone.pretrained)
        self.reader.prevalence.copy_(self.labels.prevalence())
        self.networks = {"reader": self.reader}

    def players(self) -> tuple[Player, ...]:
        return (Player("reader", ("reader",), self.config.learning_rate),)

    def loss(self, player: str, step: Step) -> tuple[Tensor, Mapping[str, float]]:
        rows = step.local(step.rows)
        size = self.config.critic_image_size
        small = functional.interpolate(self.images.images(rows), (size, size), mode="area")
        radiographs = self.augmentation(small, step.seeds())
        count = step.local_count(int(len(step.rows) * self.config.impostor_fraction))
        fakes = impostors(radiographs[:count], step.seeds()[:count])
        reading = self.networks["reader"](torch.cat((radiographs, fakes)))
        return self._loss(reading, self.labels.pick(rows, self.images.device))

    def export(self, folder: Path) -> None:
        with whole_folder(folder / "reader") as partial:
            self.reader.save_pretrained(partial)

    def _loss(self, reading: Reading, labels: Labels) -> tuple[Tensor, Mapping[str, float]]:
        count = len(labels.age)
        known = labels.findings != FindingState.UNKNOWN
        target = (labels.findings == FindingState.PRESENT).float()
        per_finding = functional.binary_cross_entropy_with_logits(
            reading.findings[:count], target, reduction="none"
        )
        findings_loss = (per_finding * known).sum() / known.sum().clamp_min(1)
        age_loss = functional.cross_entropy(
            reading.age[:count], labels.age, ignore_index=UNLABELLED, reduction="sum"
        ) / (labels.age != UNLABELLED).sum().clamp_min(1)
        has_sex = labels.sex != UNLABELLED
        sex_loss = (
            functional.binary_cross_entropy_with_logits(
                reading.sex[:count][has_sex], labels.sex[has_sex].float()
            )
            if has_sex.any()
            else reading.sex.sum() * 0
        )
        frontal = torch.arange(len(reading.frontal), device=reading.frontal.device) < count
        frontal_loss = functional.binary_cross_entropy_with_logits(reading.frontal, frontal.float())
        loss = (
            findings_loss
            + self.config.attribute_weight * (age_loss + sex_loss)
            + self.config.frontal_weight * frontal_loss
        )
        return loss, {
            "findings": findings_loss.item(),
            "age": age_loss.item(),
            "sex": sex_loss.item(),
            "frontal": frontal_loss.item(),
        }


@dataclass(frozen=True)
class Labels:
    """Labels of rows as tensors; `UNLABELLED` where a source gives none."""

    findings: Tensor  # (images, 15) FindingState
    age: Tensor  # (images,) age bin or UNLABELLED
    sex: Tensor  # (images,) Sex or UNLABELLED

    def pick(self, rows: Tensor, device: torch.device) -> Labels:
        """Return the labels of some rows on a device."""
        return Labels(*(values[rows].to(device) for values in (self.findings, self.age, self.sex)))

    def prevalence(self) -> Tensor:
        """Return how often each finding is present where it was looked for, shape (15,).

        Laplace's rule keeps it inside (0, 1) for findings that are never or always seen.
        """
        known = (self.findings != FindingState.UNKNOWN).sum(dim=0)
        present = (self.findings == FindingState.PRESENT).sum(dim=0)
        return (present + 1) / (known + 2)

    @classmethod
    def of(cls, images: TrainingImages) -> Labels:
        """Collect the labels of a cohort."""
        rows = images.cohort.rows
        return cls(
            torch.tensor([[int(state) for state in row.findings] for row in rows]),
            torch.tensor(
                [UNLABELLED if row.age_years is None else age_bin(row.age_years) for row in rows]
            ),
            torch.tensor([UNLABELLED if row.sex is None else int(row.sex) for row in rows]),
        )
