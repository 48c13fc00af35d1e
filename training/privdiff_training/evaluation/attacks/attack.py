"""What an attacker of any rung is given, and what it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.methods.method import Starts


@dataclass(frozen=True)
class Originals:
    """Images as they were taken.

    Attributes
    ----------
    cohort
        Row i tells of image i.
    pixels
        Shape (n, 1, s, s), uint8, 0 = black = air.
    """

    cohort: Cohort
    pixels: Tensor

    def __len__(self) -> int:
        return len(self.cohort)

    def joined(self, other: Originals) -> Originals:
        """Return the images of both, those of `other` last."""
        rows = (*self.cohort.rows, *other.cohort.rows)
        return Originals(Cohort(self.cohort.root, rows), torch.cat((self.pixels, other.pixels)))


@dataclass(frozen=True)
class Copies:
    """Copies of some originals.

    Attributes
    ----------
    cohort
        Row i tells of the original that the copies i were made from.
    pixels
        Shape (versions, n, 1, s, s), uint8.
    """

    cohort: Cohort
    pixels: Tensor


@dataclass(frozen=True)
class Known:
    """What every attacker may use: the tool itself, and originals of other patients.

    Copies are made when they are first asked for: not every attacker needs them.

    Attributes
    ----------
    reference
        Originals that the method under test was made with.
    train, select
        Originals that the attacker trains on, and stops by.
    copy
        The tool: makes copies of originals, always the same ones.
    copy_anew
        The tool with seeds of the attacker's own: of no original does it make a copy that `copy`
        makes, or that was released.
    starts
        What the tool may put in the place of originals: of the tool's insides all that matters.
    fitted_rows
        Rows of `train` that an attacker in whom no network is trained fits itself to; None for all.
    memory
        What attackers have learned from all this and may use again, by fingerprint and seed.
    """

    reference: Originals
    train: Originals
    select: Originals
    copy: Callable[[Originals], Copies] = field(repr=False)
    copy_anew: Callable[[Originals], Copies] = field(repr=False)
    starts: Callable[[Originals], Starts] = field(repr=False)
    fitted_rows: frozenset[int] | None = None
    memory: dict[tuple[str, int], Any] = field(init=False, repr=False, default_factory=dict)

    @cached_property
    def train_copies(self) -> Copies:
        """Copies of `train`."""
        return self.copy(self.train)

    @cached_property
    def select_copies(self) -> Copies:
        """Copies of `select`."""
        return self.copy(self.select)


Curve = tuple[tuple[int, float], ...]
"""Steps of a training, each with the loss on the select patients."""


class Linker(Protocol):
    """Tells how alike the person of a copy and the person of an original are."""

    @property
    def curve(self) -> Curve:
        """How its training went; empty if nothing was trained in steps."""
        ...

    def __call__(self, queries: Copies, gallery: Originals) -> np.ndarray:
        """Return scores of shape (queries, gallery), float64; higher means more alike.

        A linker that uses one copy of each image takes the first.
        """
        ...


@dataclass(frozen=True)
class Scores:
    """A function of queries and gallery as a linker."""

    link: Callable[[Copies, Originals], np.ndarray]
    curve: Curve = ()

    def __call__(self, queries: Copies, gallery: Originals) -> np.ndarray:
        """Return scores; see `Linker`."""
        return self.link(queries, gallery)


class Attack(Protocol):
    """One attacker of the ladder; it knows of no metric and of no test patient."""

    @property
    def rung(self) -> Rung:
        """Which rung it stands on."""
        ...

    @property
    def name(self) -> str:
        """For people; unique within its rung."""
        ...

    @property
    def is_learned(self) -> bool:
        """Whether its training draws at random, so that seeds matter."""
        ...

    @property
    def learns_from_copies(self) -> bool:
        """Whether it is fitted to copies by the tool that it attacks.

        Its scores may then be upside down.
        """
        ...

    @property
    def redraws_gallery(self) -> bool:
        """Whether it redraws all of a gallery, which is then that of the test patients alone."""
        ...

    @property
    def needs_groups(self) -> bool:
        """Whether it has a place only against a tool that shows groups; see `Method`."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides what it learns but for what it is given, and seed."""
        ...

    def trained_on(self, known: Known) -> str:
        """Say in words what it was trained on: images, patients, copies, steps."""
        ...

    def train(self, known: Known, seed: int) -> Linker:
        """Learn whatever it learns, with a seed of its own."""
        ...
