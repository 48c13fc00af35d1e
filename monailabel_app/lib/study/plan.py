"""What a reader study asks, and in which order each reader sees it.

Every reader sees every pair once, in an order of their own and with the original on a side that
does not tell. Both follow from the secret seed of the study and the name of the reader, so they are
the same after a restart and nothing of them is kept.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from enum import Enum

QUESTION = "Can this finding be assessed in both images alike, so that either serves the diagnosis?"


class Answer(str, Enum):
    """What a reader says of one finding of one pair."""

    ADEQUATE = "adequate"
    INADEQUATE = "inadequate"
    NOT_ASSESSABLE = "not_assessable"


class Side(str, Enum):
    """Where a picture is shown."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class Plan:
    """One reader study.

    Attributes
    ----------
    id
        32 hexadecimal digits.
    title
        For people.
    question
        Asked for every finding.
    jobs
        Ids of the jobs whose pairs are shown; an item is a place in it, from 0.
    findings
        What is asked of every pair.
    seed
        Secret: who has it knows which side is which.
    created
        Seconds since 1970.
    """

    id: str
    title: str
    question: str
    jobs: tuple[str, ...]
    findings: tuple[str, ...]
    seed: str
    created: float


@dataclass(frozen=True)
class Showing:
    """One pair as one reader sees it.

    Attributes
    ----------
    item
        Which pair of the plan, from 0.
    original
        Side of the original.
    """

    item: int
    original: Side


def showings(plan: Plan, reader: str) -> tuple[Showing, ...]:
    """Return what a reader sees, in their order.

    Half of the originals are on either side, give or take one.

    Examples
    --------
    >>> plan = Plan("0" * 32, "", QUESTION, ("a", "b", "c", "d"), ("Edema",), "seed", 0.0)
    >>> seen = showings(plan, "ada")
    >>> sorted(showing.item for showing in seen), seen == showings(plan, "ada")
    ([0, 1, 2, 3], True)
    >>> [showing.original for showing in seen].count(Side.LEFT)
    2
    """
    chance = random.Random(_digest(plan, "order", reader))
    items = list(range(len(plan.jobs)))
    chance.shuffle(items)
    sides = [list(Side)[place % 2] for place in range(len(items))]
    chance.shuffle(sides)
    return tuple(Showing(item, side) for item, side in zip(items, sides, strict=True))


def reader_code(plan: Plan, reader: str) -> str:
    """Return what stands for a reader in all that leaves, which without the seed names nobody."""
    return f"R{_digest(plan, 'code', reader).hex()[:6]}"


def _digest(plan: Plan, use: str, reader: str) -> bytes:
    return hashlib.sha256(f"{plan.seed}\0{use}\0{reader}".encode()).digest()
