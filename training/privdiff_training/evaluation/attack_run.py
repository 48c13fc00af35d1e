"""The attackers of one method: their training, their scores and the figures of these."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from math import inf, isfinite, nan

import numpy as np

from privdiff_infer.errors import CohortError
from privdiff_training.evaluation.attack_record import (
    NO_GROUPS,
    AttackFigures,
    Exposure,
    Rung,
    Training,
)
from privdiff_training.evaluation.attacks.attack import Attack, Copies, Originals
from privdiff_training.evaluation.attacks.metadata import Fact
from privdiff_training.evaluation.cohort_limits import PART_OF
from privdiff_training.evaluation.exposure import measure_exposure
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.linkage_figures import linkage_figures
from privdiff_training.evaluation.method_copies import MethodCopies
from privdiff_training.evaluation.record import MethodFigures
from privdiff_training.evaluation.setting import Setting
from privdiff_training.evaluation.statistics import NOTHING, Estimate
from privdiff_training.evaluation.steps import NOT_REACHED, LegOver, of_most_seeds
from privdiff_training.evaluation.verification_metrics import (
    auc_difference,
    oriented,
    seed_auc,
    verification,
)

SELECT, CURVE = "select", "curve"
"""What is kept of a training beside the scores of the test."""


class AttackRun:
    """All attacks on one method.

    Parameters
    ----------
    setting
        What all methods of the run share.
    copies
        What the method makes of the images.
    nothing
        The attacks where nothing is done, the control of every attacker; None if these are they.

    Attributes
    ----------
    attacks
        Those of the plan of the copies.
    seeds
        Of each attacker that learns.
    """

    def __init__(self, setting: Setting, copies: MethodCopies, nothing: AttackRun | None) -> None:
        self.setting = setting
        self.copies = copies
        self.plan = copies.plan
        self.is_control = nothing is None
        self.nothing = nothing or self
        self.seed = setting.options.seed
        self.seeds = copies.plan.seeds
        self.attacks = tuple(
            attack for attack in setting.attacks if attack.rung in copies.plan.rungs
        )

    def first_look(self) -> None:
        """Let all attackers look in whom no network is trained."""
        self._found([attack for attack in self._taught if not attack.is_learned])

    def all_figures(self) -> tuple[tuple[AttackFigures, ...], dict[str, str]]:
        """Return the figures of all attackers, and which of them have none, and why."""
        done, problems = self._found(self._taught)
        order = [(attack.rung, attack.name) for attack in self.attacks]
        done.sort(key=lambda figures: order.index((figures.rung, figures.name)))
        rungs = {figures.rung for figures in done}
        failed = {
            f"{attack.rung.value} {attack.name}" if attack.rung in rungs else attack.rung.value: why
            for attack, why in problems
        }
        return tuple(done), failed

    @property
    def _taught(self) -> list[Attack]:
        """Those who learn from copies; who trains a network comes last."""
        taught = [attack for attack in self.attacks if attack.learns_from_copies]
        return sorted(taught, key=lambda attack: attack.is_learned)

    @cached_property
    def _of_untaught(self) -> tuple[list[AttackFigures], list[tuple[Attack, str]]]:
        """What those find who learn from no copy, and who of them finds nothing."""
        untaught = [attack for attack in self.attacks if not attack.learns_from_copies]
        return self._tried(untaught, NOT_REACHED)

    def _found(
        self, taught: Sequence[Attack]
    ) -> tuple[list[AttackFigures], list[tuple[Attack, str]]]:
        """Return what those find who learn from no copy, then some who do, and who finds nothing.

        Of who would learn from copies of what is linked already, only what is on disk is read.
        """
        done, problems = self._of_untaught
        late = f"already linked with {self._linked:.3f}" if self._is_linked else NOT_REACHED
        of_taught, others = self._tried(taught, late)
        return [*done, *of_taught], [*problems, *others]

    @property
    def _linked(self) -> float:
        """The same-image linkage AUC that is reached by who learns from no copy."""
        return max(map(_same_image_auc, self._of_untaught[0]), default=-inf)

    @property
    def _is_linked(self) -> bool:
        """Whether that is enough, so that no attacker learns from copies any more."""
        return self.plan.enough is not None and self._linked >= self.plan.enough

    def _tried(
        self, attacks: Sequence[Attack], late: str
    ) -> tuple[list[AttackFigures], list[tuple[Attack, str]]]:
        """Return what was found, and who found nothing; `late` is why no further step begins."""
        done, problems = [], []
        for attack in attacks:
            try:
                done.append(self.figures(attack))
            except CohortError as error:
                problems.append((attack, error.problem))
            except LegOver:
                problems.append((attack, late))
        return done, problems

    def figures(self, attack: Attack) -> AttackFigures:
        """Measure one attacker against this method, with the seeds that there is time for.

        Raises
        ------
        CohortError
            If the attacker has no place against the method, or too little to learn from.
        LegOver
            If the time of the run is over before it is measured.
        """
        if attack.needs_groups and not self.copies.method.shows_groups:
            raise CohortError(NO_GROUPS, "compare a copy with the starts themselves")

        def measured(seeds: range) -> AttackFigures:
            return self.setting.steps.record(
                f"{self.copies.method.name} {attack.rung.value} {attack.name}",
                AttackFigures,
                lambda: self._attacked(attack, seeds),
                *self.decides(attack),
                *seeds,
                *self._first(self.nothing.seeds),
                sorted(self.setting.floor_scores),
                takes_seconds=True,
            )

        most = self.seeds if attack.is_learned else 1
        return of_most_seeds(most, lambda count: measured(self._first(count)))

    def scores(self, attack: Attack, seeds: range) -> list[np.ndarray]:
        """Return one matrix (test, gallery) per seed of the attacker, the right way up."""
        return [self._scores_of_seed(attack, seed)["test"] for seed in seeds]

    def exposure(self, figures: MethodFigures) -> Exposure | None:
        """Measure how the risk is spread over patients under the worst attacker of the whole."""
        worst = self.worst(figures)
        if worst is None:
            return None
        attack, seeds = worst
        test = self.setting.test.cohort

        def measured() -> Exposure | None:
            of_seeds = [self._scores_of_seed(attack, seed) for seed in seeds]
            of_copies = [
                [scores[name][:, : len(test)] for scores in of_seeds]
                for name in of_seeds[0]
                if name not in (SELECT, CURVE)
            ]
            return measure_exposure(
                test, of_copies, f"{attack.rung.value} {attack.name}", self.seed
            )

        return self.setting.steps.record(
            f"{self.copies.method.name} exposure",
            Exposure | None,
            measured,
            *self.decides(attack),
            *seeds,
            takes_seconds=True,
        )

    def worst(self, figures: MethodFigures) -> tuple[Attack, range] | None:
        """Return the attacker who links best to the same image, and its seeds."""
        worst = figures.worst(Linkage.SAME_IMAGE)
        for attack in self.attacks:
            if worst is not None and (attack.rung, attack.name) == (worst.rung, worst.name):
                return attack, self._first(len(worst.seeds))
        return None

    def decides(self, attack: Attack) -> tuple[object, ...]:
        """Return what decides the scores of an attacker beside the seed."""
        return (*self.copies.decided_by, attack.fingerprint, self.setting.others is not None)

    def _first(self, seeds: int) -> range:
        return range(self.seed, self.seed + seeds)

    def _attacked(self, attack: Attack, seeds: range) -> AttackFigures:
        test, others = self.setting.test.cohort, self._others(attack)
        kinds = [kind for kind in Linkage if PART_OF[kind] not in self.setting.not_measurable]
        scores = self.scores(attack, seeds)
        on_test = [matrix[:, : len(test)] for matrix in scores]
        of_seeds = tuple(
            {kind: seed_auc(test, matrix, kind) for kind in kinds} for matrix in on_test
        )
        above_floor = self._above_floor(on_test)
        if self.is_control:
            control = {kind: float(np.mean([each[kind] for each in of_seeds])) for kind in kinds}
            control_above_floor = above_floor
        else:
            control, control_above_floor = self._control(attack, kinds)
        return AttackFigures(
            rung=attack.rung,
            name=attack.name,
            trained_on=attack.trained_on(self.copies.known),
            seeds=of_seeds,
            linkage={
                kind: linkage_figures(
                    test, scores, kind, self.seed, None if others is None else others.cohort
                )
                for kind in kinds
            },
            on_originals=control,
            learned_from_copies=attack.learns_from_copies,
            above_floor=above_floor,
            control_above_floor=control_above_floor,
            training=self._training(attack, seeds) if attack.learns_from_copies else None,
        )

    def _control(
        self, attack: Attack, kinds: Sequence[Linkage]
    ) -> tuple[dict[Linkage, float], Estimate]:
        """Return what the attacker finds where nothing is done; NaN if it has no place there."""
        try:
            of_nothing = self.nothing.figures(attack)
        except CohortError:
            return dict.fromkeys(kinds, nan), NOTHING
        return dict(of_nothing.on_originals), of_nothing.above_floor

    def _training(self, attack: Attack, seeds: range) -> Training:
        """Return how the attacker did on the select patients, beside the fixed verifier."""
        select, fixed = self.copies.known.select, self.setting.fixed
        found = [self._scores_of_seed(attack, seed) for seed in seeds]
        scores = [each[SELECT] for each in found]

        def attacked() -> dict[str, np.ndarray]:
            linker = fixed.train(self.copies.known, self.seed)
            return {SELECT: linker(self.copies.known.select_copies, select)}

        name = f"{self.copies.method.name} fixed verifier on select patients"
        of_fixed = self.setting.steps.arrays(
            name, attacked, *self.copies.decided_by, fixed.fingerprint
        )
        kind = Linkage.SAME_IMAGE
        return Training(
            auc=verification(select.cohort, scores, kind, self.seed).auc,
            beyond_fixed=auc_difference(select.cohort, scores, [of_fixed[SELECT]], kind, self.seed),
            curves=tuple(
                tuple((int(step), float(loss)) for step, loss in each[CURVE]) for each in found
            ),
        )

    def _above_floor(self, scores: Sequence[np.ndarray]) -> Estimate:
        """Return how far the follow-up AUC lies above that of who knows the labels alone."""
        floor = self.setting.floor_scores.get(Fact.LABELS.value)
        if floor is None:
            return NOTHING
        return auc_difference(
            self.setting.test.cohort, scores, [floor], Linkage.FOLLOW_UP, self.seed
        )

    def _scores_of_seed(self, attack: Attack, seed: int) -> dict[str, np.ndarray]:
        """Return scores of the first copies, and of each further one against the test images."""
        gallery, others = self.setting.test, self._others(attack)
        if others is not None:
            gallery = gallery.joined(others)

        def attacked() -> dict[str, np.ndarray]:
            linker = attack.train(self.copies.known, seed)
            sign, found = 1.0, {}
            if attack.learns_from_copies:
                select = self.copies.known.select
                scores = linker(self.copies.known.select_copies, select)
                sign = oriented(select.cohort, scores, self.seed)
                found = {SELECT: sign * scores, CURVE: np.array(linker.curve).reshape(-1, 2)}
            first, *further = self._each_copy(attack)
            found["test"] = sign * linker(first, gallery)
            for number, copies in enumerate(further, start=1):
                found[f"copy {number}"] = sign * linker(copies, self.setting.test)
            return found

        name = f"{self.copies.method.name} {attack.rung.value} {attack.name} seed {seed}"
        spared = attack.learns_from_copies and self._is_linked
        with self.setting.steps.no_more() if spared else nullcontext():
            return self.setting.steps.arrays(name, attacked, *self.decides(attack), seed)

    def _each_copy(self, attack: Attack) -> list[Copies]:
        """Return the copies with each version in turn as the first, which most attackers take."""
        copies = self.copies.test
        turns = 1 if attack.rung is Rung.AVERAGING else len(copies.pixels)
        return [Copies(copies.cohort, copies.pixels.roll(-turn, 0)) for turn in range(turns)]

    def _others(self, attack: Attack) -> Originals | None:
        """Return further originals that are searched; none where each would have to be redrawn."""
        return None if attack.redraws_gallery else self.setting.others


def _same_image_auc(figures: AttackFigures) -> float:
    linkage = figures.linkage.get(Linkage.SAME_IMAGE)
    return linkage.auc.value if linkage and isfinite(linkage.auc.value) else -inf
