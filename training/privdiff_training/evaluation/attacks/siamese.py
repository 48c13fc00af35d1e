"""A1 and A2: a verifier of pairs, trained anew on copies.

Source: Packhaeuser et al., Deep learning-based patient re-identification is able to exploit the
biometric nature of medical chest X-ray data, Sci Rep 2022, and the re-training protocol of
PriCheXy-Net, arXiv 2209.11531: features through a sigmoid, their absolute difference, one layer,
binary cross-entropy over balanced pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from privdiff_infer.errors import CohortError
from privdiff_infer.model.critics import build_backbone, prepared
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import Copies, Curve, Known, Originals
from privdiff_training.evaluation.attacks.config import SiameseConfig
from privdiff_training.evaluation.attacks.fitting import fit, in_batches, resampled
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial
from privdiff_training.evaluation.methods.method import hash_of
from privdiff_training.sampling import Share, batch_rows, generator_for
from privdiff_training.siblings import drawn_partners, favouring_several, siblings

VALIDATION_PAIRS = 256


class Partner(str, Enum):
    """What stands beside a copy in a training pair.

    ``COPY``: as published (A1). ``ORIGINAL``: as in the attack itself (A2).
    """

    COPY = "copy"
    ORIGINAL = "original"


class SiameseNetwork(nn.Module):
    """Judges whether two images show one person, from the difference of their features."""

    def __init__(self, config: SiameseConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.encoder, width = build_backbone(config.backbone.model_dump(exclude_none=True))
        self.head = nn.Linear(width, config.features)
        self.verdict = nn.Linear(config.features, 1)

    def features(self, images: Tensor) -> Tensor:
        """Return features (n, d) in (0, 1) of images (n, 1, s, s) in [0, 1]."""
        return torch.sigmoid(self.head(self.encoder(prepared(images, self.image_size))))

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return logits of one person, shape (n,), from features (n, d) or broadcast to them."""
        return self.verdict((first - second).abs()).squeeze(-1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return logits of one person for pairs of images, in one pass of the encoder."""
        features = self.features(torch.cat((first, second)))
        return self.compare(*features.chunk(2))


@dataclass(frozen=True)
class SiameseLinker:
    """Compares the first copy with every original."""

    network: SiameseNetwork
    curve: Curve

    def __call__(self, queries: Copies, gallery: Originals) -> np.ndarray:
        """Return logits; see `Linker`."""
        of_queries = in_batches(self.network.features, queries.pixels[0])
        of_gallery = in_batches(self.network.features, gallery.pixels)
        with torch.no_grad():
            rows = [self.network.compare(query, of_gallery) for query in of_queries]
        return torch.stack(rows).double().numpy()


@dataclass(frozen=True)
class SiameseAttack:
    """A Siamese network of its own, trained on pairs of `attacker_train`.

    Attributes
    ----------
    partner
        What stands beside a copy in training; in the attack it is always an original.
    config
        Network and training.
    """

    partner: Partner
    config: SiameseConfig = field(default_factory=SiameseConfig)
    is_learned = True
    learns_from_copies = True
    redraws_gallery = False
    needs_groups = False

    @property
    def rung(self) -> Rung:
        """A1 or A2."""
        copies = self.partner is Partner.COPY
        return Rung.PUBLISHED_RETRAINING if copies else Rung.MATCHED_RETRAINING

    @property
    def name(self) -> str:
        """What it was trained to compare."""
        return f"Siamese network, copy and {self.partner.value}"

    @property
    def fingerprint(self) -> str:
        """Of the configuration."""
        return hash_of("siamese", self.partner, self.config.model_dump_json())

    def trained_on(self, known: Known) -> str:
        """Say how many images, copies and steps."""
        return (
            f"{len(known.train)} images of {_patients(known.train.cohort)} patients, "
            f"{len(known.train_copies.pixels)} copies each; at most {self.config.steps} steps of "
            f"{self.config.batch_size} pairs"
        )

    def train(self, known: Known, seed: int) -> SiameseLinker:
        """Train the network; it stops by the cross-entropy of pairs of the select patients."""
        torch.manual_seed(generator_for(seed, self.rung.value).initial_seed())
        network = SiameseNetwork(self.config)
        training = _Pairs(known.train, known.train_copies, self.partner, self.config.image_size)
        judging = _Pairs(known.select, known.select_copies, self.partner, self.config.image_size)
        fixed = judging.draw(VALIDATION_PAIRS, generator_for(seed, "validation"))

        def loss(generator: torch.Generator) -> Tensor:
            first, second, same = training.draw(self.config.batch_size, generator)
            first, second = (self.config.augment(part, generator) for part in (first, second))
            return _cross_entropy(network(first, second), same)

        def judge() -> float:
            first, second, same = fixed
            logits = torch.cat(
                [network(a, b) for a, b in zip(first.split(64), second.split(64), strict=True)]
            )
            return float(_cross_entropy(logits, same))

        fitted = fit(network, loss, judge, self.config, seed, f"{self.rung.value} seed {seed}")
        return SiameseLinker(network, fitted.curve)


class _Pairs:
    """Balanced pairs: one person, half of them with another image where there is one, or two."""

    def __init__(
        self, originals: Originals, copies: Copies, partner: Partner, image_size: int
    ) -> None:
        self.copies = resampled(copies.pixels, image_size)  # (versions, n, 1, s, s)
        self.partner = partner
        self.originals = resampled(originals.pixels, image_size)
        self.siblings = siblings(originals.cohort)
        trial = LinkageTrial(originals.cohort, Linkage.SAME_IMAGE)
        self.strangers = [
            np.flatnonzero(row) for row in trial.negative
        ]  # of the view of each image
        self.usable = torch.tensor([len(others) > 0 for others in self.strangers])
        if not self.usable.any():
            raise CohortError(
                "an attacker needs two patients of one view to train on", "add images to the fold"
            )
        self.shares = favouring_several([Share(self.usable.nonzero()[:, 0], 1.0)], self.siblings)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return two sets of images (count, 1, s, s) in [0, 1], and whether they match (count,)."""
        start = int(torch.randint(2**31, (), generator=generator))
        rows = batch_rows(self.shares, count, start, 0)
        same = torch.arange(count) % 2 == 0
        partners = drawn_partners(rows, self.siblings, generator)
        itself = (torch.rand(count, generator=generator) < 0.5) | ~self.usable[partners]
        sought = torch.where(itself, rows, partners)
        places = torch.rand(count, generator=generator).tolist()
        # A stranger is of the view of the image in whose place it stands, as in the trial itself.
        strangers = torch.tensor(
            [
                self.strangers[image][int(place * len(self.strangers[image]))]
                for image, place in zip(sought.tolist(), places, strict=True)
            ]
        )
        seconds = torch.where(same, sought, strangers)
        versions = torch.randint(len(self.copies), (count,), generator=generator)
        first = self.copies[versions, rows]
        if self.partner is Partner.ORIGINAL:
            second = self.originals[seconds]
        else:
            second = self.copies[(versions + 1) % len(self.copies), seconds]
        return first.float() / 255, second.float() / 255, same.float()


def _cross_entropy(logits: Tensor, same: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, same)


def _patients(cohort: Cohort) -> int:
    return len({row.unit for row in cohort})
