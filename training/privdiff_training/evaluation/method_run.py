"""One method of an evaluation: every attack on it, what it keeps, how it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from privdiff_training.evaluation.attack_run import AttackRun
from privdiff_training.evaluation.attacks.frozen_encoder import FrozenEncoder
from privdiff_training.evaluation.attributes import (
    Readings,
    attribute_figures,
    read_attributes,
)
from privdiff_training.evaluation.cohort_limits import AGE, EXPOSURE, SEX
from privdiff_training.evaluation.method_copies import MethodCopies
from privdiff_training.evaluation.methods.method import Method
from privdiff_training.evaluation.networks import read_findings
from privdiff_training.evaluation.plan import NOT_OF_A_GLANCE
from privdiff_training.evaluation.public_encoders import load_encoder
from privdiff_training.evaluation.quality import ClassifierEncoder, measure_quality
from privdiff_training.evaluation.reader_training import (
    TrainedReaders,
    small_reader,
    train_readers,
)
from privdiff_training.evaluation.record import (
    Attributes,
    MethodFigures,
    Plan,
    Quality,
    Subgroup,
    Utility,
)
from privdiff_training.evaluation.setting import Setting
from privdiff_training.evaluation.steps import NOT_REACHED, LegOver, ResultT, of_most_seeds
from privdiff_training.evaluation.subgroups import MIN_PATIENTS, measure_subgroups
from privdiff_training.evaluation.utility import measure_utility


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
    plan
        How thoroughly.
    """

    def __init__(
        self, setting: Setting, method: Method, nothing: MethodRun | None, plan: Plan
    ) -> None:
        self.setting = setting
        self.method = method
        self.nothing = nothing or self
        self.seed = setting.options.seed
        self.seeds = plan.seeds
        self.plan = plan
        self.copies = MethodCopies(setting, method, plan)
        self.known, self.decided_by = self.copies.known, self.copies.decided_by
        attacks_on_nothing = None if nothing is None else nothing.attacks
        self.attacks: AttackRun = AttackRun(setting, self.copies, attacks_on_nothing)

    @property
    def is_control(self) -> bool:
        """Whether this is the method that does nothing."""
        return self.nothing is self

    def first_look(self) -> None:
        """Do the steps that place a method on the plane and train no attacker."""
        self._utility()
        self.attacks.first_look()

    def figures(self) -> MethodFigures:
        """Do all steps, or read what they found.

        Raises
        ------
        LegOver
            If the time of the run is over before what is kept of the findings is measured. Other
            parts that are not reached are named in the figures.
        """
        utility = self._utility()
        attacks, failed = self.attacks.all_figures()
        late: dict[str, str] = {}

        def in_time(part: str, measure: Callable[[], ResultT], otherwise: ResultT) -> ResultT:
            try:
                return measure()
            except LegOver:
                late[part] = NOT_REACHED
                return otherwise

        figures = MethodFigures(
            method=self.method.name,
            family=self.method.family,
            setting=self.method.setting,
            told=self.method.told,
            attacks=attacks,
            not_run={},
            utility=utility,
            quality=in_time("quality", self._quality, None),
            attributes=in_time("attributes", self._attributes, None),
            subgroups=(),
            exposure=None,
        )
        return replace(
            figures,
            subgroups=in_time("subgroups", lambda: self._subgroups(figures), ()),
            exposure=in_time("exposure", lambda: self.attacks.exposure(figures), None),
            not_run={
                **self._not_of_the_plan(),
                **self.setting.not_run,
                **failed,
                **late,
                **self._too_poor(),
            },
        )

    def _utility(self) -> Utility:
        setting = self.setting
        select = setting.images["attacker_select"]
        return setting.steps.record(
            f"{self.method.name} utility",
            Utility,
            lambda: measure_utility(
                setting.test.cohort,
                _floats(setting.test.pixels),
                _floats(self.copies.test.pixels[0]),
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
        if not self.setting.plan.reader_steps:
            return f"not part of a run of size {self.setting.options.size.value}"
        if not self.plan.reader_steps:
            return NOT_OF_A_GLANCE
        train = self.known.train
        return train_readers(
            train.cohort,
            _floats(train.pixels),
            _floats(self.known.train_copies.pixels[0]),
            small_reader(self.plan.reader_steps, self.seed),
            self.setting.output / "readers",
        )

    def _quality(self) -> Quality | None:
        if self.is_control:
            return None
        setting = self.setting
        encoders = setting.options.attackers.encoders

        def measured() -> Quality:
            return measure_quality(
                _floats(setting.test.pixels),
                _floats(self.copies.test.pixels[0]),
                [ClassifierEncoder(setting.evaluators.classifier), *map(load_encoder, encoders)],
                self.seed,
                setting.lung_fields,
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

    def _not_of_the_plan(self) -> dict[str, str]:
        """Return what others of the run are measured by and this method is not."""
        left_out = {rung.value for rung in self.setting.plan.rungs - self.plan.rungs}
        if self.setting.plan.attributes and not self.plan.attributes:
            left_out.add("attributes")
        return dict.fromkeys(sorted(left_out), NOT_OF_A_GLANCE)

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

    def _attributes(self) -> Attributes | None:
        if not self._attacks_attributes:
            return None
        of_nothing = range(self.seed, self.seed + self.nothing.seeds)

        def measured(seeds: range) -> Attributes:
            return self.setting.steps.record(
                f"{self.method.name} attributes",
                Attributes,
                lambda: attribute_figures(
                    self.setting.test.cohort,
                    [self.readings(seed) for seed in seeds],
                    [self.nothing.readings(seed) for seed in of_nothing],
                    self.known.train,
                    self.seed,
                ),
                *self._decides_attributes(),
                *seeds,
                *of_nothing,
                takes_seconds=True,
            )

        return of_most_seeds(
            self.seeds, lambda count: measured(range(self.seed, self.seed + count))
        )

    def readings(self, seed: int) -> Readings:
        """Return what one seed of the attackers of sex and age reads of the test images."""

        def read() -> dict[str, np.ndarray]:
            config = self.setting.options.attackers.attributes
            return vars(read_attributes(self.known, self.copies.test, config, seed))

        name = f"{self.method.name} attributes seed {seed}"
        return Readings(**self.setting.steps.arrays(name, read, *self._decides_attributes(), seed))

    def _decides_attributes(self) -> tuple[object, ...]:
        return (*self.decided_by, self.setting.options.attackers.attributes.model_dump_json())

    def _subgroups(self, figures: MethodFigures) -> tuple[Subgroup, ...]:
        """Measure the groups under the worst attacker of the whole."""
        worst = self.attacks.worst(figures)
        if worst is None:
            return ()
        attack, seeds = worst
        test = self.setting.test.cohort

        def measured() -> tuple[Subgroup, ...]:
            scores = [matrix[:, : len(test)] for matrix in self.attacks.scores(attack, seeds)]
            copies = _floats(self.copies.test.pixels[0])
            logits = read_findings(self.setting.evaluators.classifier, copies).numpy()
            return measure_subgroups(test, scores, logits, self.seed)

        return self.setting.steps.record(
            f"{self.method.name} subgroups",
            tuple[Subgroup, ...],
            measured,
            *self.attacks.decides(attack),
            *seeds,
        )


def _floats(pixels: torch.Tensor) -> torch.Tensor:
    """Return images of 8 bits as float32 in [0, 1]."""
    return pixels.float() / 255
