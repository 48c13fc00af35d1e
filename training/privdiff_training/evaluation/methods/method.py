"""What an evaluation asks of a method that takes the person out of an image."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from privdiff_training.cohort import Cohort


class Method(Protocol):
    """Maps originals to copies, from pixels alone unless `told` says otherwise.

    Attributes
    ----------
    name
        Unique, for people: ``standard 0.7``, ``blur 4``.
    family, setting
        The curve on the privacy-utility plane and the point on it.
    told
        What it is told beside the pixels; ``nothing`` for all that count for the headline.
    fingerprint
        A hash of all that decides the copies but for images and seed: the key of their cache.
    """

    name: str
    family: str
    setting: str
    told: str
    fingerprint: str

    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Return one copy of each original.

        Parameters
        ----------
        cohort
            Row i tells of original i; read by methods that are told something.
        originals
            Shape (n, 1, s, s), float32 in [0, 1].
        seed
            Of everything random; another seed gives another copy.

        Returns
        -------
        Tensor
            Shape of `originals`, float32 in [0, 1].
        """
        ...
