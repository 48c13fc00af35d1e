"""What the answers to a reader study say, with how sure that is.

Nothing is pooled that is not independent: answers of several readers about one pair are not, so
intervals are of one reader over pairs, or of pairs that every reader called adequate. What cannot
be computed from the answers that are there is None, never a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import binomtest

CONFIDENCE = 0.95

RESAMPLES = 2000

MOST_UNDEFINED = 0.05
"""Part of the resamples whose statistic may be undefined before an interval is."""

Interval = tuple[float, float]
Ratings = Mapping[str, Mapping[int, bool]]
"""Whether each reader called each item adequate; items that they did not judge are left out."""


@dataclass(frozen=True)
class Rate:
    """How often something was adequate.

    Attributes
    ----------
    adequate, judged
        Numbers of items.
    rate
        Their ratio; None where nothing was judged.
    interval
        Clopper-Pearson, two-sided, 95 %.
    inadequacy_bound
        Upper end of the one-sided 95 % Clopper-Pearson interval of inadequacy; where nothing was
        inadequate, about 3 by the number of items (the rule of three).
    """

    adequate: int
    judged: int
    rate: float | None
    interval: Interval | None
    inadequacy_bound: float | None


@dataclass(frozen=True)
class Agreement:
    """How far readers agree on the items that all of them judged.

    Attributes
    ----------
    items
        Number of these.
    agreement
        Part of the pairs of readers and items with the same answer.
    kappa
        Cohen's for two readers, Fleiss' for more; None where all answers are the same, for then it
        is not defined.
    interval
        Of `kappa`: 95 %, percentile bootstrap over items.
    """

    items: int
    agreement: float | None
    kappa: float | None
    interval: Interval | None


@dataclass(frozen=True)
class FindingStatistics:
    """What is known of one finding.

    Attributes
    ----------
    by_reader
        How often each reader called a pair adequate.
    unanimous
        How often every reader who judged a pair called it adequate.
    pairs
        Agreement of every two readers.
    all_readers
        Agreement of all of them; None with fewer than two.
    """

    by_reader: Mapping[str, Rate]
    unanimous: Rate
    pairs: Mapping[tuple[str, str], Agreement]
    all_readers: Agreement | None


def finding_statistics(ratings: Ratings, seed: int = 0) -> FindingStatistics:
    """Return everything that the ratings of one finding say.

    Parameters
    ----------
    ratings
        By reader and item.
    seed
        Of the bootstrap.
    """
    readers = sorted(ratings)
    everyone = [
        all(ratings[reader][item] for reader in readers if item in ratings[reader])
        for item in sorted({item for answers in ratings.values() for item in answers})
    ]
    return FindingStatistics(
        {reader: adequacy(list(ratings[reader].values())) for reader in readers},
        adequacy(everyone),
        {
            (one, other): agreement(table({one: ratings[one], other: ratings[other]}), seed)
            for one, other in combinations(readers, 2)
        },
        agreement(table(ratings), seed) if len(readers) > 1 else None,
    )


def adequacy(answers: Sequence[bool]) -> Rate:
    """Return how often independent answers were adequate.

    Examples
    --------
    >>> rate = adequacy([True] * 50)
    >>> rate.rate, round(rate.inadequacy_bound, 3)
    (1.0, 0.058)
    """
    judged, adequate = len(answers), sum(answers)
    if not judged:
        return Rate(0, 0, None, None, None)
    two_sided = binomtest(adequate, judged).proportion_ci(CONFIDENCE, method="exact")
    one_sided = binomtest(judged - adequate, judged, alternative="less").proportion_ci(
        CONFIDENCE, method="exact"
    )
    return Rate(
        adequate,
        judged,
        adequate / judged,
        (float(two_sided.low), float(two_sided.high)),
        float(one_sided.high),
    )


def table(ratings: Ratings) -> np.ndarray:
    """Return a boolean array of shape (items, readers) of the items that all readers judged."""
    common = sorted(set.intersection(*(set(answers) for answers in ratings.values())))
    rows = [[answers[item] for answers in ratings.values()] for item in common]
    return np.array(rows, dtype=bool).reshape(len(common), len(ratings))


def agreement(answers: np.ndarray, seed: int = 0) -> Agreement:
    """Return how far the columns of a table agree; see `table`."""
    items, readers = answers.shape
    if not items:
        return Agreement(0, None, None, None)
    kappa = cohen_kappa if readers == 2 else fleiss_kappa
    value = float(kappa(answers))
    return Agreement(
        items,
        float(_pairwise_agreement(answers).mean()),
        None if np.isnan(value) else value,
        bootstrap_interval(answers, kappa, seed),
    )


def cohen_kappa(answers: np.ndarray) -> np.ndarray:
    """Return Cohen's kappa of two readers; NaN where every answer is the same.

    Parameters
    ----------
    answers
        Shape (..., items, 2), boolean.

    Examples
    --------
    >>> float(cohen_kappa(np.array([[1, 1], [0, 0], [1, 0], [0, 1]], bool)))
    0.0
    """
    share = answers.mean(axis=-2)  # (..., 2)
    expected = share.prod(axis=-1) + (1 - share).prod(axis=-1)
    return _above_chance(answers, expected)


def fleiss_kappa(answers: np.ndarray) -> np.ndarray:
    """Return Fleiss' kappa of all readers (Fleiss 1971); NaN where every answer is the same.

    Parameters
    ----------
    answers
        Shape (..., items, readers), boolean.
    """
    share = answers.mean(axis=(-2, -1))
    return _above_chance(answers, share**2 + (1 - share) ** 2)


def bootstrap_interval(
    answers: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> Interval | None:
    """Return the 95 % percentile interval of a statistic over resampled items.

    None where the statistic is undefined for the answers, or for too many resamples: an interval
    over the rest would look narrower than it is.
    """
    if np.isnan(statistic(answers)):
        return None
    draws = np.random.default_rng(seed).integers(0, len(answers), (RESAMPLES, len(answers)))
    values = statistic(answers[draws])  # (resamples, items, readers) -> (resamples,)
    if np.isnan(values).mean() > MOST_UNDEFINED:
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _above_chance(answers: np.ndarray, expected: np.ndarray) -> np.ndarray:
    observed = _pairwise_agreement(answers).mean(axis=-1)
    with np.errstate(invalid="ignore"):  # 0 / 0: every answer is the same
        return np.asarray((observed - expected) / (1 - expected))


def _pairwise_agreement(answers: np.ndarray) -> np.ndarray:
    """Return, for every item, the part of the pairs of readers that agree."""
    readers = answers.shape[-1]
    yes = answers.sum(axis=-1)
    no = readers - yes
    return np.asarray((yes * (yes - 1) + no * (no - 1)) / (readers * (readers - 1)))
