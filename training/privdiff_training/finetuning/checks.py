"""What is wrong with a cohort, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from privdiff_infer.model.critics import RadiographReader
from privdiff_infer.vocabulary import FINDINGS, FindingState
from privdiff_training.cohort import Cohort, crossing_patients
from privdiff_training.evaluation.findings import MIN_POSITIVES
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial
from privdiff_training.finetuning.config import SplitConfig
from privdiff_training.finetuning.image_checks import (
    duplicates,
    inverted_or_turned,
    lateral,
    read_images,
)
from privdiff_training.finetuning.problems import Effect, Problem, names_of
from privdiff_training.finetuning.roles import Role, assign_roles, largest_dataset, patients

FEW_TEST_PATIENTS = 20
LEAST_JUDGES = 2


@dataclass(frozen=True)
class CheckedCohort:
    """A cohort that was looked at.

    Attributes
    ----------
    cohort, pixels, roles
        What is used, row by row; pixels of shape (n, 1, s, s), uint8.
    problems
        What was found.
    shown
        Pixels (s, s), uint8, of images that have a problem, by name.
    """

    cohort: Cohort
    pixels: Tensor
    roles: tuple[Role, ...]
    problems: tuple[Problem, ...]
    shown: dict[str, np.ndarray]

    @property
    def is_refused(self) -> bool:
        """Whether nothing may be trained on it."""
        return any(problem.effect is Effect.REFUSED for problem in self.problems)

    def part(self, role: Role) -> Cohort:
        """Return the rows of one role."""
        return _part(self.cohort, self.roles, role)


def check_cohort(
    cohort: Cohort,
    config: SplitConfig,
    reader: RadiographReader,
    frontal_logit: float,
    size: int,
) -> CheckedCohort:
    """Read every image and look for what would spoil training or its measurement.

    Parameters
    ----------
    cohort
        As it was found.
    config
        Of the roles.
    reader, frontal_logit
        Of the bundle that is adapted: they tell upright frontal radiographs from others.
    size
        Side of the model grid in pixels.
    """
    chosen = _chosen(cohort, config)
    rows, grids, unreadable = read_images(chosen, size)
    found = [
        *lateral(rows),
        *inverted_or_turned(rows, grids, reader, frontal_logit),
        *duplicates(rows, grids),
    ]
    left_out = {row for problem, of_rows in found for row in of_rows}
    kept = [index for index in range(len(rows)) if index not in left_out]
    used = Cohort(cohort.root, tuple(rows[index] for index in kept))
    roles = tuple(assign_roles(used, config))
    problems = (
        *_crossing(cohort),
        *unreadable,
        *(problem for problem, _ in found),
        *_missing_findings(used),
        *_too_few(used, roles, config),
        *_unused(len(cohort) - len(chosen)),
    )
    named = {name for problem in problems for name in problem.images}
    shown = {
        str(row.image): grid.numpy()
        for row, grid in zip(rows, grids, strict=True)
        if str(row.image) in named
    }
    return CheckedCohort(used, grids[kept].unsqueeze(1), roles, problems, shown)


def _chosen(cohort: Cohort, config: SplitConfig) -> Cohort:
    folds = config.train_folds
    return cohort.where(
        lambda row: (
            (config.dataset is None or row.dataset == config.dataset)
            and (folds is None or row.fold in folds or row.fold in config.test_folds)
        )
    )


def _unused(number: int) -> Iterator[Problem]:
    if number:
        yield Problem(
            f"{number} images are of splits or data sets that are not used",
            Effect.LEFT_OUT,
            "nothing, or name other splits under the key split of the configuration",
        )


def _crossing(cohort: Cohort) -> Iterator[Problem]:
    crossing = crossing_patients(cohort.rows)
    if crossing:
        yield Problem(
            f"{len(crossing)} patients have images in more than one split",
            Effect.REFUSED,
            "give all images of a patient the same split: a model that trained on a patient cannot "
            "be measured on this patient",
            names_of([row for row in cohort if (row.dataset, row.patient_id) in crossing]),
        )


def _missing_findings(cohort: Cohort) -> Iterator[Problem]:
    missing = [
        row for row in cohort if all(state is FindingState.UNKNOWN for state in row.findings)
    ]
    if missing:
        yield Problem(
            f"{len(missing)} of {len(cohort)} images have no findings",
            Effect.WARNING,
            "add them; without, the model trains on those that its own reader sees, and they count "
            "for nothing in the evaluation",
            names_of(missing),
        )


def _part(cohort: Cohort, roles: Sequence[Role], role: Role) -> Cohort:
    rows = zip(cohort, roles, strict=True)
    return Cohort(cohort.root, tuple(row for row, own in rows if own is role))


def _too_few(cohort: Cohort, roles: Sequence[Role], config: SplitConfig) -> Iterator[Problem]:
    """Yield what cannot be trained or measured because there is too little of it."""
    for role, least, what in (
        (Role.TRAIN, config.least_patients, "train on"),
        (Role.JUDGE, LEAST_JUDGES, "stop the training by"),
        (Role.TEST, LEAST_JUDGES, "measure old and new on"),
    ):
        part = _part(cohort, roles, role)
        if role is not Role.TRAIN:
            part = largest_dataset(part)
        number = patients(part)
        if number < least or (role is not Role.TRAIN and _linkable(part) < least):
            yield Problem(
                f"too few patients: {number} to {what}, {least} of one view are needed",
                Effect.REFUSED,
                "list more patients, or change shares or splits under the key split of the "
                "configuration",
            )
    test = largest_dataset(_part(cohort, roles, Role.TEST))
    yield from _cannot_be_measured(test)


def _linkable(cohort: Cohort, kind: Linkage = Linkage.SAME_IMAGE) -> int:
    return LinkageTrial(cohort, kind).patients if len(cohort) else 0


def _cannot_be_measured(test: Cohort) -> Iterator[Problem]:
    if patients(test) < FEW_TEST_PATIENTS:
        yield Problem(
            f"only {patients(test)} patients measure in the end",
            Effect.WARNING,
            f"intervals will be wide: take {FEW_TEST_PATIENTS} and more",
        )
    if _linkable(test, Linkage.FOLLOW_UP) < LEAST_JUDGES:
        yield Problem(
            "no linkage to follow-up images can be measured",
            Effect.WARNING,
            "list test patients with several images",
        )
    if not any(_is_measurable(test, index) for index in range(len(FINDINGS))):
        yield Problem(
            f"no AUC of findings can be measured: none has {MIN_POSITIVES} test images with it, "
            "and others without it",
            Effect.WARNING,
            "only the agreement with what is read in the originals is told, per finding",
        )


def _is_measurable(cohort: Cohort, index: int) -> bool:
    states = [row.findings[index] for row in cohort]
    return states.count(FindingState.PRESENT) >= MIN_POSITIVES and FindingState.ABSENT in states
