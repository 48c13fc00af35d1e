"""What an evaluation found: all that its report says, and nothing that names a patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from math import isfinite
from typing import Any

from privdiff_training.evaluation.linkage import Linkage, Negatives
from privdiff_training.evaluation.statistics import Estimate, Figure


class Size(str, Enum):
    """How much of the ladder is run: for CI, for an hour, for tens of hours."""

    QUICK = "quick"
    DEFAULT = "default"
    FULL = "full"


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


@dataclass(frozen=True)
class Plan:
    """What a run does; the protocol of the report is written from it.

    Attributes
    ----------
    rungs
        Attackers.
    seeds
        Of each attacker that learns, against the operating point.
    baseline_seeds, control_seeds
        The same against other methods, and where nothing is done to the images.
    versions
        Copies of each image that attackers train on.
    test_versions
        Copies of each test image; more than one serve A8 and the exposure of single patients.
    test_images
        Limit of the test images, by whole patients; None for no limit.
    drawn, members
        Of A10: images to draw, and images whose loss is taken; 0 leaves it out.
    attributes
        Whether sex and age are attacked.
    reader_steps
        Steps of the readers that are trained on copies and on originals; 0 leaves them out.
    gallery_versions
        Copies of each candidate that A11 makes.
    """

    rungs: frozenset[Rung]
    seeds: int
    baseline_seeds: int
    control_seeds: int
    versions: int
    test_versions: int
    test_images: int | None
    drawn: int
    members: int
    attributes: bool
    reader_steps: int
    gallery_versions: int


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
        Part of all findings that falls to the most exposed tenth of the patients.
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


@dataclass(frozen=True)
class FindingFigures:
    """One finding: AUC of the fixed classifier on originals and copies, and what changed.

    Attributes
    ----------
    positives
        Images with the finding.
    originals, copies, difference
        AUC; the difference, copies minus originals, is paired.
    lost
        Of the images that the classifier calls positive, the part whose copy it does not.
    gained
        Of the images that it does not call positive, the part whose copy it does.
    """

    finding: str
    positives: int
    originals: Estimate
    copies: Estimate
    difference: Estimate
    lost: Estimate
    gained: Estimate


@dataclass(frozen=True)
class Utility:
    """What is left of the findings.

    Attributes
    ----------
    macro
        Macro AUC of the fixed classifier on the copies.
    difference
        Of it to the originals, copies minus originals, paired.
    findings
        One per finding that has enough positives.
    trained_on_copies, trained_on_originals
        Macro AUC on originals of classifiers that were trained on each; None if not run.
    calibration_error, calibration_error_of_originals
        Expected calibration error of the fixed classifier on the copies, and on the originals.
    trained_difference
        `trained_on_copies` minus `trained_on_originals`, paired.
    training
        In words: what the two were trained on, or why they were not.
    """

    macro: Estimate
    difference: Estimate
    findings: tuple[FindingFigures, ...]
    trained_on_copies: Estimate | None
    trained_on_originals: Estimate | None
    calibration_error: Figure
    calibration_error_of_originals: Figure
    trained_difference: Estimate | None = None
    training: str = ""


@dataclass(frozen=True)
class Quality:
    """How real the copies look, and how much of the source they keep.

    Attributes
    ----------
    kernel_distance, frechet_distance
        To the originals, by name of the feature network; a Frechet distance only where there are
        more images than features.
    images
        Number of images on each side.
    ms_ssim
        To the source, mean: likeness that leaks. NaN for images that are too small for it.
    geometry
        Overlap (Dice) of the lung fields of copy and source, mean; None where none were found.
    geometry_images
        Number of sources with lung fields.
    """

    kernel_distance: Mapping[str, Figure]
    frechet_distance: Mapping[str, Figure]
    images: int
    ms_ssim: Figure
    geometry: float | None
    geometry_images: int = 0


@dataclass(frozen=True)
class Attributes:
    """What attackers that were trained anew read of the person from copies.

    Attributes
    ----------
    sex_auc, sex_auc_of_originals
        Area under the ROC curve.
    age_error, age_error_of_originals, age_error_of_median
        Mean absolute error in years; the last is that of a constant guess.
    """

    sex_auc: Estimate
    sex_auc_of_originals: Estimate
    age_error: Estimate
    age_error_of_originals: Estimate
    age_error_of_median: Figure


@dataclass(frozen=True)
class Memorization:
    """Whether the generator gives away what it was trained on (A10).

    Attributes
    ----------
    copies, drawn, copies_upper
        Drawn images that are nearer to a training image than strangers are to each other, of how
        many, and the upper 95 % bound of the part.
    membership_auc
        AUC of the denoising loss in telling training images from others; 0.5 is none.
    """

    copies: int
    drawn: int
    copies_upper: float
    membership_auc: Estimate


@dataclass(frozen=True)
class Subgroup:
    """Linkage and findings of the images of one group.

    Attributes
    ----------
    group
        In words, such as ``sex F`` or ``age 40 to 59``.
    images, patients
        Size of the group.
    linkage
        Same-image AUC of the worst attacker: copies of the group against all originals.
    findings
        Macro AUC of the fixed classifier over the findings that the group has enough of.
    findings_counted
        Number of those.
    """

    group: str
    images: int
    linkage: Estimate
    findings: Estimate
    patients: int = 0
    findings_counted: int = 0


@dataclass(frozen=True)
class MethodFigures:
    """Everything about one method at one setting.

    Attributes
    ----------
    method, family, setting
        Name, curve on the plane, point on it.
    told
        What the method is told beside the pixels.
    attacks
        The rungs that were run.
    not_run
        Rungs and other parts that were not, with the reason.
    exposure
        Of single patients under the worst attacker; None if there are too few.
    """

    method: str
    family: str
    setting: str
    told: str
    attacks: tuple[AttackFigures, ...]
    not_run: Mapping[str, str]
    utility: Utility | None
    quality: Quality | None
    attributes: Attributes | None
    subgroups: tuple[Subgroup, ...]
    exposure: Exposure | None

    def worst(self, kind: Linkage) -> AttackFigures | None:
        """Return the attacker with the highest AUC, mean over its seeds; None if none has one."""
        able = [
            attack
            for attack in self.attacks
            if attack.rung is not Rung.METADATA
            and kind in attack.linkage
            and isfinite(attack.linkage[kind].auc.value)
        ]
        return max(able, key=lambda attack: attack.linkage[kind].auc.value, default=None)


@dataclass(frozen=True)
class Evaluation:
    """One run of `privdiff evaluate`.

    Attributes
    ----------
    size, seed
        Of the run.
    bundle, version, weights_sha256
        What is under test.
    operating_point
        The method, among `methods`, that the bundle's default is.
    dataset, folds
        The cohort that was tested on.
    images, patients, patients_with_several
        Its size.
    roles
        Images and patients by role.
    floors
        Follow-up AUC of attackers who are told one thing and no pixels: ``labels``, ``sex``,
        ``age``, or ``all`` three.
    originals
        The method that does nothing.
    methods
        Those under test and the baselines.
    memorization
        Of the generator; None if not run.
    protocol
        Number of the code that attacked and measured; figures of two numbers do not compare.
    plan
        What the run did.
    methods_not_run
        Methods that were left out, with the reason.
    not_measurable
        What the cohort cannot show, with the reason.
    command
        What makes it again, without a path.
    """

    size: Size
    seed: int
    bundle: str
    version: str
    weights_sha256: str
    operating_point: str
    dataset: str
    folds: tuple[str, ...]
    images: int
    patients: int
    patients_with_several: int
    roles: Mapping[str, tuple[int, int]]
    floors: Mapping[str, Estimate]
    originals: MethodFigures
    methods: tuple[MethodFigures, ...]
    memorization: Memorization | None
    protocol: int
    plan: Plan
    methods_not_run: Mapping[str, str]
    not_measurable: Mapping[str, str]
    command: str = ""

    def to_record(self) -> dict[str, Any]:
        """Return the evaluation for JSON, with null for what is not a number."""
        record: dict[str, Any] = for_json(asdict(self))
        return record


def for_json(content: Any) -> Any:
    """Return plain content as JSON can say it: NaN is null, a set a sorted list."""
    if isinstance(content, Mapping):
        return {key: for_json(value) for key, value in content.items()}
    if isinstance(content, frozenset):
        return sorted(content)
    if isinstance(content, list | tuple):
        return [for_json(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content
