"""What a report says in words, by the rules of what may be said of such figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite, isnan

from privdiff_training.evaluation.attack_record import AttackFigures, Rung
from privdiff_training.evaluation.cohort_limits import FINDINGS, PART_OF
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.record import Evaluation, MethodFigures
from privdiff_training.evaluation.report.judgement import (
    SAME_UTILITY,
    doubt,
    findings_of,
    floor_of_labels,
    labels_carry_the_utility,
    linkage_of,
    operating_point,
    worst_search,
)
from privdiff_training.evaluation.statistics import Estimate

SMALL_SAMPLE = 136
"""Patients up to which a figure is named as one of a small sample."""

RUNGS: Mapping[Rung, tuple[str, str]] = {
    Rung.FIXED: ("Fixed verifier", "a network that was trained on originals alone"),
    Rung.PUBLISHED_RETRAINING: (
        "Published retraining",
        "trained on pairs of redrawn images, after the protocol of PriCheXy-Net; for comparison "
        "only",
    ),
    Rung.MATCHED_RETRAINING: (
        "Matched retraining",
        "trained on pairs of a redrawn image and an original, as it is tested",
    ),
    Rung.METRIC_LEARNING: (
        "Metric learning",
        "trained on originals and several redrawn versions of each: an intruder who owns the tool",
    ),
    Rung.FROZEN_ENCODER: ("Frozen encoder", "features of a network that was trained for others"),
    Rung.SHAPE: ("Shape alone", "sees outlines and no texture"),
    Rung.METADATA: ("Metadata alone", "is told labels, sex or age and sees no pixels: the floors"),
    Rung.INVERSION: ("Inversion", "a network turns redrawn images back before they are compared"),
    Rung.AVERAGING: (
        "Averaging",
        "averages several redrawn versions of an image before it looks",
    ),
    Rung.REDRAWN_GALLERY: (
        "Redrawn gallery",
        "owns the tool, redraws every candidate with seeds of its own and compares copies",
    ),
    Rung.READINGS: (
        "By findings",
        "owns the tool, reads findings, age and sex of originals and compares how strong they are",
    ),
    Rung.STARTING_POINTS: (
        "Starting points",
        "owns the tool and its weights, and looks which of the images that the tool may start from "
        "a redrawn image came from, or which group of them",
    ),
    Rung.TOGETHER: (
        "All together",
        "weighs likeness, readings and starting points against each other, as redrawn images of "
        "other patients taught it",
    ),
}

KINDS: Mapping[Linkage, tuple[str, str]] = {
    Linkage.SAME_IMAGE: ("Same image", "the gallery holds the very original that was redrawn"),
    Linkage.FOLLOW_UP: ("Follow-up", "the gallery holds another image of the person"),
}

NEGATIVES: Mapping[str, str] = {
    "any": "any stranger of the same view",
    "same_sex": "strangers of the same sex",
    "same_sex_and_age": "strangers of the same sex and age",
}

LIMITS = (
    "Measured, not proven: a figure holds for the attacks listed, on these data. A stronger "
    "attacker, or one who knows more, may do better.",
    "Redrawn images remain personal data unless your own assessment says otherwise.",
    "Attackers saw the images of a few hundred patients. Where hundreds of thousands of pairs were "
    "at hand, published attackers linked original radiographs almost without an error (AUC 0.994, "
    "Packhaeuser et al., Sci Rep 2022).",
    "Figures of follow-up linkage rest on the patients with several images, which are few here: a "
    "small sample with wide intervals.",
    "An AUC below 0.5 is no extra protection: it says that scores are upside down, or that "
    "training and test differ, and has to be explained.",
    "Findings are read by a classifier against labels that were mined from texts. They are no "
    "measurement of what a radiologist sees; redrawn images are not for diagnosis.",
    "Implants, fractures and rare anatomy can tell a person whatever the mean over patients says.",
    "One data set: other scanners, countries and ages were not measured unless this page says so.",
)

ANCHORS_REMARK = (
    "Crosses are published values (PriCheXy-Net 0.577 and 0.762; PrivDiff-Net 0.475 and 0.780, "
    "PMLR 317): other data, another classifier, and attackers that were weak. They are the "
    "papers' figures and not comparable with the others."
)


def plain_words(evaluation: Evaluation) -> Iterator[str]:
    """Yield the sentences that say what was found to somebody who reads no tables."""
    point = operating_point(evaluation)
    if point is None:
        yield "The operating point of the bundle was not measured."
        return
    yield (
        f"The method {point.method} of {evaluation.bundle} {evaluation.version} redrew "
        f"{evaluation.images} chest X-rays of {evaluation.patients} patients "
        f"({evaluation.dataset}). Attackers then tried to tell from a redrawn image whose it is."
    )
    for kind in Linkage:
        yield from _linkage_words(evaluation, point, kind)
    yield from _search_words(point)
    yield from _findings_words(evaluation, point)
    yield _verdict(evaluation, point)


def attacker_words(attack: AttackFigures) -> str:
    """Name an attacker."""
    return f"{attack.rung.value} {RUNGS[attack.rung][0]} ({attack.name})"


def sample_words(patients: int) -> str:
    """Say how many patients stand behind a figure, and whether they are few."""
    words = f"{patients} patient{'' if patients == 1 else 's'}"
    return f"{words}, a small sample" if patients <= SMALL_SAMPLE else words


def attack_notes(attack: AttackFigures) -> Iterator[str]:
    """Yield what a reader has to know before trusting the figures of an attacker."""
    reason = doubt(attack)
    if reason:
        yield reason
    if attack.training and not attack.training.beyond_fixed.value > 0:
        yield "learned nothing beyond the fixed verifier on its selection patients"
    for kind, figures in attack.linkage.items():
        if figures.auc.high < 0.5:
            yield (
                f"{KINDS[kind][0].lower()} AUC clearly below 0.5: to be explained, not better than "
                "guessing"
            )


def utility_warning(evaluation: Evaluation) -> str:
    """Say so if the labels carry the utility; else an empty text."""
    control, point = labels_carry_the_utility(evaluation), operating_point(evaluation)
    if control is None or point is None:
        return ""
    return (
        f"The labels carry the utility. The control {control.method}, which is drawn from the "
        "findings that were read and from nothing else of the image, keeps a findings AUC of "
        f"{findings_of(control)}, within {SAME_UTILITY:.2f} of the operating point's "
        f"{findings_of(point)} or above. What is kept of the findings is then what the labels say; "
        "it does not show that the image was kept."
    )


def _linkage_words(evaluation: Evaluation, point: MethodFigures, kind: Linkage) -> Iterator[str]:
    worst = point.worst(kind)
    what = "its own original" if kind is Linkage.SAME_IMAGE else "another image of the same person"
    if worst is None:
        reason = evaluation.not_measurable.get(PART_OF[kind])
        because = f": {reason}" if reason else ""
        yield f"Whether an image can be linked to {what} was not measured{because}."
        return
    auc = worst.linkage[kind].auc
    found = f"in {_in_hundred(auc.value)} comparisons (AUC {auc}, {sample_words(auc.patients)})"
    if kind is Linkage.SAME_IMAGE:
        yield (
            f"The strongest, {attacker_words(worst)}, finds a redrawn image more like {what} than "
            f"like a stranger's image {found}; guessing gives 50."
        )
    else:
        yield (
            f"Where there is {what} instead of the very original, the strongest, "
            f"{attacker_words(worst)}, is right {found}."
        )
    floor = floor_of_labels(evaluation, kind)
    if isfinite(floor.value):
        yield (
            f"An attacker who sees no image and is told the labels of both, which are what is to "
            f"be kept, reaches {_in_hundred(floor.value)} (AUC {floor})."
        )
    reason = doubt(worst)
    if reason:
        yield f"This attacker is {reason}." if reason.startswith("too") else f"There is {reason}."


def _search_words(point: MethodFigures) -> Iterator[str]:
    found = worst_search(point, Linkage.SAME_IMAGE)
    if found:
        attack, search = found
        yield (
            f"Searching {search.gallery} originals, {attack.rung.value} puts the right one first "
            f"in {search.rank_1.value:.1%} of the cases; chance is {search.chance:.1%}."
        )


def _findings_words(evaluation: Evaluation, point: MethodFigures) -> Iterator[str]:
    if point.utility is None or isnan(point.utility.macro.value):
        reason = evaluation.not_measurable.get(FINDINGS)
        because = f": {reason}" if reason else ""
        yield f"What is left of the findings was not measured{because}."
        return
    before = findings_of(evaluation.originals)
    from_originals = f" from {before.value:.3f} on the originals" if isfinite(before.value) else ""
    yield (
        f"The findings AUC of a classifier that saw no redrawn image goes{from_originals} to "
        f"{point.utility.macro} (difference {signed(point.utility.difference)})."
    )


def _verdict(evaluation: Evaluation, point: MethodFigures) -> str:
    """Say in the allowed words whether linkage went down."""
    lower = [
        kind
        for kind in Linkage
        if linkage_of(point, kind).high < linkage_of(evaluation.originals, kind).value
    ]
    effect = "No reduction of linkage risk was shown."
    if lower:
        kinds = " and ".join(KINDS[kind][0].lower() for kind in lower)
        effect = f"Redrawing reduces measured linkage risk under the attacks listed ({kinds})."
    return (
        f"{effect} This is measured, not proven; the images remain personal data unless your own "
        "assessment says otherwise."
    )


def signed(estimate: Estimate) -> str:
    """Return a difference with its sign and interval."""
    if isnan(estimate.value):
        return "not measured"
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _in_hundred(value: float) -> str:
    return f"{100 * value:.0f} of 100"
