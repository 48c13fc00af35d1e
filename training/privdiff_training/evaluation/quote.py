"""What the metadata of a bundle quotes of an evaluation."""

from __future__ import annotations

from math import isfinite

from privdiff_infer.errors import BundleError
from privdiff_infer.model.bundle import Attacked, Evaluated
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.record import Evaluation, MethodFigures
from privdiff_training.evaluation.report.goals import judge
from privdiff_training.evaluation.report.judgement import (
    floor_of_labels,
    operating_point,
    worst_search,
)
from privdiff_training.evaluation.statistics import NOTHING, Estimate


def quoted(evaluation: Evaluation) -> Evaluated:
    """Return the worst attackers, what was lost, and the verdicts.

    Raises
    ------
    BundleError
        If the operating point of the bundle was not measured.
    """
    point = operating_point(evaluation)
    if point is None:
        raise BundleError(
            f"the evaluation of {evaluation.bundle} {evaluation.version} lacks its operating point",
            "run `privdiff evaluate` again",
        )
    difference = point.utility.difference if point.utility else NOTHING
    floor = floor_of_labels(evaluation, Linkage.FOLLOW_UP).value
    return Evaluated(
        method=point.method,
        size=evaluation.size.value,
        dataset=evaluation.dataset,
        folds=evaluation.folds,
        images=evaluation.images,
        patients=evaluation.patients,
        attackers=tuple(dict.fromkeys(attack.rung.value for attack in point.attacks)),
        same_image=_attacked(point, Linkage.SAME_IMAGE),
        follow_up=_attacked(point, Linkage.FOLLOW_UP),
        follow_up_of_labels=round(floor, 3) if isfinite(floor) else None,
        findings_lost=_rounded(
            Estimate(-difference.value, -difference.high, -difference.low, difference.patients)
        ),
        sex_auc=_rounded(point.attributes.sex_auc if point.attributes else NOTHING),
        goals={goal.goal: goal.verdict.value for goal in judge(evaluation)},
    )


def _attacked(point: MethodFigures, kind: Linkage) -> Attacked | None:
    worst = point.worst(kind)
    if worst is None:
        return None
    figures = worst.linkage[kind]
    value, low, high = (
        round(end, 3) for end in (figures.auc.value, figures.auc.low, figures.auc.high)
    )
    found = worst_search(point, kind)
    search = None if found is None else found[1]
    return Attacked(
        attacker=f"{worst.rung.value} {worst.name}",
        linkage_auc=value,
        interval=(low, high),
        rank_1=None if search is None else round(search.rank_1.value, 4),
        chance=None if search is None else round(search.chance, 4),
    )


def _rounded(estimate: Estimate) -> tuple[float, float, float] | None:
    if not isfinite(estimate.value):
        return None
    return round(estimate.value, 3), round(estimate.low, 3), round(estimate.high, 3)
