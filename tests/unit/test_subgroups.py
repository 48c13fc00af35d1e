"""Subgroups of a toy cohort whose attacker knows the women and whose classifier knows the men."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from privdiff_training.cohort import Cohort, CohortImage
from privdiff_training.evaluation import statistics
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial
from privdiff_training.evaluation.subgroups import measure_subgroups

from privdiff_infer.vocabulary import FINDING_TOKENS, FINDINGS, FindingState, Sex

EFFUSION = FINDINGS.index("Effusion")
IMAGES = 120


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 60)


@pytest.fixture
def cohort() -> Cohort:
    return Cohort(Path(), tuple(row(number) for number in range(IMAGES)))


def row(number: int) -> CohortImage:
    """Two images a patient: women and men, of 30 years but for ten patients of 80, PA but for 8."""
    patient = number // 2
    states = [FindingState.ABSENT] * len(FINDING_TOKENS)
    if patient % 4 < 2:
        states[EFFUSION] = FindingState.PRESENT
    return CohortImage(
        Path(f"{number}.png"),
        "toy",
        f"p{patient}",
        f"p{patient}",
        tuple(states),
        Sex(patient % 2),
        80.0 if patient < 10 else 30.0,
        "AP" if number < 8 else "PA",
        "0",
    )


def test_groups_differ_where_attacker_and_classifier_do(cohort):
    women = np.array([row.sex is Sex.F for row in cohort])
    scores = np.random.default_rng(0).random((IMAGES, IMAGES))
    scores[women] = np.eye(IMAGES)[women]
    states = np.array([[int(state) for state in row.findings] for row in cohort], float)
    logits = np.where(women[:, None], 0.0, states)

    groups = {group.group: group for group in measure_subgroups(cohort, [scores], logits, seed=0)}

    assert groups["sex F"].linkage.value == 1
    assert groups["sex M"].linkage.low < 0.5 < groups["sex M"].linkage.high
    assert groups["sex F"].findings.value == 0.5
    assert groups["sex M"].findings.value == 1
    assert groups["sex M"].findings_counted == 1
    assert (groups["sex M"].images, groups["sex M"].patients) == (60, 30)


def test_groups_of_few_patients_are_not_shown(cohort):
    scores = np.eye(IMAGES)
    groups = measure_subgroups(cohort, [scores], np.zeros((IMAGES, 15)), seed=0)
    names = [group.group for group in groups]
    assert names == ["sex F", "sex M", "age 18 to 39", "age 75 and above", "view PA"]


def test_linkage_is_the_mean_over_seeds(cohort):
    exact, opposite = np.eye(IMAGES), -np.eye(IMAGES)
    groups = measure_subgroups(cohort, [exact, opposite], np.zeros((IMAGES, 15)), seed=0)
    assert {group.linkage.value for group in groups} == {0.5}


def test_queries_of_a_group_meet_the_strangers_of_all(cohort):
    whole = LinkageTrial(cohort, Linkage.SAME_IMAGE)
    women = np.array([row.sex is Sex.F for row in cohort])
    part = whole.of_queries(women)

    assert part.patients == 30
    assert whole.patients == 60
    assert part.negative[part.rows_of_patient[5][0]].sum() > women.sum()
