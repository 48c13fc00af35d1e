"""A problem of a cohort, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from privdiff_training.cohort import CohortImage


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


def names_of(rows: Sequence[CohortImage]) -> tuple[str, ...]:
    """Return the names of images as the manifest writes them."""
    return tuple(str(row.image) for row in rows)
