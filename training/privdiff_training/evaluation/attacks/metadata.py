"""A6: the floors. What labels, sex and age give away without a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from privdiff_infer.errors import CohortError
from privdiff_infer.vocabulary import FindingState
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import Copies, Known, Originals, Scores
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial
from privdiff_training.evaluation.methods.method import hash_of

STRANGERS = 20_000
"""Pairs of strangers that are learned from, at most."""

YEARS = 10.0
"""Beyond about this many years between two images, more years say no more."""


class Fact(str, Enum):
    """What the attacker is told of both images."""

    LABELS = "labels"
    SEX = "sex"
    AGE = "age"


@dataclass(frozen=True)
class MetadataAttack:
    """A logistic regression on how alike the facts of two images are.

    It learns from pairs of different images: what follows an image up has facts of its own, while
    the very image has the same.

    Attributes
    ----------
    facts
        Which of them are told.
    """

    facts: tuple[Fact, ...]
    rung = Rung.METADATA
    is_learned = False
    learns_from_copies = False
    redraws_gallery = False
    needs_groups = False

    @property
    def name(self) -> str:
        """The facts."""
        return (
            "all" if set(self.facts) == set(Fact) else ", ".join(each.value for each in self.facts)
        )

    @property
    def fingerprint(self) -> str:
        """Of the facts."""
        return hash_of("metadata", self.facts)

    def trained_on(self, known: Known) -> str:
        """Say whose facts."""
        return f"facts of {len(known.reference) + len(known.train)} images, no pixel"

    def train(self, known: Known, seed: int) -> Scores:
        """Fit the regression.

        Raises
        ------
        CohortError
            If nobody has two images to learn from.
        """
        cohort = known.reference.joined(known.train).cohort
        trial = LinkageTrial(cohort, Linkage.FOLLOW_UP)
        if not trial.patients:
            raise CohortError("no patient has two images to learn from", "add follow-up images")
        positive = np.concatenate(trial.pairs_of_patient)
        weights = np.concatenate(  # every patient weighs the same
            [np.full(len(pairs), 1 / len(pairs)) for pairs in trial.pairs_of_patient]
        )
        strangers = np.argwhere(trial.negative)
        rng = np.random.default_rng(seed)
        strangers = rng.permutation(strangers)[:STRANGERS]
        pairs = np.concatenate((positive, strangers))
        pairs[:, 0] = trial.queries[pairs[:, 0]]
        same = np.arange(len(pairs)) < len(positive)
        weight_of_pair = np.append(
            weights, np.full(len(strangers), trial.patients / len(strangers))
        )
        features = np.stack(
            [table[tuple(pairs.T)] for table in _alike(self.facts, cohort, cohort)], axis=1
        )
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(features, same, logisticregression__sample_weight=weight_of_pair)

        def link(queries: Copies, gallery: Originals) -> np.ndarray:
            tables = np.stack(_alike(self.facts, queries.cohort, gallery.cohort), axis=-1)
            scores = model.decision_function(tables.reshape(-1, tables.shape[-1]))
            return np.asarray(scores, float).reshape(tables.shape[:2])

        return Scores(link)


def floors(facts: Sequence[Fact] = tuple(Fact)) -> tuple[MetadataAttack, ...]:
    """Return the attackers who are told one of the facts each, and the one who is told all three.

    Without one of them nobody is told all.
    """
    alone = tuple(MetadataAttack((fact,)) for fact in facts)
    return (*alone, MetadataAttack(tuple(Fact))) if set(facts) == set(Fact) else alone


def known_facts(cohort: Cohort) -> tuple[Fact, ...]:
    """Return the facts that any image tells; a floor of others would be chance by default."""
    known = {
        Fact.LABELS: any(
            state is not FindingState.UNKNOWN for row in cohort for state in row.findings
        ),
        Fact.SEX: any(row.sex is not None for row in cohort),
        Fact.AGE: any(row.age_years is not None for row in cohort),
    }
    return tuple(fact for fact in Fact if known[fact])


def _alike(facts: Sequence[Fact], first: Cohort, second: Cohort) -> list[np.ndarray]:
    """Return tables (first, second) of how alike two images are in each respect.

    What is unknown of either is neither alike nor different.
    """
    tables: list[np.ndarray] = []
    if Fact.LABELS in facts:
        tables += _labels(first, second)
    if Fact.SEX in facts:
        sexes = [_known([row.sex for row in cohort]) for cohort in (first, second)]
        equal = sexes[0][:, None] == sexes[1][None, :]
        unknown = np.isnan(sexes[0])[:, None] | np.isnan(sexes[1])[None, :]
        tables.append(np.where(unknown, 0.5, equal))
    if Fact.AGE in facts:
        ages = [_known([row.age_years for row in cohort]) for cohort in (first, second)]
        years = np.abs(ages[0][:, None] - ages[1][None, :])
        tables.append(np.nan_to_num(years, nan=YEARS))
        tables.append(np.exp(-np.nan_to_num(years, nan=YEARS) / YEARS))
    return tables


def _labels(first: Cohort, second: Cohort) -> list[np.ndarray]:
    states = [
        np.array([[state is FindingState.PRESENT for state in row.findings] for row in cohort])
        for cohort in (first, second)
    ]
    both = states[0].astype(float) @ states[1].T
    either = states[0].sum(1)[:, None] + states[1].sum(1)[None, :] - both
    overlap = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return [overlap, (both == either).astype(float), both]


def _known(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in values])
