"""Whether linkage and kept findings are the same for everybody: by sex, age and view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from privdiff_infer.vocabulary import AGE_BIN_EDGES, AGE_BINS, Sex, age_bin
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.findings import FindingsTrial
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial
from privdiff_training.evaluation.record import Subgroup
from privdiff_training.evaluation.statistics import bootstrap

MIN_PATIENTS = 10
"""A smaller group is not shown: its figures say little, and may tell of single patients."""


def measure_subgroups(
    cohort: Cohort, scores: Sequence[np.ndarray], logits: np.ndarray, seed: int
) -> tuple[Subgroup, ...]:
    """Measure every group of a cohort that has enough patients.

    Parameters
    ----------
    cohort
        Row i tells of copy i and of original i.
    scores
        Of the worst attacker, one matrix per seed of it, each of shape (copies, originals); higher
        means more alike. The AUC is the mean over them.
    logits
        Of the fixed classifier on the copies, shape (copies, at least 14).
    seed
        Of the bootstraps.
    """
    linkage = LinkageTrial(cohort, Linkage.SAME_IMAGE)
    units = np.array([row.unit for row in cohort])
    return tuple(
        _subgroup(name, cohort, members, linkage, scores, logits, seed)
        for name, members in _groups(cohort)
        if len(set(units[members])) >= MIN_PATIENTS
    )


def _subgroup(
    name: str,
    cohort: Cohort,
    members: np.ndarray,
    linkage: LinkageTrial,
    scores: Sequence[np.ndarray],
    logits: np.ndarray,
    seed: int,
) -> Subgroup:
    rows = np.flatnonzero(members)
    group = Cohort(cohort.root, tuple(cohort.rows[row] for row in rows))
    trial, findings = linkage.of_queries(members), FindingsTrial(group)

    def linked(patients: Sequence[int], rng: np.random.Generator) -> float:
        return float(np.mean([trial.auc(matrix, patients, rng) for matrix in scores]))

    return Subgroup(
        group=name,
        images=len(group),
        linkage=bootstrap(linked, trial.patients, seed),
        findings=bootstrap(
            lambda patients, rng: findings.auc(logits[rows], patients), findings.patients, seed
        ),
        patients=findings.patients,
        findings_counted=len(findings.indices),
    )


def _groups(cohort: Cohort) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every group by its name and which rows are in it."""
    sexes = np.array([-1 if row.sex is None else int(row.sex) for row in cohort])
    ages = np.array([-1 if row.age_years is None else age_bin(row.age_years) for row in cohort])
    views = np.array([row.view or "" for row in cohort])
    for sex in Sex:
        yield f"sex {sex.name}", sexes == sex
    for number in range(AGE_BINS):
        yield f"age {_years(number)}", ages == number
    for view in sorted(set(views) - {""}):
        yield f"view {view}", views == view


def _years(number: int) -> str:
    """Return the years of an age bin in words.

    Examples
    --------
    >>> [_years(number) for number in (0, 1, 4)]
    ['below 18', '18 to 39', '75 and above']
    """
    if number == 0:
        return f"below {AGE_BIN_EDGES[0]}"
    if number == AGE_BINS - 1:
        return f"{AGE_BIN_EDGES[-1]} and above"
    return f"{AGE_BIN_EDGES[number - 1]} to {AGE_BIN_EDGES[number] - 1}"
