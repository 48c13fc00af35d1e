"""Images of one patient: which they are, and how they are drawn for learning whom one sees."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from privdiff_training.cohort import Cohort
from privdiff_training.sampling import Share


def siblings(cohort: Cohort) -> list[list[int]]:
    """Return for every row all rows of the same patient, itself included."""
    members = defaultdict(list)
    for index, row in enumerate(cohort):
        members[row.unit].append(index)
    return [members[row.unit] for row in cohort]


def favouring_several(shares: Sequence[Share], siblings: Sequence[Sequence[int]]) -> list[Share]:
    """Split every share: half of it for patients with several images, where there are any."""
    split = []
    for share in shares:
        several = torch.tensor([len(siblings[row]) > 1 for row in share.rows.tolist()])
        if several.any():
            split.append(Share(share.rows[several], share.fraction / 2))
        split.append(Share(share.rows, share.fraction / (2 if several.any() else 1)))
    return split


def drawn_partners(
    rows: Tensor, siblings: Sequence[Sequence[int]], generator: torch.Generator
) -> Tensor:
    """Return another image of the same patient for each row, or the row itself, shape (n,)."""
    draws = torch.rand(len(rows), generator=generator)
    partners = []
    for row, draw in zip(rows.tolist(), draws.tolist(), strict=True):
        others = [sibling for sibling in siblings[row] if sibling != row] or [row]
        partners.append(others[int(draw * len(others))])
    return torch.tensor(partners)
