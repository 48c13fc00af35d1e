"""One method of an evaluation: every attack on it, what it keeps, how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from privdiff_infer.errors import CohortError
from privdiff_training.evaluation.attacks.attack import Attack, Copies, Known, Originals
from privdiff_training.evaluation.attacks.frozen_encoder import FrozenEncoder
from privdiff_training.evaluation.attacks.metadata import Fact
from privdiff_training.evaluation.attributes import (
    Readings,
    attribute_figures,
    read_attributes,
)
from privdiff_training.evaluation.cohort_limits import AGE, EXPOSURE, PART_OF, SEX
from privdiff_training.evaluation.exposure import measure_exposure
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.linkage_figures import linkage_figures
from privdiff_training.evaluation.methods.method import Method
from privdiff_training.evaluation.networks import read_findings
from privdiff_training.evaluation.public_encoders import load_encoder
from privdiff_training.evaluation.quality import ClassifierEncoder, measure_quality
from privdiff_training.evaluation.reader_training import (
    TrainedReaders,
    small_reader,
    train_readers,
)
from privdiff_training.evaluation.record import (
    AttackFigures,
    Attributes,
    Exposure,
    MethodFigures,
    Quality,
    Rung,
    Subgroup,
    Training,
    Utility,
)
from privdiff_training.evaluation.redrawn_copies import redrawn_copies
from privdiff_training.evaluation.setting import Setting
from privdiff_training.evaluation.statistics import NOTHING, Estimate
from privdiff_training.evaluation.subgroups import MIN_PATIENTS, measure_subgroups
from privdiff_training.evaluation.utility import measure_utility
from privdiff_training.evaluation.verification_metrics import (
    auc_difference,
    oriented,
    seed_auc,
    verification,
)

SELECT, CURVE = "select", "curve"
"""What is kept of a training beside the scores of the test."""

ATTACKERS_SEED = 1_000_003
"""How far the seeds of an attacker's own copies lie from those of the release."""


