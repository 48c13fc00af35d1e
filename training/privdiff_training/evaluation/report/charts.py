"""The drawings of a report, as SVG that is the same for the same record."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from math import isfinite
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.record import Evaluation, FindingFigures, MethodFigures
from privdiff_training.evaluation.report.judgement import (
    findings_of,
    linkage_of,
    operating_point,
    spared_by,
)
from privdiff_training.evaluation.report.words import KINDS
from privdiff_training.evaluation.statistics import Estimate

# Okabe and Ito's colours, which people tell apart who see no red or green, then some of Tol's muted
# ones for whole runs; black is the originals'.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A3D9A",
    "#882255", "#999933", "#44AA99",
)  # fmt: skip
MARKERS = "osD^vPXph<>"
LINES = ("-", "--", "-.", ":")
FLOOR_LINES = ("-", "--", "-.", ":")
ANCHORS: Mapping[str, tuple[float, float]] = {
    "PriCheXy-Net, published": (0.577, 0.762),
    "PrivDiff-Net, published": (0.475, 0.780),
}
CHANCE = 0.5
LOWEST_RATE = 1e-3
ARROW = 0.03
"""Length on the axis of linkage."""


def plane(evaluation: Evaluation) -> str | None:
    """Draw every method by linkage of its worst attacker and kept findings, one panel a kind.

    Returns
    -------
    str or None
        Address of the picture that holds it; None if no method has both figures.
    """
    everything = (evaluation.originals, *evaluation.methods)
    if not any(_known(everything, kind) for kind in Linkage):
        return None
    with _style():
        figure = Figure(figsize=(11.5, 6.6), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, kind in zip(panels, Linkage, strict=True):
            _plane_panel(axes, evaluation, kind)
        panels[0].set_ylabel("findings: macro AUC of a fixed classifier")
        entries: dict[str, Artist] = {}
        for axes in panels:
            handles, labels = axes.get_legend_handles_labels()
            entries |= {str(label): handle for label, handle in zip(labels, handles, strict=True)}
        figure.legend(
            list(entries.values()), list(entries), loc="outside lower center", ncols=3, fontsize=9
        )
        return _address(figure)


def roc_curves(method: MethodFigures) -> str | None:
    """Draw the ROC curves of the attackers against one method, one panel a kind; None without."""
    curves = {
        kind: [
            (attack, attack.linkage[kind].roc)
            for attack in method.attacks
            if kind in attack.linkage and attack.linkage[kind].roc
        ]
        for kind in Linkage
    }
    if not any(curves.values()):
        return None
    with _style():
        figure = Figure(figsize=(11.5, 7), layout="constrained")
        for axes, (kind, drawn) in zip(figure.subplots(1, 2), curves.items(), strict=True):
            axes.set_title(KINDS[kind][0])
            rates = np.geomspace(LOWEST_RATE, 1, 50)
            axes.plot(rates, rates, color="black", linewidth=0.8, linestyle=":", label="chance")
            for number, (attack, curve) in enumerate(drawn):
                assert curve is not None  # filtered above
                axes.plot(
                    curve.false_positive_rate,
                    curve.true_positive_rate,
                    color=COLOURS[number % len(COLOURS)],
                    linestyle=LINES[number % len(LINES)],
                    label=f"{attack.rung.value} {attack.name}",
                )
            axes.set(xscale="log", xlim=(LOWEST_RATE, 1), ylim=(0, 1.02))
            axes.set_xlabel("false positive rate (log)")
            axes.set_ylabel("true positive rate")
        most = max(figure.axes, key=lambda axes: len(axes.lines))
        figure.legend(
            *most.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8
        )
        return _address(figure)


def finding_bars(findings: Sequence[FindingFigures]) -> str | None:
    """Draw the AUC of every finding on originals and copies, and what was lost and gained."""
    if not findings:
        return None
    names = [figures.finding.replace("_", " ") for figures in findings]
    rows = list(range(len(findings)))
    with _style():
        figure = Figure(figsize=(11.5, 1.8 + 0.42 * len(findings)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for shift, colour, marker, part in (
            (-0.13, "black", "o", "originals"),
            (0.13, COLOURS[0], "s", "copies"),
        ):
            estimates = [getattr(each, part) for each in findings]
            left.errorbar(
                [estimate.value for estimate in estimates],
                [row + shift for row in rows],
                xerr=_reaches(estimates),
                fmt=marker,
                color=colour,
                label="originals" if part == "originals" else "redrawn",
                capsize=2,
                markersize=5,
            )
        left.axvline(CHANCE, color="black", linewidth=0.8, linestyle=":")
        left.set(yticks=rows, yticklabels=names, xlabel="AUC of the fixed classifier")
        left.invert_yaxis()
        _changes(right, rows, findings)
        figure.legend(loc="outside lower center", ncols=4, fontsize=9)
        return _address(figure)


def _style() -> AbstractContextManager[None]:
    # The salt makes the names of parts the same in equal drawings.
    return matplotlib.rc_context(
        {"svg.hashsalt": "privdiff", "font.size": 10, "axes.grid": True, "grid.alpha": 0.3}
    )


def _changes(axes: Axes, rows: Sequence[int], findings: Sequence[FindingFigures]) -> None:
    for part, shift, colour, hatch in (
        ("lost", -0.18, COLOURS[1], ""),
        ("gained", 0.18, COLOURS[5], "//"),
    ):
        estimates = [getattr(each, part) for each in findings]
        axes.barh(
            [row + shift for row in rows],
            [estimate.value if isfinite(estimate.value) else 0 for estimate in estimates],
            height=0.34,
            color=colour,
            hatch=hatch,
            edgecolor="black",
            linewidth=0.5,
            xerr=_reaches(estimates),
            error_kw={"linewidth": 0.8, "capsize": 2},
            label=f"{part}: part of the verdicts",
        )
    axes.set(xlim=(0, 1), xlabel="lost, and gained, of the verdicts of the classifier")


def _plane_panel(axes: Axes, evaluation: Evaluation, kind: Linkage) -> None:
    name, meaning = KINDS[kind]
    axes.set_title(f"{name}: {meaning}", fontsize=10)
    axes.axvline(CHANCE, color="black", linewidth=0.8, linestyle=":", label="guessing (0.5)")
    _floors(axes, evaluation.floors.get(kind, {}))
    if kind is Linkage.FOLLOW_UP:
        for label, (link, kept) in ANCHORS.items():
            marker = "x" if label.startswith("PriCheXy") else "+"
            axes.plot(
                [link], [kept], marker, color="#7F7F7F", markersize=9, markeredgewidth=2,
                label=f"{label}: weak attackers, not comparable",
            )  # fmt: skip
    point = operating_point(evaluation)
    for number, (family, methods) in enumerate(_families(evaluation).items()):
        _curve(axes, family, methods, kind, number)
        _arrows(axes, methods, kind, point, COLOURS[number % len(COLOURS)])
    _points(axes, [evaluation.originals], kind, fmt="*", color="black", label="originals")
    if point is not None:
        axes.plot(
            [linkage_of(point, kind).value],
            [findings_of(point).value],
            "o",
            markersize=17,
            markerfacecolor="none",
            markeredgecolor="black",
            label=f"operating point ({point.method})",
        )
    axes.set_xlabel("linkage: AUC of the worst attacker")


def _floors(axes: Axes, floors: Mapping[str, Estimate]) -> None:
    for (told, floor), style in zip(floors.items(), FLOOR_LINES, strict=False):
        if isfinite(floor.value):
            axes.axvline(
                floor.value,
                color="#8a6d00",
                linewidth=1.1,
                linestyle=style,
                label=f"attacker told {told}, no pixels",
            )


def _families(evaluation: Evaluation) -> dict[str, list[MethodFigures]]:
    families = defaultdict(list)
    for method in evaluation.methods:
        families[method.family].append(method)
    return {
        family: sorted(methods, key=lambda method: _order(method.setting))
        for family, methods in families.items()
    }


def _order(setting: str) -> tuple[float, str]:
    try:
        return float(setting), setting
    except ValueError:
        return float("inf"), setting


def _curve(
    axes: Axes, family: str, methods: Sequence[MethodFigures], kind: Linkage, number: int
) -> None:
    told = {method.told for method in methods} - {"nothing"}
    _points(
        axes,
        methods,
        kind,
        fmt=MARKERS[number % len(MARKERS)] + LINES[number // len(COLOURS) % len(LINES)],
        color=COLOURS[number % len(COLOURS)],
        markerfacecolor="none" if told else None,
        label=family,
    )


def _arrows(
    axes: Axes,
    methods: Sequence[MethodFigures],
    kind: Linkage,
    point: MethodFigures | None,
    color: str,
) -> None:
    """Mark methods that link at least so well, for not all attackers met them."""
    spared = [method for method in methods if point and spared_by(method, point)]
    for link, kept in _known(spared, kind):
        axes.annotate(
            "",
            xy=(link.value + ARROW, kept.value),
            xytext=(link.value, kept.value),
            arrowprops={"arrowstyle": "->", "color": color},
        )


def _points(axes: Axes, methods: Sequence[MethodFigures], kind: Linkage, **style: Any) -> None:
    known = _known(methods, kind)
    if not known:
        return
    links, kepts = zip(*known, strict=True)
    axes.errorbar(
        [link.value for link in links],
        [kept.value for kept in kepts],
        xerr=_reaches(links),
        yerr=_reaches(kepts),
        markersize=6,
        linewidth=1.2,
        elinewidth=0.7,
        **style,
    )


def _known(methods: Sequence[MethodFigures], kind: Linkage) -> list[tuple[Estimate, Estimate]]:
    """Return linkage and findings of the methods that have both."""
    both = [(linkage_of(method, kind), findings_of(method)) for method in methods]
    return [(link, kept) for link, kept in both if isfinite(link.value) and isfinite(kept.value)]


def _reaches(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Return how far intervals reach below and above, 0 where that is not known."""
    below = [estimate.value - estimate.low for estimate in estimates]
    above = [estimate.high - estimate.value for estimate in estimates]
    # A point value can lie a little outside of the percentiles of its resamples.
    return [[max(0.0, each) if isfinite(each) else 0.0 for each in part] for part in (below, above)]


def _address(figure: Figure) -> str:
    """Return a figure as the address of an image that needs no file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
