"""Sex and age, read from copies by attackers that were trained anew on copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from privdiff_infer.model.critics import build_backbone, prepared
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.attacks.attack import Copies, Known, Originals
from privdiff_training.evaluation.attacks.config import AttributeConfig
from privdiff_training.evaluation.attacks.fitting import fit, in_batches, resampled
from privdiff_training.evaluation.record import Attributes
from privdiff_training.evaluation.statistics import Estimate, auc, bootstrap_figures
from privdiff_training.sampling import generator_for

YEARS, SPREAD = 45.0, 20.0
"""The network tells age as a number of about unit size."""


@dataclass(frozen=True)
class Readings:
    """What one attacker reads of every image, shape (n,) each.

    Attributes
    ----------
    sex
        Logit of male.
    age
        Years.
    """

    sex: np.ndarray
    age: np.ndarray


class _AttributeNetwork(nn.Module):
    """Sex and age of an image."""

    def __init__(self, config: AttributeConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.encoder, width = build_backbone(config.backbone.model_dump(exclude_none=True))
        self.head = nn.Linear(width, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, 2): logit of male, scaled years."""
        return self.head(self.encoder(prepared(images, self.image_size)))


def read_attributes(known: Known, queries: Copies, config: AttributeConfig, seed: int) -> Readings:
    """Train an attacker on copies and on originals of other patients, and read the first copies.

    Parameters
    ----------
    known
        What it may train on.
    queries
        The images that it reads.
    config
        Network and training.
    seed
        Of everything random.
    """
    torch.manual_seed(generator_for(seed, "attributes").initial_seed())
    network = _AttributeNetwork(config)
    copies, reference = known.train_copies, known.reference
    versions = len(copies.pixels)
    pixels = torch.cat(
        [
            resampled(copies.pixels, config.image_size).flatten(0, 1),
            resampled(reference.pixels, config.image_size),
        ]
    )
    truth = torch.cat([_truth(copies.cohort).repeat(versions, 1), _truth(reference.cohort)])
    first = versions * len(copies.cohort)  # half of a batch are copies
    select = resampled(known.select_copies.pixels[0], config.image_size)
    select_truth = _truth(known.select.cohort)

    def loss(generator: torch.Generator) -> Tensor:
        half = config.batch_size // 2
        rows = torch.cat(
            (
                torch.randint(first, (half,), generator=generator),
                torch.randint(first, len(pixels), (half,), generator=generator),
            )
        )
        images = config.augment(pixels[rows].float() / 255, generator)
        return _loss(network(images), truth[rows])

    def judge() -> float:
        return float(_loss(in_batches(network, select), select_truth))

    fit(network, loss, judge, config, seed, f"attributes seed {seed}")
    read = in_batches(network, resampled(queries.pixels[0], config.image_size)).double().numpy()
    return Readings(read[:, 0], read[:, 1] * SPREAD + YEARS)


def attribute_figures(
    cohort: Cohort,
    of_copies: Sequence[Readings],
    of_originals: Sequence[Readings],
    train: Originals,
    seed: int,
) -> Attributes:
    """Compare what attackers read with what is true.

    Parameters
    ----------
    cohort
        Row i tells of image i.
    of_copies, of_originals
        Readings of the test images by each seed of the attackers.
    train
        Whose median age is the constant guess.
    seed
        Of the bootstraps.
    """
    trial = _AttributeTrial(cohort)
    copies, originals = (trial.figures(readings, seed) for readings in (of_copies, of_originals))
    ages = [row.age_years for row in train.cohort if row.age_years is not None]
    guess = Readings(np.zeros(len(cohort)), np.full(len(cohort), np.median(ages or [np.nan])))
    return Attributes(
        sex_auc=copies["sex"],
        sex_auc_of_originals=originals["sex"],
        age_error=copies["age"],
        age_error_of_originals=originals["age"],
        age_error_of_median=trial.whole(guess)["age"],
    )


class _AttributeTrial:
    """Truth of one cohort by patient; in a resample each drawn patient gives one image."""

    def __init__(self, cohort: Cohort) -> None:
        truth = _truth(cohort).double().numpy()
        self.male, self.years = truth[:, 0], truth[:, 1] * SPREAD + YEARS
        units = np.array([row.unit for row in cohort])
        self.rows_of_patient = [np.flatnonzero(units == unit) for unit in dict.fromkeys(units)]
        weights = np.zeros(len(cohort))
        for rows in self.rows_of_patient:
            weights[rows] = 1 / len(rows)
        self.weights = weights

    def figures(self, readings: Sequence[Readings], seed: int) -> dict[str, Estimate]:
        wholes = [self.whole(each) for each in readings]
        whole = {name: float(np.mean([each[name] for each in wholes])) for name in wholes[0]}

        def resample(rng: np.random.Generator) -> dict[str, float]:
            patients = rng.integers(len(self.rows_of_patient), size=len(self.rows_of_patient))
            rows = np.array([rng.choice(self.rows_of_patient[patient]) for patient in patients])
            drawn = [readings[index] for index in rng.integers(len(readings), size=len(readings))]
            return {
                "sex": float(np.mean([self._sex(each.sex, rows) for each in drawn])),
                "age": float(np.mean([self._age(each.age, rows) for each in drawn])),
            }

        return bootstrap_figures(whole, resample, len(self.rows_of_patient), seed)

    def whole(self, readings: Readings) -> dict[str, float]:
        """Return the figures of all images, every patient with the same weight."""
        known = np.isfinite(self.male)
        both = len(set(self.male[known])) == 2
        ages = np.isfinite(self.years)
        error = np.abs(readings.age - self.years)
        return {
            "sex": float(
                roc_auc_score(
                    self.male[known], readings.sex[known], sample_weight=self.weights[known]
                )
            )
            if both
            else float("nan"),
            "age": float(np.average(error[ages], weights=self.weights[ages]))
            if ages.any()
            else float("nan"),
        }

    def _sex(self, logits: np.ndarray, rows: np.ndarray) -> float:
        male = self.male[rows]
        return auc(logits[rows[male == 1]], logits[rows[male == 0]])

    def _age(self, years: np.ndarray, rows: np.ndarray) -> float:
        known = rows[np.isfinite(self.years[rows])]
        return float(np.abs(years[known] - self.years[known]).mean()) if len(known) else np.nan


def _truth(cohort: Cohort) -> Tensor:
    """Return (n, 2), float32: male 1 or 0, scaled years; NaN where it is not known."""
    return torch.tensor(
        [
            (
                float("nan") if row.sex is None else float(row.sex),
                float("nan") if row.age_years is None else (row.age_years - YEARS) / SPREAD,
            )
            for row in cohort
        ]
    )


def _loss(read: Tensor, truth: Tensor) -> Tensor:
    """Return cross-entropy of sex plus absolute error of age, each over what is known."""
    known = truth.isfinite()
    loss = read.sum() * 0
    if known[:, 0].any():
        sex = known[:, 0]
        loss = loss + functional.binary_cross_entropy_with_logits(read[sex, 0], truth[sex, 0])
    if known[:, 1].any():
        age = known[:, 1]
        loss = loss + functional.l1_loss(read[age, 1], truth[age, 1])
    return loss