class MethodRun:
    """All steps of one method.

    Parameters
    ----------
    setting
        What all methods of the run share.
    method
        What makes the copies.
    nothing
        The run of the method that does nothing, the control of every attacker; None if this is it.
    seeds
        Of each attacker that learns.
    """

    def __init__(
        self, setting: Setting, method: Method, nothing: MethodRun | None, seeds: int
    ) -> None:
        self.setting = setting
        self.method = method
        self.nothing = nothing or self
        self.seed = setting.options.seed
        self.seeds = seeds
        self.plan = setting.plan
        self.decided_by = (
            method.fingerprint,
            setting.plan.versions,
            setting.plan.test_versions,
            setting.plan.gallery_versions,
        )
        images = setting.images
        self.known = Known(
            images["reference"],
            images["attacker_train"],
            images["attacker_select"],
            copy=lambda originals: self._copies(originals, self.plan.versions, self.seed),
            copy_anew=lambda originals: self._copies(
                originals, self.plan.gallery_versions, self._attackers_seed
            ),
        )

    @property
    def _attackers_seed(self) -> int:
        """Of copies that an attacker makes: another than that of what was released."""
        return self.seed + ATTACKERS_SEED

    @property
    def is_control(self) -> bool:
        """Whether this is the method that does nothing."""
        return self.nothing is self

    def figures(self) -> MethodFigures:
        """Do all steps, or read what they found."""
        attacks, failed = self._all_attacks()
        figures = MethodFigures(
            method=self.method.name,
            family=self.method.family,
            setting=self.method.setting,
            told=self.method.told,
            attacks=attacks,
            not_run={**self.setting.not_run, **failed, **self._too_poor()},
            utility=self._utility(),
            quality=None if self.is_control else self._quality(),
            attributes=self._attributes() if self._attacks_attributes else None,
            subgroups=(),
            exposure=None,
        )
        return replace(
            figures, subgroups=self._subgroups(figures), exposure=self._exposure(figures)
        )

    def _all_attacks(self) -> tuple[tuple[AttackFigures, ...], dict[str, str]]:
        """Return the figures of all attackers, and which of them had too few images, and why."""
        done, problems = [], []
        for attack in self.setting.attacks:
            try:
                done.append(self.attack_figures(attack))
            except CohortError as error:
                problems.append((attack, error.problem))
        rungs = {figures.rung for figures in done}
        failed = {
            f"{attack.rung.value} {attack.name}" if attack.rung in rungs else attack.rung.value: why
            for attack, why in problems
        }
        return tuple(done), failed

    def attack_figures(self, attack: Attack) -> AttackFigures:
        """Measure one attacker against this method."""
        return self.setting.steps.record(
            f"{self.method.name} {attack.rung.value} {attack.name}",
            AttackFigures,
            lambda: self._attacked(attack),
            *self._decides(attack),
            *self._seeds(attack),
            *self.nothing._seeds(attack),
            sorted(self.setting.floor_scores),
        )

    def _attacked(self, attack: Attack) -> AttackFigures:
        test, others = self.setting.test.cohort, self._others(attack)
        kinds = [kind for kind in Linkage if PART_OF[kind] not in self.setting.not_measurable]
        scores = self._scores(attack)
        on_test = [matrix[:, : len(test)] for matrix in scores]
        seeds = tuple({kind: seed_auc(test, matrix, kind) for kind in kinds} for matrix in on_test)
        above_floor = self._above_floor(on_test)
        if self.is_control:
            control = {kind: float(np.mean([each[kind] for each in seeds])) for kind in kinds}
            control_above_floor = above_floor
        else:
            of_nothing = self.nothing.attack_figures(attack)
            control = dict(of_nothing.on_originals)
            control_above_floor = of_nothing.above_floor
        return AttackFigures(
            rung=attack.rung,
            name=attack.name,
            trained_on=attack.trained_on(self.known),
            seeds=seeds,
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
            training=self._training(attack) if attack.learns_from_copies else None,
        )

    def _training(self, attack: Attack) -> Training:
        """Return how the attacker did on the select patients, beside the fixed verifier."""
        select, fixed = self.known.select, self.setting.fixed
        found = [self._scores_of_seed(attack, seed) for seed in self._seeds(attack)]
        scores = [each[SELECT] for each in found]

        def attacked() -> dict[str, np.ndarray]:
            linker = fixed.train(self.known, self.seed)
            return {SELECT: linker(self.known.select_copies, select)}

        name = f"{self.method.name} fixed verifier on select patients"
        of_fixed = self.setting.steps.arrays(name, attacked, *self.decided_by, fixed.fingerprint)
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

    def _scores(self, attack: Attack) -> list[np.ndarray]:
        """Return one matrix (test, gallery) per seed of the attacker, the right way up."""
        return [self._scores_of_seed(attack, seed)["test"] for seed in self._seeds(attack)]

    def _scores_of_seed(self, attack: Attack, seed: int) -> dict[str, np.ndarray]:
        """Return scores of the first copies, and of each further one against the test images."""
        gallery, others = self.setting.test, self._others(attack)
        if others is not None:
            gallery = gallery.joined(others)

        def attacked() -> dict[str, np.ndarray]:
            linker = attack.train(self.known, seed)
            sign, found = 1.0, {}
            if attack.learns_from_copies:
                select = self.known.select
                scores = linker(self.known.select_copies, select)
                sign = oriented(select.cohort, scores, self.seed)
                found = {SELECT: sign * scores, CURVE: np.array(linker.curve).reshape(-1, 2)}
            first, *further = self._each_copy(attack)
            found["test"] = sign * linker(first, gallery)
            for number, copies in enumerate(further, start=1):
                found[f"copy {number}"] = sign * linker(copies, self.setting.test)
            return found

        name = f"{self.method.name} {attack.rung.value} {attack.name} seed {seed}"
        return self.setting.steps.arrays(name, attacked, *self._decides(attack), seed)

    def _each_copy(self, attack: Attack) -> list[Copies]:
        """Return the copies with each version in turn as the first, which most attackers take."""
        copies = self._test_copies
        turns = 1 if attack.rung is Rung.AVERAGING else len(copies.pixels)
        return [Copies(copies.cohort, copies.pixels.roll(-turn, 0)) for turn in range(turns)]

    def _others(self, attack: Attack) -> Originals | None:
        """Return further originals that are searched; none where each would have to be redrawn."""
        return None if attack.redraws_gallery else self.setting.others

    def _seeds(self, attack: Attack) -> range:
        return range(self.seed, self.seed + (self.seeds if attack.is_learned else 1))

    def _decides(self, attack: Attack) -> tuple[object, ...]:
        return (*self.decided_by, attack.fingerprint, self.setting.others is not None)

    @cached_property
    def _test_copies(self) -> Copies:
        return self._copies(self.setting.test, self.plan.test_versions, self.seed)

    def _copies(self, originals: Originals, versions: int, seed: int) -> Copies:
        pixels = redrawn_copies(
            self.method,
            originals.cohort,
            originals.pixels,
            versions,
            seed,
            self.setting.options.cache_dir,
        )
        return Copies(originals.cohort, pixels)

    def _utility(self) -> Utility:
        setting = self.setting
        select = setting.images["attacker_select"]
        return setting.steps.record(
            f"{self.method.name} utility",
            Utility,
            lambda: measure_utility(
                setting.test.cohort,
                _floats(setting.test.pixels),
                _floats(self._test_copies.pixels[0]),
                setting.evaluators.classifier,
                self.seed,
                select=select.cohort,
                select_originals=_floats(select.pixels),
                trained=self._trained_readers(),
            ),
            *self.decided_by,
            self.plan.reader_steps,
        )

    def _trained_readers(self) -> TrainedReaders | str:
        if self.is_control:
            return "nothing was done to the images"
        if not self.plan.reader_steps:
            return f"not part of a run of size {self.setting.options.size.value}"
        train = self.known.train
        return train_readers(
            train.cohort,
            _floats(train.pixels),
            _floats(self.known.train_copies.pixels[0]),
            small_reader(self.plan.reader_steps, self.seed),
            self.setting.output / "readers",
        )

    def _quality(self) -> Quality:
        setting = self.setting
        encoders = setting.options.attackers.encoders

        def measured() -> Quality:
            return measure_quality(
                _floats(setting.test.pixels),
                _floats(self._test_copies.pixels[0]),
                [ClassifierEncoder(setting.evaluators.classifier), *map(load_encoder, encoders)],
                self.seed,
            )

        return setting.steps.record(
            f"{self.method.name} quality",
            Quality,
            measured,
            *self.decided_by,
            [FrozenEncoder(encoder).fingerprint for encoder in encoders],
            [encoder.name for encoder in encoders],
        )

    @property
    def _attacks_attributes(self) -> bool:
        reasons = self.setting.not_measurable
        return self.plan.attributes and not (SEX in reasons and AGE in reasons)

    def _too_poor(self) -> dict[str, str]:
        """Return the parts that the cohort is too poor for, with the reason."""
        reasons, poor = self.setting.not_measurable, {}
        if SEX in reasons and AGE in reasons:
            poor["attributes"] = f"{reasons[SEX]}; {reasons[AGE]}"
        if EXPOSURE in reasons:
            poor["exposure"] = reasons[EXPOSURE]
        if len({row.unit for row in self.setting.test.cohort}) < MIN_PATIENTS:
            poor["subgroups"] = f"no group has {MIN_PATIENTS} test patients"
        return poor

    def _attributes(self) -> Attributes:
        return self.setting.steps.record(
            f"{self.method.name} attributes",
            Attributes,
            lambda: attribute_figures(
                self.setting.test.cohort,
                self.attribute_readings(),
                self.nothing.attribute_readings(),
                self.known.train,
                self.seed,
            ),
            *self._decides_attributes(),
            *self._attribute_seeds(),
            *self.nothing._attribute_seeds(),
        )

    def attribute_readings(self) -> list[Readings]:
        """Return what each seed of the attribute attackers reads of the test images."""
        return [self._readings(seed) for seed in self._attribute_seeds()]

    def _attribute_seeds(self) -> range:
        return range(self.seed, self.seed + self.seeds)

    def _readings(self, seed: int) -> Readings:
        def read() -> dict[str, np.ndarray]:
            config = self.setting.options.attackers.attributes
            return vars(read_attributes(self.known, self._test_copies, config, seed))

        name = f"{self.method.name} attributes seed {seed}"
        return Readings(**self.setting.steps.arrays(name, read, *self._decides_attributes(), seed))

    def _decides_attributes(self) -> tuple[object, ...]:
        return (*self.decided_by, self.setting.options.attackers.attributes.model_dump_json())

    def _subgroups(self, figures: MethodFigures) -> tuple[Subgroup, ...]:
        """Measure the groups under the worst attacker of the whole."""
        attack = self._worst(figures)
        if attack is None:
            return ()
        test = self.setting.test.cohort

        def measured() -> tuple[Subgroup, ...]:
            scores = [matrix[:, : len(test)] for matrix in self._scores(attack)]
            copies = _floats(self._test_copies.pixels[0])
            logits = read_findings(self.setting.evaluators.classifier, copies).numpy()
            return measure_subgroups(test, scores, logits, self.seed)

        return self.setting.steps.record(
            f"{self.method.name} subgroups",
            tuple[Subgroup, ...],
            measured,
            *self._decides(attack),
            *self._seeds(attack),
        )

    def _exposure(self, figures: MethodFigures) -> Exposure | None:
        """Measure how the risk is spread over patients under the worst attacker of the whole."""
        attack = self._worst(figures)
        if attack is None:
            return None
        test = self.setting.test.cohort

        def measured() -> Exposure | None:
            of_seeds = [self._scores_of_seed(attack, seed) for seed in self._seeds(attack)]
            of_copies = [
                [scores[name][:, : len(test)] for scores in of_seeds]
                for name in of_seeds[0]
                if name not in (SELECT, CURVE)
            ]
            return measure_exposure(
                test, of_copies, f"{attack.rung.value} {attack.name}", self.seed
            )

        return self.setting.steps.record(
            f"{self.method.name} exposure",
            Exposure | None,
            measured,
            *self._decides(attack),
            *self._seeds(attack),
        )

    def _worst(self, figures: MethodFigures) -> Attack | None:
        """Return the attacker who links best to the same image."""
        worst = figures.worst(Linkage.SAME_IMAGE)
        for attack in self.setting.attacks:
            if worst is not None and (attack.rung, attack.name) == (worst.rung, worst.name):
                return attack
        return None


def _floats(pixels: torch.Tensor) -> torch.Tensor:
    """Return images of 8 bits as float32 in [0, 1]."""
    return pixels.float() / 255
