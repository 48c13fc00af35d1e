"""Stage `identity`: an embedding in which radiographs of one person are close."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
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


class IdentityStage(Stage[IdentityConfig]):
    """Supervised contrastive learning over two radiographs of each patient.

    A patient with one image contributes two augmented views of it. The data sets have softmaxes of
    their own: a child is told from an adult without any biometric.
    """

    def __init__(self, config: IdentityConfig, initial: IdentityEmbedder | None) -> None:
        self.config = config
        self.images = TrainingImages.load(config.data)
        self.augmentation = Augmentation(strong=True)
        self.siblings = _siblings(self.images)
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
        shares = []
        for share in self.images.shares:
            several = torch.tensor([len(self.siblings[row]) > 1 for row in share.rows.tolist()])
            if several.any():
                shares.append(Share(share.rows[several], share.fraction / 2))
            shares.append(Share(share.rows, share.fraction / (2 if several.any() else 1)))
        return shares

    def loss(self, player: str, step: Step) -> tuple[Tensor, Mapping[str, float]]:
        partners = self._partners(step)
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
            loss = loss + mask.float().mean() * _contrastive(
                embeddings[:, mask], units, self.config.temperature
            )
        return loss, {"contrastive": loss.item()}

    def export(self, folder: Path) -> None:
        embedder = self.embedder
        embeddings = torch.cat([embedder(batch) for batch in self.images.batches()])
        centres = KMeans(self.config.prototypes, n_init=4, random_state=self.config.seed).fit(
            embeddings.cpu().numpy()
        )
        # k-means of unit vectors with centres put back on the sphere is spherical k-means' fixed
        # point up to the length of the centres, which the cosine ignores.
        prototypes = torch.as_tensor(centres.cluster_centers_, dtype=torch.float32)
        embedder.prototypes.copy_(functional.normalize(prototypes, dim=-1))
        with whole_folder(folder / "identity") as partial:
            embedder.save_pretrained(partial)

    def _small(self, rows: Tensor) -> Tensor:
        size = self.config.critic_image_size
        return functional.interpolate(self.images.images(rows), (size, size), mode="area")

    def _partners(self, step: Step) -> Tensor:
        """Return another image of the same patient for each row, or the row itself."""
        draws = torch.rand(len(step.rows), generator=step.generator)
        partners = []
        for row, draw in zip(step.rows.tolist(), draws.tolist(), strict=True):
            others = [sibling for sibling in self.siblings[row] if sibling != row] or [row]
            partners.append(others[int(draw * len(others))])
        return torch.tensor(partners)


def _siblings(images: TrainingImages) -> list[list[int]]:
    """Return for every row all rows of the same patient."""
    members = defaultdict(list)
    for index, row in enumerate(images.cohort):
        members[row.unit].append(index)
    return [members[row.unit] for row in images.cohort]


def _contrastive(embeddings: Tensor, units: list[str], temperature: float) -> Tensor:
    """Return the supervised contrastive loss of embeddings (2, n, d); rows of one unit attract.

    Source: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2 (L_out).
    """
    flat = embeddings.flatten(0, 1)
    number = {unit: index for index, unit in enumerate(dict.fromkeys(units))}
    label = torch.tensor([number[unit] for unit in units] * 2).to(flat.device)
    logits = flat @ flat.mT / temperature
    itself = torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    log_probability = logits.masked_fill(itself, -torch.inf).log_softmax(dim=-1)
    positive = (label[:, None] == label[None, :]) & ~itself
    return -(log_probability.masked_fill(~positive, 0).sum(-1) / positive.sum(-1)).mean()
