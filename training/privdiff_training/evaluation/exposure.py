"""How the risk of being found is spread over patients: a few of them, or all a little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.attack_record import Exposure
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial
from privdiff_training.evaluation.retrieval import SMALL_GALLERY, search_all
from privdiff_training.evaluation.statistics import Estimate, wilson

MIN_PATIENTS = 10
"""Of fewer patients quantiles would be those of single ones."""

QUANTILES = (0.5, 0.75, 0.9, 0.95, 1.0)
MOST_EXPOSED = 0.1
PERMUTATIONS = 200


def measure_exposure(
    cohort: Cohort, scores: Sequence[Sequence[np.ndarray]], attacker: str, seed: int
) -> Exposure | None:
    """Measure how often each patient is found first, and tell its quantiles.

    Parameters
    ----------
    cohort
        Query i is made from, and gallery image i is, row i.
    scores
        For each copy of the images one matrix per seed of the attacker, each of shape (queries,
        gallery), with gallery and queries of the cohort.
    attacker
        Its name.
    seed
        Of galleries and permutations.

    Returns
    -------
    Exposure or None
        None with fewer patients than `MIN_PATIENTS`.
    """
    everybody = LinkageTrial(cohort, Linkage.SAME_IMAGE)
    in_small_galleries = everybody.of_rows(everybody.gallery_sizes >= SMALL_GALLERY)
    few = in_small_galleries.patients < MIN_PATIENTS
    trial, size = (everybody, None) if few else (in_small_galleries, SMALL_GALLERY)
    if trial.patients < MIN_PATIENTS:
        return None
    searches = [[search_all(trial, matrix, size, seed) for matrix in of_copy] for of_copy in scores]
    # (copies, patients), each a mean over images, galleries and seeds
    found = np.array([np.mean([each.rank_1 for each in of_copy], axis=0) for of_copy in searches])
    of_patient = found.mean(0)
    rng = np.random.default_rng((seed, 1))
    by_lot = [
        _part_of_most_exposed(np.mean([rng.permutation(row) for row in found], axis=0))
        for _ in range(PERMUTATIONS)
    ]
    return Exposure(
        attacker=attacker,
        patients=trial.patients,
        copies=len(found),
        gallery=round(searches[0][0].gallery),
        chance=searches[0][0].chance,
        found={f"{q:g}": float(np.quantile(of_patient, q)) for q in QUANTILES},
        never=_share(of_patient == 0),
        always=_share(of_patient == 1),
        of_the_most_exposed=_part_of_most_exposed(of_patient),
        of_the_most_exposed_by_chance=float(np.mean(by_lot)),
        again=_again(found),
    )


def _share(patients: np.ndarray) -> Estimate:
    share = wilson(patients.tolist())
    return Estimate(share.value, share.low, share.high, share.number)


def _part_of_most_exposed(found: np.ndarray) -> float:
    """Return the part of all findings that falls to the most exposed tenth; NaN without any."""
    most = max(1, round(MOST_EXPOSED * len(found)))
    total = found.sum()
    return float(np.sort(found)[-most:].sum() / total) if total else float("nan")


def _again(found: np.ndarray) -> float | None:
    """Return how often who is found with one copy is found with another, over pairs of copies."""
    copies, total = len(found), found.sum()
    if copies < 2 or not total:
        return None
    both = found.sum(0) ** 2 - (found**2).sum(0)  # ordered pairs of different copies
    return float(both.sum() / (copies - 1) / total)
