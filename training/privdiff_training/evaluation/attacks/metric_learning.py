"""A3: the strong attacker. A0's network learns that a copy and an original are one person.

Originals and several copies of every image are views of a patient under a supervised contrastive
loss, so the network learns whatever survives the tool, with the noise of the tool itself as
augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import Copies, Known, Originals
from privdiff_training.evaluation.attacks.config import MetricConfig
from privdiff_training.evaluation.attacks.embedding import CosineLinker, FixedVerifier
from privdiff_training.evaluation.attacks.fitting import fit, in_batches, resampled
from privdiff_training.evaluation.methods.method import hash_of
from privdiff_training.sampling import Share, batch_rows
from privdiff_training.siblings import drawn_partners, favouring_several, siblings
from privdiff_training.stages.identity import supervised_contrastive


@dataclass(frozen=True)
class MetricLearning:
    """Fine-tunes the fixed verifier on copies and originals.

    Attributes
    ----------
    start
        Whose weights it starts from.
    config
        Training.
    """

    start: FixedVerifier
    config: MetricConfig = field(default_factory=MetricConfig)
    rung = Rung.METRIC_LEARNING
    name = "metric learning from the fixed verifier"
    is_learned = True
    learns_from_copies = True
    redraws_gallery = False
    needs_groups = False

    @property
    def fingerprint(self) -> str:
        """Of first weights and configuration."""
        return hash_of("metric", self.start.fingerprint, self.config.model_dump_json())

    def trained_on(self, known: Known) -> str:
        """Say how many images, copies and steps."""
        patients = {row.unit for row in known.train.cohort}
        return (
            f"{len(known.train)} images of {len(patients)} patients, "
            f"{len(known.train_copies.pixels)} copies each, and {len(known.reference)} further "
            f"originals; at most {self.config.steps} steps of {self.config.batch_size} patients"
        )

    def train(self, known: Known, seed: int) -> CosineLinker:
        """Train, or take what was trained before; the best weights may be the first ones."""
        key = (self.fingerprint, seed)
        if key not in known.memory:
            known.memory[key] = self._trained(known, seed)
        linker: CosineLinker = known.memory[key]
        return linker

    def _trained(self, known: Known, seed: int) -> CosineLinker:
        network = self.start.verifier()
        size, temperature = self.config.image_size, self.config.temperature
        with_copies = _Views(known.train, known.train_copies, size)
        originals_alone = _Views(known.reference, None, size)
        select = _Selection(known, size, temperature)
        of_reference = round(self.config.reference_part * self.config.batch_size)

        def loss(generator: torch.Generator) -> Tensor:
            groups = [with_copies.draw(self.config.batch_size - of_reference, generator)]
            if of_reference:
                groups.append(originals_alone.draw(of_reference, generator))
            images = self.config.augment(torch.cat([images for images, _ in groups]), generator)
            units = [unit for _, units in groups for unit in units]
            return supervised_contrastive(network(images), units, temperature)

        fitted = fit(
            network,
            loss,
            lambda: select.cross_entropy(network),
            self.config,
            seed,
            f"{self.rung.value} seed {seed}",
        )
        return CosineLinker(network, fitted.curve)


class _Views:
    """Views of patients: an original, another original if any, and a copy if any."""

    def __init__(self, originals: Originals, copies: Copies | None, image_size: int) -> None:
        self.originals = resampled(originals.pixels, image_size)
        self.copies = None if copies is None else resampled(copies.pixels, image_size)
        self.units = [row.unit for row in originals.cohort]
        self.siblings = siblings(originals.cohort)
        whole = Share(torch.arange(len(self.units)), 1.0)
        self.shares = favouring_several([whole], self.siblings)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Return images (views * count, 1, s, s) in [0, 1] and whose they are."""
        start = int(torch.randint(2**31, (), generator=generator))
        rows = batch_rows(self.shares, count, start, 0)
        views = [
            self.originals[rows],
            self.originals[drawn_partners(rows, self.siblings, generator)],
        ]
        if self.copies is not None:
            versions = torch.randint(len(self.copies), (count,), generator=generator)
            views.append(self.copies[versions, rows])
        images = torch.cat(views).float() / 255
        units = [self.units[row] for row in rows.tolist()] * len(views)
        return images, units


class _Selection:
    """How surely the person of a copy is found among the originals of the select patients."""

    def __init__(self, known: Known, image_size: int, temperature: float) -> None:
        self.copies = resampled(known.select_copies.pixels[0], image_size)
        self.originals = resampled(known.select.pixels, image_size)
        units = [row.unit for row in known.select.cohort]
        self.same = torch.tensor([[first == second for second in units] for first in units])
        self.temperature = temperature

    def cross_entropy(self, network: IdentityEmbedder) -> float:
        """Return the mean over copies of minus the log of the part that falls to the person."""
        copies, originals = (
            in_batches(network, images) for images in (self.copies, self.originals)
        )
        log_part = (copies @ originals.mT / self.temperature).log_softmax(dim=-1)
        found = log_part.masked_fill(~self.same, -torch.inf).logsumexp(dim=-1)
        return float(-found.mean())
