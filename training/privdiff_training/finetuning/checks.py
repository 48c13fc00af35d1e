"""What is wrong with a cohort, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from privdiff_infer.errors import ImageError
from privdiff_infer.model.critics import RadiographReader
from privdiff_infer.vocabulary import FINDINGS, FindingState
from privdiff_training.cohort import Cohort, CohortImage, crossing_patients
from privdiff_training.evaluation.copies import BATCH, pixel_vectors
from privdiff_training.evaluation.findings import MIN_POSITIVES
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial
from privdiff_training.finetuning.config import SplitConfig
from privdiff_training.finetuning.roles import Role, assign_roles, largest_dataset, patients
from privdiff_training.images import read_grid

NEAR_DUPLICATE = 0.12
"""Root mean square distance of standardised pixels: a correlation above 0.993. Two radiographs of
one person that were taken one after the other are at 0.2 and more."""

FRONTAL_VIEWS = frozenset({"", "AP", "PA"})
FEW_TEST_PATIENTS = 20
LEAST_JUDGES = 2


class Effect(str, Enum):
    """What follows from a problem."""

    REFUSED = "refused"
    LEFT_OUT = "left out"
    WARNING = "warning"


@dataclass(frozen=True)
class Problem:
    """One kind of problem of a cohort.

    Attributes
    ----------
    title, remedy
        What it is and what can be done; no name of a patient or file.
    effect
        What follows.
    images
        Names of the images that have it, as the manifest writes them. Private.
    """

    title: str
    effect: Effect
    remedy: str
    images: tuple[str, ...] = ()


Found = tuple[Problem, set[int]]
"""A problem and the rows that are left out for it."""


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
    rows, grids, unreadable = _read(chosen, size)
    found = [
        *_lateral(rows),
        *_inverted_or_turned(rows, grids, reader, frontal_logit),
        *_duplicates(rows, grids),
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
            "nothing, or name other splits under `split`",
        )


def _crossing(cohort: Cohort) -> Iterator[Problem]:
    crossing = crossing_patients(cohort.rows)
    if crossing:
        yield Problem(
            f"{len(crossing)} patients have images in more than one split",
            Effect.REFUSED,
            "give all images of a patient the same split: a model that trained on a patient cannot "
            "be measured on this patient",
            _names([row for row in cohort if (row.dataset, row.patient_id) in crossing]),
        )


def _read(cohort: Cohort, size: int) -> tuple[list[CohortImage], Tensor, list[Problem]]:
    """Return the rows that can be read, their pixels (n, s, s), and what is wrong with others."""

    def read(row: CohortImage) -> np.ndarray | ImageError:
        try:
            return read_grid(cohort.root / row.image, size)
        except ImageError as error:
            return error

    with ThreadPoolExecutor() as pool:
        looked = list(track(pool.map(read, cohort), "Looking at images", total=len(cohort)))
    rows, pixels = [], []
    failed: dict[tuple[str, str], list[CohortImage]] = {}
    for row, result in zip(cohort, looked, strict=True):
        if isinstance(result, ImageError):
            failed.setdefault((result.problem, result.remedy), []).append(row)
        else:
            rows.append(row)
            pixels.append(result)
    problems = [
        Problem(problem, Effect.LEFT_OUT, remedy, _names(of_rows))
        for (problem, remedy), of_rows in failed.items()
    ]
    grids = np.stack(pixels) if pixels else np.empty((0, size, size), np.uint8)
    return rows, torch.from_numpy(grids), problems


def _lateral(rows: Sequence[CohortImage]) -> Iterator[Found]:
    lateral = {
        index for index, row in enumerate(rows) if (row.view or "").upper() not in FRONTAL_VIEWS
    }
    if lateral:
        yield (
            Problem(
                "the manifest says that the view is not frontal",
                Effect.LEFT_OUT,
                "nothing: the model draws frontal radiographs only",
                _names([rows[index] for index in sorted(lateral)]),
            ),
            lateral,
        )


@torch.no_grad()
def _inverted_or_turned(
    rows: Sequence[CohortImage], grids: Tensor, reader: RadiographReader, threshold: float
) -> Iterator[Found]:
    """Yield images that the reader takes for no upright frontal radiograph, inverted ones apart."""
    if not rows:
        return
    logits, of_inverses = [], []
    for part in grids.split(BATCH):
        images = part.unsqueeze(1).float() / 255
        logits.append(reader(images).frontal)
        of_inverses.append(reader(1 - images).frontal)
    plain, inverse = torch.cat(logits), torch.cat(of_inverses)
    strange = plain < threshold
    inverted = strange & (inverse > plain) & (inverse >= threshold)
    others = set((strange & ~inverted).nonzero()[:, 0].tolist())
    found = set(inverted.nonzero()[:, 0].tolist())
    if found:
        mostly = len(found) > len(rows) / 2
        yield (
            Problem(
                "the photometric sense is mixed: these images are white where the others are black",
                Effect.REFUSED if mostly else Effect.LEFT_OUT,
                "invert them, or take the DICOM files, whose headers say their sense",
                _names([rows[index] for index in sorted(found)]),
            ),
            found,
        )
    if others:
        yield (
            Problem(
                "the model's reader sees no upright frontal chest radiograph",
                Effect.LEFT_OUT,
                "look at them: lateral, turned or cut-out images do not belong into the cohort",
                _names([rows[index] for index in sorted(others)]),
            ),
            others,
        )


def _duplicates(rows: Sequence[CohortImage], grids: Tensor) -> Iterator[Found]:
    """Yield images that are (nearly) equal to one that comes before them."""
    if not len(grids):
        return
    vectors = pixel_vectors(grids.unsqueeze(1).float() / 255)
    distances = torch.cdist(vectors, vectors) / vectors.shape[1] ** 0.5
    equal: dict[int, int] = {}
    near: dict[int, int] = {}
    for late in range(1, len(rows)):
        early = int(distances[late, :late].argmin())
        if torch.equal(grids[late], grids[early]):
            equal[late] = early
        elif distances[late, early] < NEAR_DUPLICATE:
            near[late] = early
    for title, pairs in (("duplicates", equal), ("near duplicates", near)):
        if not pairs:
            continue
        foreign = sum(rows[late].unit != rows[early].unit for late, early in pairs.items())
        beyond = f", {foreign} of them another patient's" if foreign else ""
        yield (
            Problem(
                f"{title} of an earlier image: {len(pairs)}{beyond}",
                Effect.LEFT_OUT,
                "nothing, or correct the patient where it is another's: the same image in training "
                "and test would make every figure too good",
                _names([rows[index] for pair in pairs.items() for index in pair]),
            ),
            set(pairs),
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
            _names(missing),
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
                "list more patients, or change the shares or splits under `split`",
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


def _names(rows: Sequence[CohortImage]) -> tuple[str, ...]:
    return tuple(str(row.image) for row in rows)
