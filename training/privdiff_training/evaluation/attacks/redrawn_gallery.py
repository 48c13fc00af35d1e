"""A11: who owns the tool redraws every candidate too, and compares copies with copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import Copies, Curve, Known, Originals, Scores
from privdiff_training.evaluation.attacks.by_another import ByAnother
from privdiff_training.evaluation.attacks.covariance import covariance_around_zero, whitened
from privdiff_training.evaluation.attacks.embedding import FixedVerifier, cosines
from privdiff_training.evaluation.attacks.metric_learning import MetricLearning
from privdiff_training.evaluation.attacks.readings import ByReadings
from privdiff_training.evaluation.methods.method import hash_of


@dataclass(frozen=True)
class RedrawnGallery(ByAnother):
    """Looks which candidate the tool turns into images like the copy.

    Whatever the tool decides by an original, such as the group of patients that an output is drawn
    from, shows in its copies though it shows in no original. Candidates are redrawn with seeds of
    the attacker's own; the score is the mean cosine with the copies of a candidate.

    Attributes
    ----------
    then
        Who looks at copies.
    """

    then: FixedVerifier | MetricLearning | ByReadings
    rung = Rung.REDRAWN_GALLERY
    redraws_gallery = True

    @property
    def name(self) -> str:
        """Who looks."""
        return f"copies of every candidate, {self.then.name}"

    @property
    def fingerprint(self) -> str:
        """Of who looks."""
        return hash_of("redrawn gallery", self.then.fingerprint)

    def train(self, known: Known, seed: int) -> Scores:
        """Train who looks."""
        curve: Curve = ()
        if isinstance(self.then, ByReadings):
            vectors = _discriminant(self.then, known)
        else:
            linker = self.then.train(known, seed)
            vectors, curve = linker.vectors, linker.curve

        def link(queries: Copies, gallery: Originals) -> np.ndarray:
            of_queries = vectors(queries.pixels[0])
            redrawn = known.copy_anew(gallery).pixels
            scores = [cosines(of_queries, vectors(version)) for version in redrawn]
            return np.asarray(np.mean(scores, axis=0))

        return Scores(link, curve)


def _discriminant(attack: ByReadings, known: Known) -> Callable[[Tensor], Tensor]:
    """Return readings less their mean, in units of how far copies of one patient differ."""
    read = attack.reader()
    versions = [read(version).double() for version in known.train_copies.pixels]
    readings = torch.cat(versions)
    _, whose = np.unique([row.unit for row in known.train.cohort], return_inverse=True)
    patient = torch.from_numpy(np.tile(whose, len(versions)))
    centres = torch.stack([readings[patient == each].mean(0) for each in patient.unique()])
    covariance = covariance_around_zero((readings - centres[patient]).numpy(), readings.numpy())
    mean = readings.mean(0)
    return lambda pixels: torch.from_numpy(
        whitened((read(pixels).double() - mean).numpy(), covariance)
    )
