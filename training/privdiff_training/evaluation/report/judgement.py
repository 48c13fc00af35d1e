"""How far the figures of an evaluation carry: the worst attacker, its control, what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import isfinite, isnan
from typing import Any

from privdiff_training.evaluation.attack_record import NO_GROUPS, AttackFigures, Retrieval, Rung
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.plan import MEMORIZATION, NOT_OF_THE_SIZE
from privdiff_training.evaluation.record import Evaluation, MethodFigures
from privdiff_training.evaluation.statistics import NOTHING, Estimate
from privdiff_training.evaluation.steps import NOT_REACHED

LABELS_FLOOR = "labels"
LABELS_TO_IMAGE = "labels to image"
SAME_UTILITY = 0.02
"""Macro AUC within which a control counts as keeping the findings as well."""

OWNERS = frozenset(
    {
        Rung.PUBLISHED_RETRAINING,
        Rung.MATCHED_RETRAINING,
        Rung.METRIC_LEARNING,
        Rung.INVERSION,
        Rung.REDRAWN_GALLERY,
        Rung.READINGS,
        Rung.STARTING_POINTS,
        Rung.TOGETHER,
    }
)
"""Attackers who have the tool: they make copies of their own, or look into it."""

NO_REASON = "no reason was recorded"


def operating_point(evaluation: Evaluation) -> MethodFigures | None:
    """Return the method that the bundle's default is; None if it was not measured."""
    names = {method.method: method for method in evaluation.methods}
    return names.get(evaluation.operating_point)


def floor_of_labels(evaluation: Evaluation, kind: Linkage) -> Estimate:
    """Return the AUC of an attacker who knows the labels alone."""
    return evaluation.floors.get(kind, {}).get(LABELS_FLOOR, NOTHING)


def doubt(attack: AttackFigures) -> str:
    """Return why an attacker certifies nothing, or an empty text.

    It has to beat the floor of the labels clearly where nothing is done: the whole interval of the
    difference, over the same patients, has to lie above 0.
    """
    if attack.rung is Rung.METADATA or attack.control_above_floor.low > 0:
        return ""
    if isnan(attack.control_above_floor.low):
        return "no control on originals, or no floor"
    patients = attack.control_above_floor.patients
    return (
        "too weak to certify anything: does not clearly beat the floor on originals, over "
        f"{patients} patient{'' if patients == 1 else 's'} with several images"
    )


def certifying(method: MethodFigures) -> list[AttackFigures]:
    """Return the attackers whose failure says something.

    They learned from copies of the method that they attack, as an intruder who owns the tool would:
    more than the fixed verifier knows, on the patients whom they stopped by. And they would know
    people if nothing were done.
    """
    return [
        attack
        for attack in method.attacks
        if attack.training and attack.training.beyond_fixed.value > 0 and not doubt(attack)
    ]


def linkage_of(method: MethodFigures, kind: Linkage) -> Estimate:
    """Return the AUC of the worst attacker; NaN if there is none."""
    worst = method.worst(kind)
    return worst.linkage[kind].auc if worst else NOTHING


def worst_owner(method: MethodFigures, kind: Linkage) -> AttackFigures | None:
    """Return the attacker with the highest AUC among those who own the tool; None without."""
    owners = tuple(attack for attack in method.attacks if attack.rung in OWNERS)
    return replace(method, attacks=owners).worst(kind)


def findings_of(method: MethodFigures) -> Estimate:
    """Return the macro AUC of the findings; NaN if it was not measured."""
    return method.utility.macro if method.utility else NOTHING


def not_compared(evaluation: Evaluation) -> list[str]:
    """Return the methods that a larger or longer run would have measured."""
    return [
        name
        for name, why in evaluation.methods_not_run.items()
        if why == NOT_REACHED or why.startswith(NOT_OF_THE_SIZE)
    ]


