"""What is measured on redrawn images of one cohort: linkage, kept findings, distance, likeness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.findings import FindingsTrial
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial, metadata_scores
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.evaluation.statistics import Estimate, bootstrap, bootstrap_difference

PatientStatistic = Callable[[Sequence[int], np.random.Generator], float]


@dataclass(frozen=True)
class Figures:
    """What was measured on one set of images.

    Attributes
    ----------
    same_image, follow_up
        Linkage AUC of the verifier against the originals; 0.5 is chance, 1 is certain.
    findings
        Macro AUC of the classifier against the labels.
    kernel_distance
        KID to the originals under the classifier's features.
    similarity
        Mean cosine of an image and its original under the verifier.
    """

    same_image: Estimate
    follow_up: Estimate
    findings: Estimate
    kernel_distance: float
    similarity: float


class Measurement:
    """All statistics of one cohort under one pair of evaluators.

    Parameters
    ----------
    cohort
        Row i of every set of images is made from, and original i is, row i.
    originals
        Shape (n, 1, s, s), float32 in [0, 1].
    evaluators
        Verifier and classifier.
    seed
        Of the bootstraps; equal seeds draw equal patients and pairs.
    """

    def __init__(
        self, cohort: Cohort, originals: Tensor, evaluators: Evaluators, seed: int
    ) -> None:
        self.cohort = cohort
        self.originals = originals
        self.evaluators = evaluators
        self.seed = seed
        self.gallery = evaluators.embeddings(originals)
        self.trials = {kind: LinkageTrial(cohort, kind) for kind in Linkage}
        self.trial_of_findings = FindingsTrial(cohort)

    def figures(self, images: Tensor) -> Figures:
        """Measure images of the shape of the originals."""
        statistics = self._statistics(images)
        cosine = (self.evaluators.embeddings(images) * self.gallery).sum(-1)
        return Figures(
            **{
                name: bootstrap(statistic, patients, self.seed)
                for name, (statistic, patients) in statistics.items()
            },
            kernel_distance=self.evaluators.kernel_distance(self.originals, images, self.seed),
            similarity=float(cosine.mean()),
        )

    def differences(self, old: Tensor, new: Tensor) -> dict[str, Estimate]:
        """Return new - old of every statistic, over the same draws of patients and pairs."""
        new_statistics = self._statistics(new)
        return {
            name: bootstrap_difference(new_statistics[name][0], statistic, patients, self.seed)
            for name, (statistic, patients) in self._statistics(old).items()
        }

    def labels_only(self) -> Estimate:
        """Return the follow-up AUC of an attacker who knows the kept labels alone: the floor."""
        scores, trial = metadata_scores(self.cohort), self.trials[Linkage.FOLLOW_UP]
        return bootstrap(
            lambda patients, rng: trial.auc(scores, patients, rng), trial.patients, self.seed
        )

    def _statistics(self, images: Tensor) -> dict[str, tuple[PatientStatistic, int]]:
        """Return every statistic of redrawn images by name, with its number of patients."""
        scores = (self.evaluators.embeddings(images) @ self.gallery.mT).numpy()
        logits = self.evaluators.findings(images).numpy()

        def linked(trial: LinkageTrial) -> PatientStatistic:
            return lambda patients, rng: trial.auc(scores, patients, rng)

        def findings(patients: Sequence[int], rng: np.random.Generator) -> float:
            return self.trial_of_findings.auc(logits, patients)

        statistics: dict[str, tuple[PatientStatistic, int]] = {
            kind.value: (linked(trial), trial.patients) for kind, trial in self.trials.items()
        }
        return statistics | {"findings": (findings, self.trial_of_findings.patients)}
