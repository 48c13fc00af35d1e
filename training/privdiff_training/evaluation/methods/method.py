"""What an evaluation asks of a method that takes the person out of an image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from privdiff_training.cohort import Cohort


@dataclass(frozen=True)
class Starts:
    """What a method may put in the place of originals before it redraws.

    Attributes
    ----------
    pixels
        Shape (p, 1, s, s), float32 in [0, 1].
    stand_for
        Which of them may take the place of original i, shape (n, p), bool.
    """

    pixels: Tensor
    stand_for: Tensor


class Method(Protocol):
    """Maps originals to copies, from pixels alone unless `told` says otherwise."""

    @property
    def name(self) -> str:
        """Unique, for people: ``standard 0.7``, ``blur 4``."""
        ...

    @property
    def family(self) -> str:
        """The curve on the privacy-utility plane."""
        ...

    @property
    def setting(self) -> str:
        """The point on it."""
        ...

    @property
    def told(self) -> str:
        """What it is told beside the pixels; ``nothing`` for all that count for the headline."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides the copies but for images and seed: the key of their cache."""
        ...

    @property
    def shows_groups(self) -> bool:
        """Whether `starts` gives one answer for a whole group of originals."""
        ...

    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Return one copy of each original.

        Parameters
        ----------
        cohort
            Row i tells of original i; read by methods that are told something.
        originals
            Shape (n, 1, s, s), float32 in [0, 1].
        seed
            Of everything random; another seed gives another copy where anything is random.

        Returns
        -------
        Tensor
            Shape of `originals`, float32 in [0, 1].
        """
        ...

    def starts(self, originals: Tensor) -> Starts:
        """Return what may take the place of originals (n, 1, s, s) in [0, 1]; often `itself`.

        It is what an attacker knows who has the tool, its weights and all that is kept beside them.
        """
        ...


def itself(originals: Tensor) -> Starts:
    """Return originals as what stands for themselves."""
    return Starts(originals, torch.eye(len(originals), dtype=torch.bool))


def hash_of(*parts: object) -> str:
    """Return 16 hexadecimal digits that differ where the written form of any part differs.

    Examples
    --------
    >>> hash_of("blur", 4.0) == hash_of("blur", 4.0)
    True
    >>> hash_of("blur", 4.0) == hash_of("blur", 4.5)
    False
    """
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
