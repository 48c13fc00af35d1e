"""Figures of verification: how well scores tell pairs of one person from pairs of strangers.

Every patient counts equally: in a resample each drawn patient gives one positive pair, drawn anew;
the figure itself is the mean over all of them. Strangers count equally too, however many images
they have. One draw of patients decides both: who is drawn twice is sought twice and a stranger to
everybody else twice, and who is not drawn is neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial, Negatives
from privdiff_training.evaluation.statistics import Estimate, bootstrap_figures, of_patients

FALSE_POSITIVE_RATES = (1e-2, 1e-3)
EXPECTED_FALSE_POSITIVES = 10
"""A false positive rate is reported if the negatives allow for this many errors at it."""

SHARES = ("equal_error_rate", *(f"{rate:g}" for rate in FALSE_POSITIVE_RATES))
"""Figures that are parts of the patients."""

FIGURES = ("auc", "folded_auc", *SHARES)
PERMUTATIONS = 200


@dataclass(frozen=True)
class Verification:
    """Figures of one kind of linkage, mean over the seeds of the attacker.

    Attributes
    ----------
    auc, folded_auc, equal_error_rate
        See `record.LinkageFigures`.
    tpr_at_fpr
        By false positive rate.
    auc_by_negatives
        Against strangers of each kind; a kind without pairs is left out.
    folded_auc_of_strangers
        Mean of max(AUC, 1 - AUC) where every positive pair is swapped for a pair of strangers.
    """

    auc: Estimate
    folded_auc: Estimate
    equal_error_rate: Estimate
    tpr_at_fpr: Mapping[str, Estimate]
    auc_by_negatives: Mapping[Negatives, Estimate]
    folded_auc_of_strangers: float


def verification(
    cohort: Cohort, scores: Sequence[np.ndarray], kind: Linkage, seed: int
) -> Verification:
    """Measure the scores of one attacker.

    Parameters
    ----------
    cohort
        Query i is made from, and gallery image i is, row i.
    scores
        Shape (queries, gallery) each, one per seed of the attacker; higher means more alike.
    kind
        Which pairs are positive.
    seed
        Of the bootstrap.
    """
    pairs = [SortedPairs(LinkageTrial(cohort, kind), matrix) for matrix in scores]
    figures = _estimates(pairs, seed)
    by_negatives = {Negatives.ANY: figures["auc"]}
    for negatives in (Negatives.SAME_SEX, Negatives.SAME_SEX_AND_AGE):
        trial = LinkageTrial(cohort, kind, negatives)
        if trial.patients:
            matched = [SortedPairs(trial, matrix) for matrix in scores]
            by_negatives[negatives] = _estimates(matched, seed)["auc"]
    return Verification(
        auc=figures["auc"],
        folded_auc=figures["folded_auc"],
        equal_error_rate=figures["equal_error_rate"],
        tpr_at_fpr={
            f"{rate:g}": figures[f"{rate:g}"]
            for rate in FALSE_POSITIVE_RATES
            if pairs[0].negatives * rate >= EXPECTED_FALSE_POSITIVES
        },
        auc_by_negatives=by_negatives,
        folded_auc_of_strangers=float(
            np.mean([pair.folded_auc_of_strangers(seed) for pair in pairs])
        ),
    )


def auc_difference(
    cohort: Cohort, new: Sequence[np.ndarray], old: Sequence[np.ndarray], kind: Linkage, seed: int
) -> Estimate:
    """Return the AUC of one attacker minus that of another over the same draws of patients.

    Parameters
    ----------
    cohort, kind, seed
        See `verification`.
    new, old
        Scores of both, each one matrix per seed of the attacker.
    """
    trial = LinkageTrial(cohort, kind)
    both = [[SortedPairs(trial, matrix) for matrix in scores] for scores in (new, old)]

    def difference(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {"auc": figures[0]["auc"] - figures[1]["auc"]}

    def resample(rng: np.random.Generator) -> dict[str, float]:
        state = int(rng.integers(2**31))  # both attackers meet the same patients
        return difference([_resampled(pairs, np.random.default_rng(state)) for pairs in both])

    whole = difference([_mean([pair.whole() for pair in pairs]) for pairs in both])
    return bootstrap_figures(whole, resample, trial.patients, seed)["auc"]


def seed_auc(cohort: Cohort, scores: np.ndarray, kind: Linkage) -> float:
    """Return the AUC of one seed of an attacker, without an interval; NaN without pairs."""
    return SortedPairs(LinkageTrial(cohort, kind), scores).whole()["auc"]


def oriented(cohort: Cohort, scores: np.ndarray, seed: int) -> float:
    """Return -1 if scores on the attacker's selection patients are clearly upside down, else 1.

    Clearly: the whole interval of the same-image AUC lies below a half.
    """
    pairs = [SortedPairs(LinkageTrial(cohort, Linkage.SAME_IMAGE), scores)]
    return -1.0 if _estimates(pairs, seed)["auc"].high < 0.5 else 1.0


def _estimates(pairs: Sequence[SortedPairs], seed: int) -> dict[str, Estimate]:
    figures = bootstrap_figures(
        _mean([pair.whole() for pair in pairs]),
        lambda rng: _resampled(pairs, rng),
        pairs[0].trial.patients,
        seed,
    )
    return {
        name: of_patients(figure) if name in SHARES else figure for name, figure in figures.items()
    }


def _resampled(pairs: Sequence[SortedPairs], rng: np.random.Generator) -> dict[str, float]:
    """Return the figures of drawn patients and of drawn seeds of the attacker."""
    people = int(rng.integers(2**31))  # the same for every seed: they are no further patients
    seeds = rng.integers(len(pairs), size=len(pairs))
    return _mean([pairs[index].resample(np.random.default_rng(people)) for index in seeds])


def _mean(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([each[name] for each in figures])) for name in figures[0]}


class SortedPairs:
    """The scores of one matrix, sorted once, so that a resample costs one pass.

    Parameters
    ----------
    trial
        Which pairs are positive and negative.
    scores
        Shape (queries, gallery); higher means more alike.

    Attributes
    ----------
    negatives
        Number of pairs of strangers.
    """

    def __init__(self, trial: LinkageTrial, scores: np.ndarray) -> None:
        self.trial = trial
        self.matrix = scores = scores[trial.queries]  # a row for each row of the trial
        sizes = [len(pairs) for pairs in trial.pairs_of_patient]
        self.pairs_per_patient = np.array(sizes, int)  # their pairs follow one another
        self.first_pair = np.cumsum(self.pairs_per_patient) - self.pairs_per_patient
        pairs = np.concatenate([np.empty((0, 2), int), *trial.pairs_of_patient])
        self.row_of_pair, gallery = pairs.T
        self.positive = scores[self.row_of_pair, gallery]

        usable = np.zeros(len(scores), dtype=bool)
        usable[self.row_of_pair] = True
        self.mask = trial.negative & usable[:, None]
        self.counted = self.mask.astype(float)
        row, image = np.nonzero(self.mask)
        self.order = np.argsort(scores[row, image], kind="stable")
        self.negative = scores[row, image][self.order]
        self.row_of_negative = row[self.order]
        self.image_of_negative = image[self.order]
        self.negatives = len(row)
        self.places = _Places.of(self.positive, self.negative)

        self.units = int(trial.gallery_units.max()) + 1
        first = [trial.queries[pairs[0, 0]] for pairs in trial.pairs_of_patient]
        self.unit_of_patient = trial.gallery_units[np.array(first, int)]
        self.images_of_unit = np.bincount(trial.gallery_units, minlength=self.units)

    def whole(self) -> dict[str, float]:
        """Return all figures, every patient and pair in them."""
        shares = 1 / (self.trial.patients * self.pairs_per_patient)
        weights = np.repeat(shares, self.pairs_per_patient)
        return self._figures(weights, np.ones(self.units))

    def resample(self, rng: np.random.Generator) -> dict[str, float]:
        """Return all figures of drawn patients, one positive pair each, strangers to the rest."""
        drawn = np.bincount(rng.integers(self.units, size=self.units), minlength=self.units)
        sought = np.repeat(np.arange(self.trial.patients), drawn[self.unit_of_patient])
        if not len(sought):
            return dict.fromkeys(FIGURES, float("nan"))
        chosen = self._drawn_pairs(rng, sought)
        weights = np.bincount(chosen, minlength=len(self.positive)) / len(sought)
        return self._figures(weights, drawn.astype(float))

    def _drawn_pairs(self, rng: np.random.Generator, patients: np.ndarray) -> np.ndarray:
        """Return one positive pair of each patient."""
        places = (rng.random(len(patients)) * self.pairs_per_patient[patients]).astype(int)
        pairs: np.ndarray = self.first_pair[patients] + places
        return pairs

    def folded_auc_of_strangers(self, seed: int) -> float:
        """Return the mean max(AUC, 1 - AUC) over permuted identities: what chance alone gives."""
        if not self.negatives:
            return float("nan")
        rng = np.random.default_rng((seed, 0))
        ladder = self._ladder(
            np.full(len(self.positive), 1 / len(self.positive)), np.ones(self.units)
        )
        of_row = {row: np.flatnonzero(self.mask[row]) for row in set(self.row_of_pair)}
        folded = []
        for _ in range(PERMUTATIONS):
            rows = self.row_of_pair[self._drawn_pairs(rng, np.arange(self.trial.patients))]
            places = rng.random(len(rows))
            strangers = [
                of_row[row][int(place * len(of_row[row]))]
                for row, place in zip(rows, places, strict=True)
            ]
            swapped = self.matrix[rows, strangers]
            weights = np.full(len(swapped), 1 / len(swapped))
            area = _Curve(_Places.of(swapped, self.negative), weights, ladder).area()
            folded.append(max(area, 1 - area))
        return float(np.mean(folded))

    def _ladder(self, pair_weights: np.ndarray, unit_weights: np.ndarray) -> np.ndarray:
        """Return the running sum, from 0, of the weights of the sorted negatives.

        A row weighs as much as its positive pairs; each stranger weighs the same, shared among the
        images of that stranger.
        """
        row_weights = np.bincount(
            self.row_of_pair, weights=pair_weights, minlength=len(self.matrix)
        ).astype(float)  # without any pair numpy counts in integers
        image_weights = (unit_weights / self.images_of_unit)[self.trial.gallery_units]
        totals = self.counted @ image_weights
        shares = np.divide(row_weights, totals, out=np.zeros_like(row_weights), where=totals > 0)
        weights = shares[self.row_of_negative] * image_weights[self.image_of_negative]
        return np.concatenate(([0.0], np.cumsum(weights)))

    def _figures(self, pair_weights: np.ndarray, unit_weights: np.ndarray) -> dict[str, float]:
        ladder = self._ladder(pair_weights, unit_weights)
        if not ladder[-1]:  # of few strangers none was drawn
            return dict.fromkeys(FIGURES, float("nan"))
        curve = _Curve(self.places, pair_weights, ladder)
        area = curve.area()
        return {
            "auc": area,
            "folded_auc": max(area, 1 - area),
            "equal_error_rate": curve.equal_error_rate(),
            **{f"{rate:g}": curve.true_positive_rate(rate) for rate in FALSE_POSITIVE_RATES},
        }


@dataclass(frozen=True)
class _Places:
    """Where positive scores stand among the sorted negative ones; no weight changes that.

    Attributes
    ----------
    below, up_to
        Number of negatives below, and not above, each positive score.
    falling
        Order of the positive scores, highest first.
    last
        Whether a score, in that order, is the last of several equal ones.
    """

    below: np.ndarray
    up_to: np.ndarray
    falling: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, positive: np.ndarray, negative: np.ndarray) -> _Places:
        falling = np.argsort(-positive, kind="stable")
        ordered = positive[falling]
        return cls(
            below=np.searchsorted(negative, positive, "left"),
            up_to=np.searchsorted(negative, positive, "right"),
            falling=falling,
            last=np.append(ordered[1:] != ordered[:-1], True),
        )


class _Curve:
    """A ROC curve of weighted scores; `ladder` is the running sum of the negatives' weights."""

    def __init__(self, places: _Places, weights: np.ndarray, ladder: np.ndarray) -> None:
        self.places = places
        self.shares = weights / weights.sum()
        self.below = ladder[places.below] / ladder[-1]
        self.up_to = ladder[places.up_to] / ladder[-1]
        self.ladder = ladder

    def area(self) -> float:
        """Return the chance that a positive score exceeds a negative one, ties counting half."""
        area = float(self.shares @ (self.below + self.up_to)) / 2
        return min(area, 1.0)  # sums of many weights miss it by their last bit

    def equal_error_rate(self) -> float:
        """Return the error where misses and false alarms are equally frequent."""
        false, true = self._corners()
        gap = (1 - true) - false  # falls along the curve from 1 to -1
        corner = int(np.argmax(gap <= 0))
        part = gap[corner - 1] / (gap[corner - 1] - gap[corner])
        return float(false[corner - 1] + part * (false[corner] - false[corner - 1]))

    def true_positive_rate(self, false_positive_rate: float) -> float:
        """Return the part of positives above the threshold that lets so many negatives through."""
        # the smallest negative score that no more than this part of the negatives exceeds
        wanted = (1 - false_positive_rate) * self.ladder[-1] * (1 - 1e-12)
        threshold = int(np.searchsorted(self.ladder[1:], wanted))
        return float(self.shares[self.places.below > threshold].sum())

    def _corners(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rates of false and true positives at the positive scores, the ends included."""
        falling, last = self.places.falling, self.places.last
        above, from_here = 1 - self.up_to[falling][last], 1 - self.below[falling][last]
        accepted = np.cumsum(self.shares[falling])[last]
        before = np.concatenate(([0.0], accepted[:-1]))
        false = np.stack((above, from_here), axis=1).ravel()
        true = np.stack((before, accepted), axis=1).ravel()
        return np.concatenate(([0.0], false, [1.0])), np.concatenate(([0.0], true, [1.0]))
