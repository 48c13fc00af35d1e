"""What an evaluation found: all that its report says, and nothing that names a patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from math import isfinite
from typing import Any

from privdiff_training.evaluation.attack_record import AttackFigures, Exposure, Rung
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.statistics import Estimate, Figure, Share


class Size(str, Enum):
    """How much of the ladder is run: for CI, for an hour, for tens of hours."""

    QUICK = "quick"
    DEFAULT = "default"
    FULL = "full"


@dataclass(frozen=True)
class Plan:
    """What a run does; the protocol of the report is written from it.

    Attributes
    ----------
    rungs
        Attackers.
    seeds
        Of each attacker that learns, against the operating point.
    baseline_seeds
        The same against rivals.
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
    enough
        Same-image linkage AUC, found by attackers who learn from no copy, from which on no attacker
        learns from copies, for the worst of that kind is known; None for never.
    """

    rungs: frozenset[Rung]
    seeds: int
    baseline_seeds: int
    versions: int
    test_versions: int
    test_images: int | None
    drawn: int
    members: int
    attributes: bool
    reader_steps: int
    gallery_versions: int
    enough: float | None = None


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
        AUC, by kind of linkage, of attackers who are told one thing and no pixels: ``labels``,
        ``sex``, ``age``, or ``all`` three. Empty if nothing was measured.
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
    near_copies
        Part of the redrawn test images of the operating point that are nearer to a training image
        than strangers are; None if not looked for.
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
    floors: Mapping[Linkage, Mapping[str, Estimate]]
    originals: MethodFigures
    methods: tuple[MethodFigures, ...]
    memorization: Memorization | None
    protocol: int
    plan: Plan
    methods_not_run: Mapping[str, str]
    not_measurable: Mapping[str, str]
    command: str = ""
    near_copies: Share | None = None

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
