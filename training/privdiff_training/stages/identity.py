"""Stage `identity`: an embedding in which radiographs of one person are close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_training.augmentation import Augmentation
from privdiff_training.config import StageConfig
from privdiff_training.loop import Player, Stage
from privdiff_training.sampling import Share, Step
from privdiff_training.siblings import drawn_partners, favouring_several, siblings
from privdiff_training.stages.backbones import BackboneConfig, load_pretrained
from privdiff_training.stages.data import TrainingImages
from privdiff_training.whole_folder import whole_folder


class IdentityConfig(StageConfig):
    """Keys of the identity stage; `batch_size` counts patients, each seen twice."""

    stage: Literal["identity"] = "identity"
    backbone: BackboneConfig = BackboneConfig()
    critic_image_size: int = 128
    embedding_dim: int = 128
    prototypes: int = Field(32, ge=2, description="Size of the identity codebook.")
    temperature: float = Field(0.1, gt=0)
    keep_prototypes: bool = Field(
        False,
        description="Keep the codebook that the first weights have: a denoiser knows its rows.",
    )


class IdentityStage(Stage[IdentityConfig]):
    """Supervised contrastive learning over two radiographs of each patient.

    A patient with one image contributes two augmented views of it. The data sets have softmaxes of
    their own: a child is told from an adult without any biometric.
    """

    def __init__(self, config: IdentityConfig, initial: IdentityEmbedder | None) -> None:
        self.config = config
        self.images = TrainingImages.load(config.data)
        self.augmentation = Augmentation(strong=True)
        self.siblings = siblings(self.images.cohort)
        torch.manual_seed(config.seed)
        self.embedder = initial or IdentityEmbedder(
            backbone=config.backbone.model_dump(exclude={"pretrained"}, exclude_none=True),
            image_size=config.critic_image_size,
            embedding_dim=config.embedding_dim,
            num_prototypes=config.prototypes,
        )
        if initial is None and config.backbone.pretrained:
            load_pretrained(self.embedder, config.backbone.pretrained)
        self.networks = {"identity": self.embedder}

    def players(self) -> tuple[Player, ...]:
        return (Player("identity", ("identity",), self.config.learning_rate),)

    def shares(self) -> list[Share]:
        """Give patients with several images more weight: only they show what changes."""
        return favouring_several(self.images.shares, self.siblings)

    def loss(self, player: str, step: Step) -> tuple[Tensor, Mapping[str, float]]:
        partners = drawn_partners(step.rows, self.siblings, step.generator)
        views = [
            self.augmentation(self._small(step.local(rows)), step.seeds())
            for rows in (step.rows, partners)
        ]
        embeddings = self.networks["identity"](torch.cat(views)).unflatten(0, (2, -1))
        groups = [self.images.cohort.rows[row] for row in step.local(step.rows).tolist()]
        loss = embeddings.new_zeros(())
        for dataset in sorted({row.dataset for row in groups}):
            mask = torch.tensor([row.dataset == dataset for row in groups])
            units = [row.unit for row in groups if row.dataset == dataset]
            loss = loss + mask.float().mean() * supervised_contrastive(
                embeddings[:, mask].flatten(0, 1), units * 2, self.config.temperature
            )
        return loss, {"contrastive": loss.item()}

    def export(self, folder: Path) -> None:
        if not self.config.keep_prototypes:
            self.embedder.prototypes.copy_(self._clustered())
        with whole_folder(folder / "identity") as partial:
            self.embedder.save_pretrained(partial)

    def _clustered(self) -> Tensor:
        """Return the centres of the training images, unit vectors of shape (prototypes, d)."""
        embeddings = torch.cat([self.embedder(batch) for batch in self.images.batches()])
        centres = KMeans(self.config.prototypes, n_init=4, random_state=self.config.seed).fit(
            embeddings.cpu().numpy()
        )
        # k-means of unit vectors with centres put back on the sphere is spherical k-means' fixed
        # point up to the length of the centres, which the cosine ignores.
        prototypes = torch.as_tensor(centres.cluster_centers_, dtype=torch.float32)
        return functional.normalize(prototypes, dim=-1)

    def _small(self, rows: Tensor) -> Tensor:
        size = self.config.critic_image_size
        return functional.interpolate(self.images.images(rows), (size, size), mode="area")


def supervised_contrastive(embeddings: Tensor, units: Sequence[str], temperature: float) -> Tensor:
    """Return the supervised contrastive loss of embeddings (n, d); rows of one unit attract.

    Source: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2 (L_out).
    """
    number = {unit: index for index, unit in enumerate(dict.fromkeys(units))}
    label = torch.tensor([number[unit] for unit in units]).to(embeddings.device)
    logits = embeddings @ embeddings.mT / temperature
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    log_probability = logits.masked_fill(itself, -torch.inf).log_softmax(dim=-1)
    positive = (label[:, None] == label[None, :]) & ~itself
    return -(log_probability.masked_fill(~positive, 0).sum(-1) / positive.sum(-1)).mean()