def spared_by(method: MethodFigures, point: MethodFigures) -> list[Rung]:
    """Return the rungs of attackers that the operating point met and a method did not, or not yet.

    The linkage of such a method is at least what was measured: the worst attacker of more is no
    weaker.
    """
    met = {(attack.rung, attack.name) for attack in method.attacks}
    missed = {
        attack.rung
        for attack in point.attacks
        if (attack.rung, attack.name) not in met
        and method.not_run.get(f"{attack.rung.value} {attack.name}") != NO_GROUPS
    }
    return sorted(missed, key=list(Rung).index)


def worst_search(method: MethodFigures, kind: Linkage) -> tuple[AttackFigures, Retrieval] | None:
    """Return the attacker and the search that find a person most often, relative to chance."""
    searches = [
        (attack, search)
        for attack in method.attacks
        if kind in attack.linkage
        for search in attack.linkage[kind].retrieval
        if isfinite(search.rank_1.value) and search.chance > 0
    ]
    return max(
        searches,
        key=lambda pair: (pair[1].rank_1.value / pair[1].chance, pair[1].gallery),
        default=None,
    )


def missing_rungs(method: MethodFigures, floors: Mapping[Linkage, Any]) -> dict[Rung, str]:
    """Return the rungs that were not run against a method, with the reason."""
    done = {attack.rung for attack in method.attacks}
    if floors:
        done.add(Rung.METADATA)
    return {rung: method.not_run.get(rung.value, NO_REASON) for rung in Rung if rung not in done}


def labels_carry_the_utility(evaluation: Evaluation) -> MethodFigures | None:
    """Return the labels-to-image control if it keeps the findings as well as what is under test."""
    point = operating_point(evaluation)
    for method in evaluation.methods:
        is_control = LABELS_TO_IMAGE in (method.family, method.method)
        if is_control and method is not point and point and point.utility and method.utility:
            if method.utility.macro.value >= point.utility.macro.value - SAME_UTILITY:
                return method
    return None


@dataclass(frozen=True)
class LeftOut:
    """What was not run of some methods for one reason.

    Attributes
    ----------
    parts
        Values of rungs, and names of other parts.
    reason
        Why.
    methods
        Names; none where no method is to blame.
    """

    parts: tuple[str, ...]
    reason: str
    methods: tuple[str, ...]


def not_run(evaluation: Evaluation) -> list[LeftOut]:
    """Return all that was not run, what the operating point lacks first."""
    point = operating_point(evaluation)
    methods = sorted(evaluation.methods, key=lambda method: method is not point)
    missing: dict[tuple[str, str], list[str]] = {}
    if evaluation.memorization is None:
        reason = point.not_run.get(MEMORIZATION, NO_REASON) if point else NO_REASON
        missing["memorization of the generator (A10)", reason] = []
    for method in methods:
        for part, reason in _missing_parts(method, evaluation.floors):
            missing.setdefault((part, reason), []).append(method.method)
    for part, reason in evaluation.not_measurable.items():
        missing[part, f"not measurable: {reason}"] = []
    for name, reason in evaluation.methods_not_run.items():
        missing.setdefault(("methods", reason), []).append(name)
    parts: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (part, reason), names in missing.items():
        parts.setdefault((reason, tuple(names)), []).append(part)
    return [LeftOut(tuple(each), reason, names) for (reason, names), each in parts.items()]


def _missing_parts(
    method: MethodFigures, floors: Mapping[Linkage, Any]
) -> Iterator[tuple[str, str]]:
    for rung, reason in missing_rungs(method, floors).items():
        yield rung.value, reason
    elsewhere = {*(rung.value for rung in Rung), MEMORIZATION}
    yield from ((part, why) for part, why in method.not_run.items() if part not in elsewhere)
    parts = {
        "utility": method.utility,
        "quality": method.quality,
        "attributes": method.attributes,
        "subgroups": method.subgroups or None,
        "exposure": method.exposure,
    }
    for part, figures in parts.items():
        if figures is None and part not in method.not_run:
            yield part, NO_REASON
