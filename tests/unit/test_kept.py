"""Vectors of sets of images that were seen lately are not made again."""

from __future__ import annotations

import torch
from privdiff_training.evaluation.attacks.kept import SETS, Kept
from torch import Tensor


def test_a_set_is_made_once_and_forgotten_after_many_others():
    made = []

    def means(images: Tensor) -> Tensor:
        made.append(len(images))
        return images.float().mean((1, 2, 3))

    kept = Kept()
    first = torch.arange(2 * 16, dtype=torch.uint8).reshape(2, 1, 4, 4)
    vectors = kept(first, means)
    assert torch.equal(kept(first.clone(), means), vectors)
    assert made == [2]

    for number in range(1, SETS):
        kept(first + number, means)
    kept(first, means)
    assert len(made) == SETS

    for number in range(SETS):
        kept(first + 100 + number, means)
    assert torch.equal(kept(first, means), vectors)
    assert len(made) == 2 * SETS + 1
