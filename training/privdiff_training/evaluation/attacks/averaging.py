"""A8: several releases of one image are averaged, so that their noise goes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import Copies, Known, Originals, Scores
from privdiff_training.evaluation.attacks.by_another import ByAnother
from privdiff_training.evaluation.attacks.embedding import FixedVerifier, cosines
from privdiff_training.evaluation.attacks.metric_learning import MetricLearning
from privdiff_training.evaluation.attacks.starting_points import StartingPoints
from privdiff_training.evaluation.attacks.together import Together
from privdiff_training.evaluation.methods.method import hash_of


class Space(str, Enum):
    """Where copies are averaged."""

    EMBEDDINGS = "embeddings"
    PIXELS = "pixels"


@dataclass(frozen=True)
class Averaging(ByAnother):
    """Looks at the average of all copies of an image.

    Attributes
    ----------
    then
        Who looks: a verifier that saw no copy, or one who owns the tool and trained on its copies.
    space
        Where the average is taken.
    """

    then: FixedVerifier | MetricLearning
    space: Space
    rung = Rung.AVERAGING
    redraws_gallery = False

    @property
    def name(self) -> str:
        """Where the average is taken, and who looks."""
        return f"average of copies, {self.space.value}, {self.then.name}"

    @property
    def fingerprint(self) -> str:
        """Of who looks, and of the space."""
        return hash_of(self.then.fingerprint, self.space)

    def train(self, known: Known, seed: int) -> Scores:
        """Train who looks, on single copies."""
        linker = self.then.train(known, seed)

        def link(queries: Copies, gallery: Originals) -> np.ndarray:
            if self.space is Space.PIXELS:
                mean = queries.pixels.float().mean(0, keepdim=True).round().byte()
                return linker(Copies(queries.cohort, mean), gallery)
            vectors = [linker.vectors(version) for version in queries.pixels]
            return cosines(sum(vectors[1:], vectors[0]), linker.vectors(gallery.pixels))

        return Scores(link, linker.curve)


@dataclass(frozen=True)
class AveragedScores(ByAnother):
    """Looks at every copy of an image and takes the mean of what is found.

    Attributes
    ----------
    then
        Who looks: somebody who looks into the tool, whose scores of all copies are of one scale.
    """

    then: StartingPoints | Together
    rung = Rung.AVERAGING
    redraws_gallery = False

    @property
    def name(self) -> str:
        """Who looks."""
        return f"average of what is found, {self.then.name}"

    @property
    def fingerprint(self) -> str:
        """Of who looks."""
        return hash_of(self.then.fingerprint, "scores")

    def train(self, known: Known, seed: int) -> Scores:
        """Train who looks, on single copies."""
        linker = self.then.train(known, seed)

        def link(queries: Copies, gallery: Originals) -> np.ndarray:
            found = [
                linker(Copies(queries.cohort, version[None]), gallery) for version in queries.pixels
            ]
            return np.asarray(np.mean(found, axis=0))

        return Scores(link)
