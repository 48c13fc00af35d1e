"""Old and new side by side: measured on test patients, written into the bundle and onto a page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from privdiff_infer.model.bundle import BundleInfo, SideBySide
from privdiff_infer.vocabulary import FINDINGS, Profile
from privdiff_training.evaluation.attacks.attack import Originals
from privdiff_training.evaluation.compare import compare_bundles
from privdiff_training.evaluation.findings import FindingsTrial
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.evaluation.redraw import redraw
from privdiff_training.evaluation.statistics import bootstrap, bootstrap_difference
from privdiff_training.finetuning.folder import RunFolder, finite
from privdiff_training.pages import page_environment

FIGURES = ("same_image", "follow_up", "findings")
WORDS = {
    "same_image": "linkage to the very original, AUC",
    "follow_up": "linkage to another image of the person, AUC",
    "findings": "findings, macro AUC against the labels",
    "agreement": "agreement with what is read in the originals",
    "similarity": "similarity to the original under the verifier",
    "kernel_distance": "distance to real images (KID)",
}
LOWER_IS_BETTER = frozenset({"same_image", "follow_up", "similarity", "kernel_distance"})


def evaluate_side_by_side(
    base: BundleInfo,
    candidate: BundleInfo,
    test: Originals,
    evaluators: Evaluators,
    folder: RunFolder,
    seed: int,
) -> dict[str, Any]:
    """Measure both bundles on test patients of one data set; returns a record for JSON.

    Parameters
    ----------
    base, candidate
        Old and new.
    test
        Images of patients on whom nothing was trained and by whom nothing was chosen.
    evaluators
        Verifier and classifier, which are in neither bundle.
    folder
        Of the run; redrawn images are kept in its cache.
    seed
        Of sampling and bootstraps.
    """
    comparison = compare_bundles(
        base.path,
        candidate.path,
        test.cohort,
        evaluators=evaluators,
        cache_dir=folder.cache,
        seed=seed,
    )
    strength = base.metadata.operating_points[Profile.STANDARD].strength
    originals = test.pixels.float() / 255
    old, new = (
        redraw(b.path, test.cohort, originals, Profile.STANDARD, strength, seed, folder.cache)
        for b in (base, candidate)
    )
    figures: dict[str, Any] = {
        name: {
            "old": asdict(getattr(comparison.old, name)),
            "new": asdict(getattr(comparison.new, name)),
            "difference": asdict(comparison.new_minus_old[name]),
        }
        for name in FIGURES
    }
    figures["agreement"] = _agreement(test, old, new, evaluators, seed)
    for name in ("similarity", "kernel_distance"):
        figures[name] = {
            "old": {"value": getattr(comparison.old, name)},
            "new": {"value": getattr(comparison.new, name)},
        }
    record: dict[str, Any] = finite(
        {
            "profile": Profile.STANDARD.value,
            "strength": strength,
            "seed": seed,
            "images": comparison.images,
            "patients": comparison.patients,
            "findings_counted": comparison.findings_counted,
            "labels_only": asdict(comparison.labels_only),
            "originals": asdict(comparison.originals),
            "figures": figures,
            "agreement_by_finding": _by_finding(test, old, new, evaluators),
        }
    )
    return record


def _agreement(
    test: Originals, old: Tensor, new: Tensor, evaluators: Evaluators, seed: int
) -> dict[str, Any]:
    """Return the mean agreement of old and new with intervals over patients."""
    trial = FindingsTrial(test.cohort)
    of_originals = _read(test.pixels.float() / 255, evaluators)

    def statistic(images: Tensor) -> Any:
        apart = (_read(images, evaluators) - of_originals).abs().mean(1).numpy()
        return lambda patients, rng: (
            1
            - float(np.mean([apart[trial.rows_of_patient[patient]].mean() for patient in patients]))
        )

    of_old, of_new = statistic(old), statistic(new)
    return {
        "old": asdict(bootstrap(of_old, trial.patients, seed)),
        "new": asdict(bootstrap(of_new, trial.patients, seed)),
        "difference": asdict(bootstrap_difference(of_new, of_old, trial.patients, seed)),
    }


def _by_finding(
    test: Originals, old: Tensor, new: Tensor, evaluators: Evaluators
) -> dict[str, dict[str, float]]:
    """Return for each finding how well its probability agrees with that on the originals."""
    of_originals = _read(test.pixels.float() / 255, evaluators)
    agreements = [1 - (_read(i, evaluators) - of_originals).abs().mean(0) for i in (old, new)]
    return {
        name: {"old": float(agreements[0][index]), "new": float(agreements[1][index])}
        for index, name in enumerate(FINDINGS)
    }


@torch.no_grad()
def _read(images: Tensor, evaluators: Evaluators) -> Tensor:
    return evaluators.findings(images)[:, : len(FINDINGS)].sigmoid()


def side_by_side(record: dict[str, Any]) -> dict[str, SideBySide]:
    """Return the figures of a record as the metadata of a bundle holds them."""
    return {
        name: SideBySide(**{which: _interval(figure) for which, figure in figures.items()})
        for name, figures in record["figures"].items()
        if "difference" in figures
    }


def _interval(figure: dict[str, Any]) -> tuple[float, float, float] | None:
    values = tuple(figure[key] for key in ("value", "low", "high"))
    return None if None in values else values


def evaluation_page(record: dict[str, Any]) -> str:
    """Return the page of a record: figures alone, no picture and no name, for it goes along."""
    return page_environment().get_template("fine_tuning.html").render(
        record=record, words=WORDS, lower=LOWER_IS_BETTER, figure=_words
    )  # fmt: skip


def _words(figure: dict[str, Any] | None, sign: str = "") -> str:
    if figure is None or figure["value"] is None:
        return "cannot be measured here"
    text = f"{figure['value']:{sign}.3f}"
    if figure.get("low") is None:
        return text
    return f"{text} [{figure['low']:{sign}.3f}, {figure['high']:{sign}.3f}]"


def verdict(record: dict[str, Any], changed: bool) -> str:
    """Return in one sentence what was gained, as far as the intervals allow to say it."""
    if not changed:
        return (
            "Fine-tuning gained nothing on the patients who judge it: the new model is the old one."
        )
    gained, lost = [], []
    for name, figures in record["figures"].items():
        difference = figures.get("difference")
        if difference is None or difference["low"] is None:
            continue
        sign = -1 if name in LOWER_IS_BETTER else 1
        ends = sorted((sign * difference["low"], sign * difference["high"]))
        if ends[0] > 0:
            gained.append(WORDS[name])
        if ends[1] < 0:
            lost.append(WORDS[name])
    parts = [f"Better beyond chance: {'; '.join(gained) or 'nothing'}."]
    parts.append(f"Worse beyond chance: {'; '.join(lost) or 'nothing'}.")
    return " ".join(parts)
