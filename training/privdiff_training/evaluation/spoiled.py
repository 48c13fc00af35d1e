"""Radiographs that are spoiled as a bad redrawing could be, for the quality gate to hold."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional


def _speckle(image: Tensor, generator: torch.Generator) -> Tensor:
    return image * (1 + 0.1 * torch.randn(image.shape, generator=generator))


def _noise(image: Tensor, generator: torch.Generator) -> Tensor:
    return image + 0.05 * torch.randn(image.shape, generator=generator)


def _blurred(image: Tensor, generator: torch.Generator) -> Tensor:
    sigma = image.shape[-1] / 128  # two pixels of 256
    return torch.from_numpy(gaussian_filter(image.numpy(), (0, sigma, sigma)))


def _blocks(image: Tensor, generator: torch.Generator) -> Tensor:
    coarse = functional.avg_pool2d(image[None], 4)
    return functional.interpolate(coarse, image.shape[-2:])[0]


def _pale(image: Tensor, generator: torch.Generator) -> Tensor:
    return 0.5 + 0.25 * (image - 0.5)


def _grey_mush(image: Tensor, generator: torch.Generator) -> Tensor:
    return _blurred(0.5 + 0.5 * (image - 0.5), generator)


SPOILED: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "speckle": _speckle,
    "noise": _noise,
    "blurred": _blurred,
    "blocks": _blocks,
    "pale": _pale,
    "grey mush": _grey_mush,
}
"""Maps a radiograph (1, s, s) in [0, 1] and a generator to a spoiled one, by name."""
