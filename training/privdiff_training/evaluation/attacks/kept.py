"""What is made of whole sets of images, kept for the last few sets.

Attackers, and all methods in turn, look at the same originals with the same untrained networks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Generic, TypeVar

from torch import Tensor

SETS = 16
"""More than one method has: its galleries, and the copies that are tested and trained on."""

ResultT = TypeVar("ResultT")


class Kept(Generic[ResultT]):
    """What one function makes of images, by the content of a whole set of them.

    Sets are kept whole, so what is kept does not depend on how sets were batched before.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, ResultT] = OrderedDict()

    def __call__(self, images: Tensor, make: Callable[[Tensor], ResultT]) -> ResultT:
        """Return ``make(images)``, made once as long as the set is among the last `SETS`.

        Parameters
        ----------
        images
            Of any shape and dtype.
        make
            Always the same function of images.
        """
        key = sha256(images.contiguous().numpy().data).hexdigest()
        if key not in self._kept:
            self._kept[key] = make(images)
        self._kept.move_to_end(key)
        if len(self._kept) > SETS:
            self._kept.popitem(last=False)
        return self._kept[key]
