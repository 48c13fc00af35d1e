"""The goals that were set before the test, and how the operating point stands to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from math import isfinite, isnan

from privdiff_training.evaluation.cohort_limits import (
    FINDINGS,
    FLOORS,
    FOLLOW_UP,
    PART_OF,
    SAME_IMAGE,
    SEX,
)
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.record import Evaluation, MethodFigures
from privdiff_training.evaluation.report.judgement import (
    certifying,
    findings_of,
    floor_of_labels,
    linkage_of,
    not_compared,
    operating_point,
    spared_by,
    worst_search,
)
from privdiff_training.evaluation.statistics import NOTHING, Estimate

SAME_IMAGE_GOAL = 0.60
RANK_1_GOAL = 3.0  # times chance
FOLLOW_UP_GOAL = 0.05  # above the floor of the labels
FINDINGS_GOAL = 0.02  # lost
SEX_GOAL = 0.65
TOLD_NOTHING = "nothing"


class Verdict(str, Enum):
    """Whether a goal is reached, by the point value and by its 95 % interval."""

    MET = "met"
    OPEN = "open"
    NOT_MET = "not met"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Goal:
    """One goal and how the operating point stands to it.

    `limit` and `measured` are in words; `remark` says what weakens the verdict, or is empty.
    """

    goal: str
    limit: str
    measured: str
    verdict: Verdict
    remark: str = ""


def judge(evaluation: Evaluation) -> list[Goal]:
    """Return every goal, in the order of the report."""
    point = operating_point(evaluation)
    if point is None:
        return []
    follow_up = _follow_up(point, floor_of_labels(evaluation, Linkage.FOLLOW_UP))
    of_labels = floor_of_labels(evaluation, Linkage.SAME_IMAGE)
    of_part = [
        (SAME_IMAGE, _same_image(point, of_labels)),
        *((PART_OF[kind], _rank_1(point, kind)) for kind in Linkage),
        (FOLLOW_UP if FOLLOW_UP in evaluation.not_measurable else FLOORS, follow_up),
        (FINDINGS, _findings(point)),
        (SEX, _sex(point)),
        *((PART_OF[kind], _no_better_family(evaluation, point, kind)) for kind in Linkage),
    ]
    reasons = evaluation.not_measurable
    return [
        replace(goal, remark=reasons.get(part, goal.remark))
        if goal.verdict is Verdict.NOT_MEASURED
        else goal
        for part, goal in of_part
    ]


def below(estimate: Estimate, limit: float) -> Verdict:
    """Compare with an upper limit: met if all of the interval lies within."""
    if isnan(estimate.value) or isnan(limit):
        return Verdict.NOT_MEASURED
    if estimate.value > limit:
        return Verdict.NOT_MET
    return Verdict.MET if estimate.high <= limit else Verdict.OPEN


def _same_image(point: MethodFigures, floor: Estimate) -> Goal:
    linkage = linkage_of(point, Linkage.SAME_IMAGE)
    verdict = below(linkage, SAME_IMAGE_GOAL)
    remarks = [_reach(linkage, SAME_IMAGE_GOAL, verdict)]
    if verdict is not Verdict.NOT_MEASURED and isfinite(floor.value):
        remarks.append(f"who is told the labels and sees no image has {floor}")
    remark = "; ".join(filter(None, remarks))
    return _certified(
        Goal(
            "An image cannot be linked to its own original: AUC of the worst attacker",
            f"at most {SAME_IMAGE_GOAL:.2f}",
            _words(linkage),
            verdict,
            remark,
        ),
        point,
    )


def _follow_up(point: MethodFigures, floor: Estimate) -> Goal:
    worst = point.worst(Linkage.FOLLOW_UP)
    above = worst.above_floor if worst else NOTHING
    verdict = below(above, FOLLOW_UP_GOAL)
    remarks = [_reach(above, FOLLOW_UP_GOAL, verdict)]
    if verdict is not Verdict.NOT_MEASURED:
        remarks.append(f"the AUC is {linkage_of(point, Linkage.FOLLOW_UP)}, the floor {floor}")
    return _certified(
        Goal(
            "Another image of the person tells hardly more than the labels: AUC of the worst "
            "attacker beyond that of who knows the labels alone, over the same patients",
            f"at most {FOLLOW_UP_GOAL:.2f}",
            _words(above),
            verdict,
            "; ".join(filter(None, remarks)),
        ),
        point,
    )


def _rank_1(point: MethodFigures, kind: Linkage) -> Goal:
    found = worst_search(point, kind)
    words = "its own original" if kind is Linkage.SAME_IMAGE else "another image of the person"
    goal = f"A search rarely finds {words} first: rank 1 of the worst attacker"
    if found is None:
        times = f"at most {RANK_1_GOAL:g} times chance"
        return Goal(goal, times, "not measured", Verdict.NOT_MEASURED)
    attack, search = found
    limit = RANK_1_GOAL * search.chance
    verdict = below(search.rank_1, limit)
    where = f"{attack.rung.value} among {search.gallery} originals"
    reach = _reach(search.rank_1, limit, verdict)
    return _certified(
        Goal(
            goal,
            f"at most {limit:.4f}, {RANK_1_GOAL:g} times chance",
            _words(search.rank_1),
            verdict,
            f"{where}; {reach}" if reach else where,
        ),
        point,
    )


def _findings(point: MethodFigures) -> Goal:
    difference = point.utility.difference if point.utility else NOTHING
    lost = Estimate(-difference.value, -difference.high, -difference.low, difference.patients)
    verdict = below(lost, FINDINGS_GOAL)
    return Goal(
        "The findings stay: macro AUC that is lost to the originals",
        f"at most {FINDINGS_GOAL:.2f}",
        _words(lost),
        verdict,
        _reach(lost, FINDINGS_GOAL, verdict),
    )


def _sex(point: MethodFigures) -> Goal:
    sex = _the_right_way_up(point.attributes.sex_auc if point.attributes else NOTHING)
    control = point.attributes.sex_auc_of_originals if point.attributes else NOTHING
    verdict = below(sex, SEX_GOAL)
    if verdict is Verdict.MET and not control.low > SEX_GOAL:
        verdict = Verdict.OPEN
    remarks = [_reach(sex, SEX_GOAL, verdict)] if sex.high > SEX_GOAL else []
    if verdict is not Verdict.NOT_MEASURED:
        too_weak = "" if control.low > SEX_GOAL else ", too little to certify anything"
        remarks.append(f"such an attacker reads it off originals with {_words(control)}{too_weak}")
    return Goal(
        "Sex is hard to read: AUC of an attacker that was trained anew",
        f"at most {SEX_GOAL:.2f}",
        _words(sex),
        verdict,
        "; ".join(filter(None, remarks)),
    )


def _the_right_way_up(estimate: Estimate) -> Estimate:
    """Return an AUC of the scores that are turned if it is below chance: an attacker turns them."""
    if not estimate.value < 0.5:
        return estimate
    return Estimate(1 - estimate.value, 1 - estimate.high, 1 - estimate.low, estimate.patients)


def _no_better_family(evaluation: Evaluation, point: MethodFigures, kind: Linkage) -> Goal:
    goal = (
        "No other method keeps more findings and links less: "
        f"{'same-image' if kind is Linkage.SAME_IMAGE else 'follow-up'} linkage"
    )
    own = linkage_of(point, kind), findings_of(point)
    others = {
        method.method: method
        for method in evaluation.methods
        if method.family != point.family and method.told == TOLD_NOTHING
    }
    figures = {
        name: (linkage_of(method, kind), findings_of(method)) for name, method in others.items()
    }
    compared = {name: both for name, both in figures.items() if _is_known(both)}
    if not _is_known(own) or not compared:
        return Goal(goal, "none", "not measured", Verdict.NOT_MEASURED)
    better = [name for name, (link, kept) in compared.items() if _beats(link, kept, *own)]
    beaten = [name for name in better if not spared_by(others[name], point)]
    if beaten:
        return Goal(goal, "none", _list(beaten), Verdict.NOT_MET, "by the point values")
    if better:
        remark = "by the point values; fewer attackers met them than the operating point so far"
        return Goal(goal, "none", _list(better), Verdict.OPEN, remark)
    unclear = [name for name, both in compared.items() if not _is_clearly_no_better(*both, *own)]
    number = f"none of {len(compared)}"
    remarks = [f"intervals overlap: {_list(unclear)}"] if unclear else []
    missing = len(not_compared(evaluation))
    if missing:
        what = "method or setting was" if missing == 1 else "methods or settings were"
        remarks.append(f"{missing} other {what} not measured")
    verdict = Verdict.OPEN if remarks else Verdict.MET
    return Goal(goal, "none", number, verdict, "; ".join(remarks))


def _certified(goal: Goal, point: MethodFigures) -> Goal:
    """Take back a verdict that no attacker stands for who learned from copies of this method."""
    if goal.verdict is not Verdict.MET:
        return goal
    able = certifying(point)
    if able:
        most = max(able, key=lambda attack: attack.control_above_floor.low)
        bound = f"{most.control_above_floor.low:.3f}"
        remark = (
            f"certified by {len(able)} of {len(point.attacks)} attackers; the clearest, "
            f"{most.rung.value} {most.name}, beats the floor on originals by at least {bound}"
        )
        return replace(goal, remark="; ".join(filter(None, (goal.remark, remark))))
    remark = (
        "no attacker that trained on copies learned more than the fixed verifier knows and clearly "
        "beats the floor on originals, so this certifies nothing"
        if any(attack.learned_from_copies for attack in point.attacks)
        else "no attacker that learns from copies was run, so this certifies nothing"
    )
    return replace(goal, verdict=Verdict.OPEN, remark=remark)


def _reach(estimate: Estimate, limit: float, verdict: Verdict) -> str:
    """Say where the interval contradicts the point value."""
    if verdict is Verdict.OPEN:
        return "the point value is within, its interval reaches beyond"
    if verdict is Verdict.NOT_MET and estimate.low <= limit:
        return "its interval reaches the goal"
    return ""


def _beats(link: Estimate, kept: Estimate, own_link: Estimate, own_kept: Estimate) -> bool:
    return link.value < own_link.value and kept.value > own_kept.value


def _is_clearly_no_better(
    link: Estimate, kept: Estimate, own_link: Estimate, own_kept: Estimate
) -> bool:
    """Tell whether in one direction at least the whole interval is worse than ours."""
    return link.low > own_link.high or kept.high < own_kept.low


def _is_known(estimates: Iterable[Estimate]) -> bool:
    return all(isfinite(estimate.value) for estimate in estimates)


def _words(estimate: Estimate) -> str:
    return str(estimate) if isfinite(estimate.value) else "not measured"


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
