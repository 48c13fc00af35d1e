"""One method of an evaluation: every attack on it, what it keeps, how it looks."""

from __future__ import annotations

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
    Quality,
    Subgroup,
    Utility,
)
from privdiff_training.evaluation.setting import Setting
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
        self.copies = MethodCopies(setting, method)
        self.known, self.decided_by = self.copies.known, self.copies.decided_by
        attacks_on_nothing = None if nothing is None else nothing.attacks
        self.attacks: AttackRun = AttackRun(setting, self.copies, attacks_on_nothing, seeds)

    @property
    def is_control(self) -> bool:
        """Whether this is the method that does nothing."""
        return self.nothing is self

    def figures(self) -> MethodFigures:
        """Do all steps, or read what they found."""
        attacks, failed = self.attacks.all_figures()
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
            figures, subgroups=self._subgroups(figures), exposure=self.attacks.exposure(figures)
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
                _floats(self.copies.test.pixels[0]),
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
            return vars(read_attributes(self.known, self.copies.test, config, seed))

        name = f"{self.method.name} attributes seed {seed}"
        return Readings(**self.setting.steps.arrays(name, read, *self._decides_attributes(), seed))

    def _decides_attributes(self) -> tuple[object, ...]:
        return (*self.decided_by, self.setting.options.attackers.attributes.model_dump_json())

    def _subgroups(self, figures: MethodFigures) -> tuple[Subgroup, ...]:
        """Measure the groups under the worst attacker of the whole."""
        attack = self.attacks.worst(figures)
        if attack is None:
            return ()
        test = self.setting.test.cohort

        def measured() -> tuple[Subgroup, ...]:
            scores = [matrix[:, : len(test)] for matrix in self.attacks.scores(attack)]
            copies = _floats(self.copies.test.pixels[0])
            logits = read_findings(self.setting.evaluators.classifier, copies).numpy()
            return measure_subgroups(test, scores, logits, self.seed)

        return self.setting.steps.record(
            f"{self.method.name} subgroups",
            tuple[Subgroup, ...],
            measured,
            *self.attacks.decides(attack),
            *self.attacks.seeds_of(attack),
        )


def _floats(pixels: torch.Tensor) -> torch.Tensor:
    """Return images of 8 bits as float32 in [0, 1]."""
    return pixels.float() / 255
