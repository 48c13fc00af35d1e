"""Searching originals for the person of a redrawn image: rank 1, rank 5, mAP@R.

A gallery holds the originals that are sought and strangers of their data set and view. Of a
gallery that is smaller than the cohort many are drawn, and their figures averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.attack_record import Retrieval
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial
from privdiff_training.evaluation.statistics import bootstrap_figures, of_patients

SMALL_GALLERY = 100
GALLERIES_DRAWN = 20


@dataclass(frozen=True)
class Searches:
    """Figures per patient of one matrix and one size of gallery, shape (patients,) each."""

    rank_1: np.ndarray
    rank_5: np.ndarray
    mean_average_precision: np.ndarray
    chance: float
    gallery: float


def retrieval(
    cohort: Cohort,
    scores: Sequence[np.ndarray],
    kind: Linkage,
    seed: int,
    others: Cohort | None = None,
) -> tuple[Retrieval, ...]:
    """Measure searches in 100 originals, all of the cohort's, and all with `others`.

    Parameters
    ----------
    cohort
        Query i is made from, and gallery image i is, row i.
    scores
        Shape (queries, gallery) each, one per seed of the attacker; the gallery is the cohort,
        followed by `others` where given.
    kind
        Which originals are sought.
    seed
        Of the bootstrap, the galleries and the order of equal scores.
    others
        Originals of further patients.

    Returns
    -------
    tuple of Retrieval
        By ascending size. Queries whose view has too few originals for a gallery are no part of its
        figures, whose number of patients tells so; a gallery that nobody can fill is left out.
    """
    whole = LinkageTrial(cohort, kind)
    sizes: list[tuple[LinkageTrial, int | None]] = [(whole, SMALL_GALLERY), (whole, None)]
    if others is not None:
        wide = LinkageTrial(cohort, kind, others=others)
        sizes = [(wide, SMALL_GALLERY), (whole, None), (wide, None)]
    found = []
    for everybody, size in sizes:
        trial = everybody.of_rows(everybody.gallery_sizes >= (size or 2))
        if not trial.patients:
            continue
        matrices = [matrix[:, : trial.positive.shape[1]] for matrix in scores]
        searches = [search_all(trial, matrix, size, seed) for matrix in matrices]
        found.append(_summary(searches, seed))
    return tuple(sorted(found, key=lambda each: each.gallery))


def search_all(trial: LinkageTrial, scores: np.ndarray, size: int | None, seed: int) -> Searches:
    """Search for every patient of a trial.

    Parameters
    ----------
    trial
        What is sought, and the strangers.
    scores
        Shape (queries, gallery).
    size
        Of the galleries that are drawn; None for all of the trial.
    seed
        Of galleries and of the order of equal scores.
    """
    scores = scores[trial.queries]
    rng = np.random.default_rng((seed, size or 0))
    patients = [
        np.mean([_search(trial, scores, int(row), size, rng) for row in rows], axis=0)
        for rows in trial.rows_of_patient
    ]
    rank_1, rank_5, precision, chance, gallery = np.array(patients).T
    return Searches(rank_1, rank_5, precision, float(chance.mean()), float(gallery.mean()))


def _search(
    trial: LinkageTrial, scores: np.ndarray, row: int, size: int | None, rng: np.random.Generator
) -> tuple[float, float, float, float, float]:
    """Return rank 1, rank 5, average precision, chance and size of the gallery of one row."""
    sought = scores[row, trial.positive[row]]
    strangers = scores[row, trial.negative[row]]
    count = len(strangers) if size is None else size - len(sought)
    draws = GALLERIES_DRAWN
    if count < len(strangers):
        picked = rng.random((draws, len(strangers))).argpartition(count - 1, axis=1)[:, :count]
        strangers = strangers[picked]  # (draws, count)
    above = (strangers[..., None, :] > sought[:, None]).sum(-1)
    equal = (strangers[..., None, :] == sought[:, None]).sum(-1)
    # Equal scores come in a random order, so that a constant score finds by chance alone.
    ahead = np.sort(rng.integers(0, equal + 1, size=(draws, len(sought))) + above, axis=1)
    found = np.arange(1, len(sought) + 1)  # the k-th of them stands k - 1 behind its strangers
    places = ahead + found
    precision = (found / places * (places <= len(sought))).mean(axis=1)
    gallery = count + len(sought)
    return (
        float((places[:, 0] == 1).mean()),
        float((places[:, 0] <= 5).mean()),
        float(precision.mean()),
        len(sought) / gallery,
        float(gallery),
    )


def _summary(searches: Sequence[Searches], seed: int) -> Retrieval:
    names = ("rank_1", "rank_5", "mean_average_precision")
    patients = len(searches[0].rank_1)

    def resample(rng: np.random.Generator) -> dict[str, float]:
        seeds = rng.integers(len(searches), size=len(searches))
        drawn = rng.integers(patients, size=patients)
        return {
            name: float(np.mean([getattr(searches[index], name)[drawn] for index in seeds]))
            for name in names
        }

    whole = {name: float(np.mean([getattr(each, name) for each in searches])) for name in names}
    figures = {
        name: of_patients(figure)
        for name, figure in bootstrap_figures(whole, resample, patients, seed).items()
    }
    return Retrieval(gallery=round(searches[0].gallery), chance=searches[0].chance, **figures)
