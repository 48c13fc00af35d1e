"""Which rows one training step sees: a pure function of seed and step, so that runs can resume."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def generator_for(seed: int, *labels: int | str) -> torch.Generator:
    """Return a CPU generator that depends on the seed and the labels alone."""
    text = ":".join(map(str, (seed, *labels)))
    state = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(state)


def row_seeds(count: int, generator: torch.Generator) -> Tensor:
    """Return one seed per row, shape (count,), int64 in [0, 2**31)."""
    return torch.randint(2**31, (count,), generator=generator)


@dataclass(frozen=True)
class Step:
    """One step of training as a stage sees it.

    Everything random is drawn for the *global* batch from `generator`, or from one of its `seeds`
    per row, and then cut to this process by `local`: the number of processes does not change what
    a row sees. Where the loss is a mean over rows that do not see each other (`diffusion`,
    `distillation`), it does not change the loss curve either. Elsewhere each process has its own
    part of what is shared between rows: batch normalisation, the other patients of a contrastive
    loss, the number of known labels that a loss is divided by.
    """

    index: int
    rows: Tensor  # (global batch,) int64 indices into the training cohort
    generator: torch.Generator
    process_index: int = 0
    num_processes: int = 1

    def local(self, batch: Tensor) -> Tensor:
        """Return this process's part of a tensor whose first dimension is the global batch.

        Every n-th row, so that all processes see the same mixture of sources.
        """
        return batch[self.process_index :: self.num_processes]

    def local_count(self, count: int) -> int:
        """Return how many of the first `count` rows of the global batch this process has."""
        return len(range(self.process_index, count, self.num_processes))

    def seeds(self) -> Tensor:
        """Draw one seed per row; returns the local part."""
        return self.local(row_seeds(len(self.rows), self.generator))

    def randn(self, *shape: int) -> Tensor:
        """Draw standard normal noise of `shape` (global batch first); returns the local part."""
        return self.local(torch.randn(shape, generator=self.generator))

    def rand(self, *shape: int) -> Tensor:
        """Draw uniform numbers in [0, 1) of `shape`; like `randn`."""
        return self.local(torch.rand(shape, generator=self.generator))


@dataclass(frozen=True)
class Share:
    """A group of rows and the part of every batch that is drawn from it."""

    rows: Tensor  # (images,) int64
    fraction: float


def batch_rows(shares: Sequence[Share], batch_size: int, seed: int, step: int) -> Tensor:
    """Return the row indices of one global batch.

    Every group is walked through in a new random order per epoch, so that each of its images is
    seen equally often.

    Returns
    -------
    Tensor
        Shape (batch_size,), int64.
    """
    parts = []
    remaining = batch_size
    for number, share in enumerate(shares):
        last = number == len(shares) - 1
        count = remaining if last else round(batch_size * share.fraction)
        remaining -= count
        positions = torch.arange(step * count, (step + 1) * count)
        parts.append(share.rows[_walk(len(share.rows), positions, seed, number)])
    return torch.cat(parts)


def _walk(length: int, positions: Tensor, seed: int, group: int) -> Tensor:
    epochs = positions // length
    picked = torch.empty_like(positions)
    for epoch in epochs.unique().tolist():
        order = torch.randperm(length, generator=generator_for(seed, "epoch", group, epoch))
        here = epochs == epoch
        picked[here] = order[positions[here] % length]
    return picked
