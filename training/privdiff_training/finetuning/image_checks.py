"""Images that do not belong into a cohort: unreadable, lateral, inverted, turned, twice there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from privdiff_infer.errors import ImageError
from privdiff_infer.model.critics import RadiographReader
from privdiff_training.cohort import Cohort, CohortImage
from privdiff_training.evaluation.copies import BATCH, pixel_vectors
from privdiff_training.finetuning.problems import Effect, Found, Problem, names_of
from privdiff_training.images import read_grid

NEAR_DUPLICATE = 0.12
"""Root mean square distance of standardised pixels: a correlation above 0.993. Two radiographs of
one person that were taken one after the other are at 0.2 and more."""

FRONTAL_VIEWS = frozenset({"", "AP", "PA"})


def read_images(cohort: Cohort, size: int) -> tuple[list[CohortImage], Tensor, list[Problem]]:
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
        Problem(problem, Effect.LEFT_OUT, remedy, names_of(of_rows))
        for (problem, remedy), of_rows in failed.items()
    ]
    grids = np.stack(pixels) if pixels else np.empty((0, size, size), np.uint8)
    return rows, torch.from_numpy(grids), problems


def lateral(rows: Sequence[CohortImage]) -> Iterator[Found]:
    """Yield images of which the manifest says that they are not frontal."""
    lateral = {
        index for index, row in enumerate(rows) if (row.view or "").upper() not in FRONTAL_VIEWS
    }
    if lateral:
        yield (
            Problem(
                "the manifest says that the view is not frontal",
                Effect.LEFT_OUT,
                "nothing: the model draws frontal radiographs only",
                names_of([rows[index] for index in sorted(lateral)]),
            ),
            lateral,
        )


@torch.no_grad()
def inverted_or_turned(
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
                names_of([rows[index] for index in sorted(found)]),
            ),
            found,
        )
    if others:
        yield (
            Problem(
                "the model's reader sees no upright frontal chest radiograph",
                Effect.LEFT_OUT,
                "look at them: lateral, turned or cut-out images do not belong into the cohort",
                names_of([rows[index] for index in sorted(others)]),
            ),
            others,
        )


def duplicates(rows: Sequence[CohortImage], grids: Tensor) -> Iterator[Found]:
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
                names_of([rows[index] for pair in pairs.items() for index in pair]),
            ),
            set(pairs),
        )
