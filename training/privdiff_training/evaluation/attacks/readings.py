"""A12: who owns the tool reads originals and copies with a reader, and compares what it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.distance import cdist
from sklearn.linear_model import RidgeCV
from torch import Tensor

from privdiff_infer.model.critics import RadiographReader
from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import Copies, Known, Originals, Scores
from privdiff_training.evaluation.attacks.covariance import covariance_around_zero, whitened
from privdiff_training.evaluation.attacks.embedding import weights_fingerprint
from privdiff_training.evaluation.attacks.fitting import in_batches
from privdiff_training.evaluation.attacks.kept import Kept
from privdiff_training.evaluation.methods.method import hash_of
from privdiff_training.siblings import siblings

ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class ByReadings:
    """Asks how much likelier the reading of an original is, given that of the copy.

    What a tool keeps of an image on purpose, its findings, it keeps with their strength, and so do
    age and sex as far as they can be read: more than the labels say. Readings are taken as normal:
    a regression from the reading of a copy to that of an original of the patient, its own and
    others, fitted on the copies of `attacker_train`, and the likelihood of what it leaves against
    that of the original alone.

    Attributes
    ----------
    folder
        Of a reader.
    reads
        Whose it is, for people.
    kept
        Its readings.
    """

    folder: Path
    reads: str
    kept: Kept[Tensor] = field(default_factory=Kept, init=False, compare=False, repr=False)
    rung = Rung.READINGS
    is_learned = False
    learns_from_copies = True
    redraws_gallery = False
    needs_groups = False

    @property
    def name(self) -> str:
        """Whose reader."""
        return f"findings, age and sex by {self.reads}"

    @property
    def fingerprint(self) -> str:
        """Of the weights."""
        return hash_of("readings", weights_fingerprint(self.folder))

    def trained_on(self, known: Known) -> str:
        """Say how many images and copies."""
        return (
            f"readings of {len(known.train)} images, {len(known.train_copies.pixels)} copies each"
        )

    def reader(self) -> Callable[[Tensor], Tensor]:
        """Return what maps images, uint8, to readings: logits of findings, age and sex."""
        network = RadiographReader.from_pretrained(self.folder).eval()

        def read(images: Tensor) -> Tensor:
            reading = network(images)
            return torch.cat((reading.findings, reading.age, reading.sex[:, None]), dim=1)

        return lambda pixels: self.kept(pixels, lambda images: in_batches(read, images))

    def train(self, known: Known, seed: int) -> Scores:
        """Fit regression and covariances; nothing is random."""
        read = self.reader()

        def readings(pixels: Tensor) -> np.ndarray:
            return np.asarray(read(pixels).double().numpy())

        originals = readings(known.train.pixels)
        rows = known.fitted_rows or range(len(known.train))
        pairs = [
            (image, other)
            for image, others in enumerate(siblings(known.train.cohort))
            for other in others
            if image in rows and other in rows
        ]
        of_copy, of_original = np.array(pairs).T
        versions = [readings(version)[of_copy] for version in known.train_copies.pixels]
        copies = np.concatenate(versions)
        targets = np.tile(originals[of_original], (len(versions), 1))
        originals = originals[sorted(rows)]
        regression = RidgeCV(ALPHAS).fit(copies, targets)
        left = covariance_around_zero(targets - regression.predict(copies), originals)
        mean = originals.mean(0)
        alone = covariance_around_zero(originals - mean, originals)

        def link(queries: Copies, gallery: Originals) -> np.ndarray:
            of_gallery = readings(gallery.pixels)
            expected = whitened(regression.predict(readings(queries.pixels[0])), left)
            unlikely = cdist(expected, whitened(of_gallery, left), "sqeuclidean")
            return np.asarray((whitened(of_gallery - mean, alone) ** 2).sum(1) - unlikely)

        return Scores(link)
