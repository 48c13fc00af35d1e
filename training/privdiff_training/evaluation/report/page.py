"""The page: report.json and pictures become one file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from privdiff_infer.release import write_atomically
from privdiff_training.evaluation.attack_record import AttackFigures, Rung
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.record import Evaluation, MethodFigures
from privdiff_training.evaluation.report import charts, words
from privdiff_training.evaluation.report.goals import Verdict, judge
from privdiff_training.evaluation.report.judgement import (
    findings_of,
    floor_of_labels,
    linkage_of,
    missing_rungs,
    not_run,
    operating_point,
    spared_by,
    worst_owner,
    worst_search,
)
from privdiff_training.evaluation.report.protocol import (
    exposure_words,
    protocol_words,
    size_words,
)
from privdiff_training.evaluation.report.reading import read_evaluation
from privdiff_training.evaluation.statistics import Estimate
from privdiff_training.pages import page_environment

NOT_MEASURED = "not measured"


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from ``report.json`` and, if there are any, ``pictures/*.png``.

    The page is one file that needs no other and holds nothing that the record does not: no name of
    a patient, no path, no time. Equal records give equal bytes.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    OptionError
        If the record cannot be read.
    OutputError
        If the page cannot be written.
    """
    evaluation = read_evaluation(folder / "report.json")
    pictures = sorted((folder / "pictures").glob("*.png"))
    page = folder / "report.html"
    write_atomically(page, render(evaluation, pictures))
    return page


def render(evaluation: Evaluation, pictures: Sequence[Path]) -> bytes:
    """Return the page of an evaluation; see `write_report`."""
    point = operating_point(evaluation)
    floors = {kind: floor_of_labels(evaluation, kind) for kind in Linkage}
    text = _environment().get_template("evaluation.html").render(
        evaluation=evaluation,
        point=point,
        others=[method for method in evaluation.methods if method is not point],
        kinds=list(Linkage),
        kind_words=words.KINDS,
        rungs=words.RUNGS,
        size_words=size_words(evaluation),
        protocol_words=list(protocol_words(evaluation)),
        exposure_words=exposure_words(point.exposure) if point and point.exposure else "",
        negatives_words=words.NEGATIVES,
        headline=_headline(point) if point else [],
        floors=floors,
        left_out=missing_rungs(point, evaluation.floors) if point else dict.fromkeys(Rung, ""),
        plain_words=list(words.plain_words(evaluation)),
        utility_warning=words.utility_warning(evaluation),
        goals=judge(evaluation),
        intruders=_intruders(point) if point else [],
        verdicts=Verdict,
        plane=charts.plane(evaluation),
        curves=charts.roc_curves(point) if point else None,
        bars=charts.finding_bars(point.utility.findings) if point and point.utility else None,
        not_run=not_run(evaluation),
        limits=words.LIMITS,
        anchors_remark=words.ANCHORS_REMARK,
        pictures=[(path.stem.replace("-", " ").replace("_", " "), _png(path)) for path in pictures],
        command=evaluation.command or _command(evaluation),
    )  # fmt: skip
    return text.encode()


def _intruders(point: MethodFigures) -> list[tuple[Linkage, AttackFigures]]:
    """Return the worst attacker of each kind of linkage among those who own the tool."""
    owners = [(kind, worst_owner(point, kind)) for kind in Linkage]
    return [(kind, owner) for kind, owner in owners if owner is not None]


def _headline(point: MethodFigures) -> list[dict[str, Any]]:
    """Return the worst attacker of each kind of linkage."""
    found = []
    for kind in Linkage:
        worst = point.worst(kind)
        if worst is not None:
            seeds = [seed[kind] for seed in worst.seeds if kind in seed]
            found.append({"kind": kind, "attack": worst, "seeds": seeds})
    return found


def _command(evaluation: Evaluation) -> str:
    folds = " ".join(f"--fold {fold}" for fold in evaluation.folds)
    return (
        f"privdiff evaluate --dataset {evaluation.dataset} {folds} "
        f"--size {evaluation.size.value} --seed {evaluation.seed}"
    )


def _png(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def estimate(value: Estimate | None, digits: int = 3) -> str:
    """Return a figure with its interval for a table, in one line."""
    if value is None or not isfinite(value.value):
        return NOT_MEASURED
    figures = [f"{each:.{digits}f}" for each in (value.value, value.low, value.high)]
    return _in_one_line("{} [{}, {}]".format(*figures))


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure without an interval for a table."""
    return f"{value:.{digits}f}" if value is not None and isfinite(value) else NOT_MEASURED


def signed(value: Estimate | None) -> str:
    """Return a difference with its interval for a table, in one line."""
    return NOT_MEASURED if value is None else _in_one_line(words.signed(value))


def _in_one_line(text: str) -> str:
    return Markup('<span class="figure">{}</span>').format(text)


@cache
def _environment() -> Environment:
    environment = page_environment()
    environment.filters |= {
        "estimate": estimate,
        "number": number,
        "signed": signed,
        "sentence": lambda text: f"{text[:1].upper()}{text[1:]}.",
        "sample": words.sample_words,
        "attacker": words.attacker_words,
    }
    environment.tests["known"] = lambda figure: isfinite(figure.value)
    environment.globals |= {
        "linkage_of": linkage_of,
        "findings_of": findings_of,
        "worst_search": worst_search,
        "spared_by": spared_by,
        "notes": words.attack_notes,
        "metadata_rung": Rung.METADATA,
    }
    return environment
