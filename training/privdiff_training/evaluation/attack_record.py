"""What an attacker found: the part of the record that is about linkage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from privdiff_training.evaluation.linkage import Linkage, Negatives
from privdiff_training.evaluation.statistics import Estimate, Figure

NO_GROUPS = "no two originals have the same starts, so there are no groups to tell"
"""Why there is nothing to learn for an attacker that tells groups."""


class Rung(str, Enum):
    """One rung of the attack ladder.

    Same-image linkage (A9 of the protocol) is no rung of its own: every rung is scored against a
    gallery that holds the very original and against one that holds another image of the person.
    A10 attacks the generator and no image: see `Memorization`.
    """

    FIXED = "A0"
    PUBLISHED_RETRAINING = "A1"
    MATCHED_RETRAINING = "A2"
    METRIC_LEARNING = "A3"
    FROZEN_ENCODER = "A4"
    SHAPE = "A5"
    METADATA = "A6"
    INVERSION = "A7"
    AVERAGING = "A8"
    REDRAWN_GALLERY = "A11"
    READINGS = "A12"
    STARTING_POINTS = "A13"
    TOGETHER = "A14"


@dataclass(frozen=True)
class Training:
    """How an attacker that learned from copies did on the patients whom it stopped by.

    Attributes
    ----------
    auc
        Same-image AUC there, mean over the seeds.
    beyond_fixed
        The same minus that of the fixed verifier, which saw no copy, over the same patients. Both
        are for whether anything was learned: these patients chose the weights.
    curves
        One per seed: step, and loss on these patients; empty where nothing goes in steps.
    """

    auc: Estimate
    beyond_fixed: Estimate
    curves: tuple[tuple[tuple[int, Figure], ...], ...]


@dataclass(frozen=True)
class Retrieval:
    """A search for the person among originals.

    Attributes
    ----------
    gallery
        Number of originals that are searched.
    rank_1, rank_5, mean_average_precision
        Each averaged over patients, each patient equally.
    chance
        Of rank 1, for scores without information.
    """

    gallery: int
    rank_1: Estimate
    rank_5: Estimate
    mean_average_precision: Estimate
    chance: float


@dataclass(frozen=True)
class RocCurve:
    """True over false positive rate, both rising from 0 to 1, mean over seeds."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


@dataclass(frozen=True)
class LinkageFigures:
    """How well one matrix of scores, or the mean over seeds, links images to originals.

    Attributes
    ----------
    auc
        In the orientation that was fixed on the attacker's own selection patients.
    folded_auc
        max(AUC, 1 - AUC), which is above 0.5 by chance alone; see `folded_auc_of_strangers`.
    folded_auc_of_strangers
        The same for permuted identities: its floor.
    tpr_at_fpr
        True positive rate by false positive rate ("0.01", "0.001"); a rate that the number of
        negatives cannot show is left out.
    equal_error_rate
        Where both error rates meet.
    auc_by_negatives
        AUC against strangers of each kind.
    retrieval
        Searches, by ascending size of the gallery.
    roc
        For the eye; None if not kept.
    """

    auc: Estimate
    folded_auc: Estimate
    folded_auc_of_strangers: Figure
    tpr_at_fpr: Mapping[str, Estimate]
    equal_error_rate: Estimate
    auc_by_negatives: Mapping[Negatives, Estimate]
    retrieval: tuple[Retrieval, ...]
    roc: RocCurve | None = None


@dataclass(frozen=True)
class AttackFigures:
    """One rung against one method.

    Attributes
    ----------
    rung, name
        Which attacker; the name says more, for example which encoder.
    trained_on
        In words: images, patients, redrawn versions, steps.
    seeds
        AUC by kind of linkage, one per seed of the attacker.
    linkage
        Figures of the mean over seeds; intervals hold patients, and seeds as a second level.
    on_originals
        AUC by kind of linkage of the same attacker when nothing is done: its control.
    learned_from_copies
        Whether it was trained on copies of the method that it attacks.
    above_floor
        Follow-up AUC minus that of an attacker who knows the labels alone, over the same patients.
    control_above_floor
        The same of the control. One that is not clearly above would know nobody if nothing were
        done.
    training
        None if it did not learn from copies.
    """

    rung: Rung
    name: str
    trained_on: str
    seeds: tuple[Mapping[Linkage, Figure], ...]
    linkage: Mapping[Linkage, LinkageFigures]
    on_originals: Mapping[Linkage, Figure]
    learned_from_copies: bool
    above_floor: Estimate
    control_above_floor: Estimate
    training: Training | None


@dataclass(frozen=True)
class Exposure:
    """How the risk of being found is spread over patients; no figure is of one of them.

    Attributes
    ----------
    attacker
        Who searches: the worst one for the same image.
    patients, copies, gallery
        How many patients, copies of each of their images, and originals in a search.
    chance
        Of being found first by scores without information.
    found
        By quantile of the patients ("0.5", "0.9"): how often they are found first, over their
        images, copies, galleries and the seeds of the attacker.
    never, always
        Part of the patients who are never found first, and who always are.
    of_the_most_exposed
        Part of all first places that falls to the most exposed tenth of the patients.
    of_the_most_exposed_by_chance
        The same if each copy were found as often, but whose it is were drawn by lot.
    again
        Of patients who are found first with one copy, the part found first with another one; None
        with a single copy or where nobody is found.
    """

    attacker: str
    patients: int
    copies: int
    gallery: int
    chance: float
    found: Mapping[str, float]
    never: Estimate
    always: Estimate
    of_the_most_exposed: Figure
    of_the_most_exposed_by_chance: Figure
    again: float | None
