"""Areas under ROC curves and shares, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator

DRAWS = 500
INTERVAL = (2.5, 97.5)  # percentiles
NORMAL_QUANTILE = 1.959964  # of the same interval
FEW_CASES = 10
"""Cases, or cases missing to all, up to which a bootstrap of a part of patients is not trusted."""


def _number(value: object) -> object:
    return float("nan") if value is None else value


Figure = Annotated[float, BeforeValidator(_number)]
"""A number that may be NaN, for which JSON has no word: it is null there."""


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval and the number of patients behind it.

    All three numbers are NaN where the data do not suffice.
    """

    value: Figure
    low: Figure
    high: Figure
    patients: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


NOTHING = Estimate(float("nan"), float("nan"), float("nan"), 0)
"""What was not measured."""


@dataclass(frozen=True)
class Share:
    """A part of `number` independent cases, with its 95 % interval."""

    value: float
    low: float
    high: float
    number: int


def wilson(cases: Sequence[bool]) -> Share:
    """Return the part of cases that are true, with Wilson's score interval.

    Unlike a bootstrap it has a width where all cases agree.

    Examples
    --------
    >>> share = wilson([True] * 50)
    >>> share.value, round(share.low, 2), round(share.high, 2)
    (1.0, 0.93, 1.0)
    """
    number = len(cases)
    if not number:
        return Share(float("nan"), float("nan"), float("nan"), 0)
    value = sum(cases) / number
    return Share(value, *wilson_interval(value, number), number)


def wilson_interval(value: float, number: int) -> tuple[float, float]:
    """Return Wilson's score interval (95 %) of a part `value` of `number` independent cases.

    The part may be a mean over seeds or galleries, so that it counts no whole cases.
    """
    weight = NORMAL_QUANTILE**2 / number
    middle = (value + weight / 2) / (1 + weight)
    half = math.sqrt(max(0.0, value * (1 - value) * weight + weight**2 / 4)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the chance that a positive score exceeds a negative one, ties counting half.

    Examples
    --------
    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    if not len(positive) or not len(negative):
        return float("nan")
    # A bootstrap takes some ten thousand of these, of which a general routine makes minutes.
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.mean() / 2 / len(negative))


def bootstrap(
    statistic: Callable[[Sequence[int], np.random.Generator], float], patients: int, seed: int
) -> Estimate:
    """Estimate a statistic of patients with a percentile interval.

    Parameters
    ----------
    statistic
        Maps indices of patients, with repetitions, and a generator to a number or NaN.
    patients
        Number of patients.
    seed
        Of all draws; equal seeds draw equal patients, which pairs two estimates.
    """
    draws = bootstrap_draws(statistic, patients, seed)
    value = statistic(range(patients), np.random.default_rng(seed)) if patients else float("nan")
    return summarize(value, draws, patients)


def bootstrap_difference(
    new: Callable[[Sequence[int], np.random.Generator], float],
    old: Callable[[Sequence[int], np.random.Generator], float],
    patients: int,
    seed: int,
) -> Estimate:
    """Estimate new - old of two statistics over the same draws of patients and pairs."""
    draws = bootstrap_draws(new, patients, seed) - bootstrap_draws(old, patients, seed)
    value = float("nan")
    if patients:
        of_new, of_old = (
            statistic(range(patients), np.random.default_rng(seed)) for statistic in (new, old)
        )
        value = of_new - of_old
    return summarize(value, draws, patients)


def bootstrap_draws(
    statistic: Callable[[Sequence[int], np.random.Generator], float], patients: int, seed: int
) -> np.ndarray:
    """Return the statistic of `DRAWS` resamples of the patients, shape (draws,)."""
    draws = []
    for draw in range(DRAWS if patients else 0):
        rng = np.random.default_rng((seed, draw))
        draws.append(statistic(rng.integers(patients, size=patients).tolist(), rng))
    return np.array(draws)


def bootstrap_figures(
    whole: Mapping[str, float],
    resample: Callable[[np.random.Generator], Mapping[str, float]],
    patients: int,
    seed: int,
) -> dict[str, Estimate]:
    """Estimate several figures that one resample of the patients gives together.

    Parameters
    ----------
    whole
        The figures of all patients.
    resample
        Maps a generator to the same figures of patients (and seeds) that it draws.
    patients
        Number of patients behind every figure.
    seed
        Of all draws.
    """
    draws = [
        resample(np.random.default_rng((seed, draw))) for draw in range(DRAWS if patients else 0)
    ]
    return {
        name: summarize(value, np.array([draw[name] for draw in draws]), patients)
        for name, value in whole.items()
    }


def summarize(value: float, draws: np.ndarray, patients: int) -> Estimate:
    """Return an estimate from a value and its resamples; NaN resamples are left out."""
    kept = draws[np.isfinite(draws)]
    low, high = np.percentile(kept, INTERVAL) if len(kept) else (float("nan"),) * 2
    return Estimate(value, float(low), float(high), patients)


def of_patients(share: Estimate) -> Estimate:
    """Widen the interval of a part of the patients where it rests on few of them, or all but few.

    A bootstrap has no width where all patients agree, and too little where few do not: the interval
    then reaches as far as Wilson's over patients at least.
    """
    cases = share.value * share.patients
    if not math.isfinite(cases) or FEW_CASES <= cases <= share.patients - FEW_CASES:
        return share
    low, high = wilson_interval(share.value, share.patients)
    return replace(share, low=min(low, share.low), high=max(high, share.high))
