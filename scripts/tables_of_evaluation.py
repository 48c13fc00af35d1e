"""The tables of an evaluation for docs/results: attackers, methods and goals, in Markdown.

Run from the repository:

    PYTHONPATH=.:training python scripts/tables_of_evaluation.py docs/results/evaluation
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path

from privdiff_training.evaluation.attack_record import AttackFigures
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.record import Evaluation, MethodFigures
from privdiff_training.evaluation.report.goals import judge
from privdiff_training.evaluation.report.judgement import (
    findings_of,
    floor_of_labels,
    linkage_of,
    operating_point,
    spared_by,
)
from privdiff_training.evaluation.report.reading import read_evaluation
from privdiff_training.evaluation.statistics import Estimate

GALLERY = 100


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where report.json is")
    evaluation = read_evaluation(parser.parse_args().folder / "report.json")
    point = operating_point(evaluation)
    if point is None:
        raise SystemExit("the operating point was not measured")
    for table in (_attackers(evaluation, point), _methods(evaluation, point), _goals(evaluation)):
        print("\n".join(table), end="\n\n")


def _attackers(evaluation: Evaluation, point: MethodFigures) -> Iterator[str]:
    yield from _head(
        f"attacker of `{point.method}`",
        "seeds",
        "same-image linkage AUC",
        f"first of {GALLERY} originals",
        "follow-up linkage AUC",
    )
    for attack in point.attacks:
        yield _row(
            f"{attack.rung.value} {attack.name}",
            str(len(attack.seeds)),
            _auc(attack, Linkage.SAME_IMAGE),
            _found_first(attack),
            _auc(attack, Linkage.FOLLOW_UP),
        )
    same_image, follow_up = (_figure(floor_of_labels(evaluation, kind)) for kind in Linkage)
    yield _row("A6 floor: who is told the labels", "1", same_image, "-", follow_up)


def _methods(evaluation: Evaluation, point: MethodFigures) -> Iterator[str]:
    yield from _head(
        "method",
        "same-image linkage AUC",
        f"first of {GALLERY} originals",
        "follow-up linkage AUC",
        "findings AUC",
        "sex AUC",
        "KID x 1000",
    )
    for method in (evaluation.originals, *evaluation.methods):
        is_original = method is evaluation.originals
        found_first = max(
            (_first_of_gallery(attack) or 0.0 for attack in method.attacks), default=None
        )
        sex = method.attributes.sex_auc if method.attributes else None
        yield _row(
            f"`{method.method}`",
            "1 by definition" if is_original else _worst(method, Linkage.SAME_IMAGE, point),
            "-" if found_first is None else f"{found_first:.1%}",
            _worst(method, Linkage.FOLLOW_UP, point),
            _figure(findings_of(method)),
            _figure(sex),
            _kernel_distance(method),
        )


def _kernel_distance(method: MethodFigures) -> str:
    """Return the distance in features of the project's own classifier."""
    distances = method.quality.kernel_distance if method.quality else {}
    return next((f"{1000 * value:.0f}" for value in distances.values()), "-")


def _goals(evaluation: Evaluation) -> Iterator[str]:
    yield from _head("goal", "limit", "measured", "")
    for goal in judge(evaluation):
        yield _row(goal.goal, goal.limit, goal.measured, goal.verdict.value)


def _worst(method: MethodFigures, kind: Linkage, point: MethodFigures) -> str:
    worst = method.worst(kind)
    if worst is None:
        return "-"
    at_least = "at least " if spared_by(method, point) else ""
    return f"{at_least}{_figure(linkage_of(method, kind))} {worst.rung.value}"


def _auc(attack: AttackFigures, kind: Linkage) -> str:
    return _figure(attack.linkage[kind].auc) if kind in attack.linkage else "-"


def _found_first(attack: AttackFigures) -> str:
    first = _first_of_gallery(attack)
    return "-" if first is None else f"{first:.1%} (chance {1 / GALLERY:.1%})"


def _first_of_gallery(attack: AttackFigures) -> float | None:
    """Return how often the very original comes first among `GALLERY`."""
    searches = attack.linkage[Linkage.SAME_IMAGE].retrieval
    return next((search.rank_1.value for search in searches if search.gallery == GALLERY), None)


def _figure(estimate: Estimate | None) -> str:
    return str(estimate) if estimate is not None and isfinite(estimate.value) else "-"


def _head(*columns: str) -> Sequence[str]:
    return _row(*columns), "|" + "---|" * len(columns)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
