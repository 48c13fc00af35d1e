"""Images that are no upright frontal chest radiograph, made from ones that are and from noise.

The public sets hold frontal radiographs only. What the input gate should hold is therefore made
here: turned, upside-down, inverted, cut-out and squashed radiographs, and textures and shapes of
no body.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def impostors(radiographs: Tensor, seeds: Tensor) -> Tensor:
    """Return one impostor per radiograph, each of a random kind and by its own seed.

    Parameters
    ----------
    radiographs
        Shape (n, 1, s, s), float in [0, 1].
    seeds
        Shape (n,), int64 in [0, 2**31).

    Returns
    -------
    Tensor
        Same shape, range and device; impostors are drawn on the CPU.
    """
    pairs = zip(radiographs.cpu(), seeds.tolist(), strict=True)
    made = [_impostor(image, torch.Generator().manual_seed(seed)) for image, seed in pairs]
    return torch.stack(made).clamp(0, 1).to(radiographs.device) if made else radiographs


def _impostor(radiograph: Tensor, generator: torch.Generator) -> Tensor:
    makers = list(KINDS.values())
    return makers[_draw(len(makers), generator)](radiograph, generator)


def _turned(image: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rot90(image, 1 + 2 * _draw(2, generator), dims=(-2, -1))


def _upside_down(image: Tensor, generator: torch.Generator) -> Tensor:
    return image.flip(-2)


def _inverted(image: Tensor, generator: torch.Generator) -> Tensor:
    return 1 - image


def _cut_out(image: Tensor, generator: torch.Generator) -> Tensor:
    size = image.shape[-1]
    side = size // 5 + _draw(size // 6, generator)
    top, left = _draw(size - side, generator), _draw(size - side, generator)
    return _resized(image[:, top : top + side, left : left + side], size, size)


def _squashed(image: Tensor, generator: torch.Generator) -> Tensor:
    size = image.shape[-1]
    narrow = size // 5 + _draw(size // 6, generator)
    shape = (narrow, size) if _draw(2, generator) else (size, narrow)
    squashed = _resized(image, *shape)
    pad_rows, pad_columns = size - squashed.shape[-2], size - squashed.shape[-1]
    return functional.pad(
        squashed,
        (pad_columns // 2, pad_columns - pad_columns // 2, pad_rows // 2, pad_rows - pad_rows // 2),
    )


def _texture(image: Tensor, generator: torch.Generator) -> Tensor:
    """Smooth noise of a random scale and contrast."""
    size = image.shape[-1]
    cells = 2 + _draw(size // 2, generator)
    noise = torch.rand(1, cells, cells, generator=generator)
    contrast = 0.2 + 0.8 * torch.rand((), generator=generator)
    return 0.5 + (_resized(noise, size, size) - 0.5) * contrast


def _shapes(image: Tensor, generator: torch.Generator) -> Tensor:
    """Ellipses of random grey on a random ground: bodies cut across, phantoms, drawings."""
    size = image.shape[-1]
    axis = torch.linspace(-1, 1, size)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    canvas = torch.rand((), generator=generator).expand(size, size)
    for _ in range(2 + _draw(8, generator)):
        y, x, height, width, grey = torch.rand(5, generator=generator).tolist()
        inside = ((rows - 2 * y + 1) / (0.1 + height)) ** 2 + (
            (columns - 2 * x + 1) / (0.1 + width)
        ) ** 2 < 1
        canvas = torch.where(inside, torch.tensor(grey), canvas)
    return canvas[None] + 0.05 * torch.randn(1, size, size, generator=generator)


def _scrambled(image: Tensor, generator: torch.Generator) -> Tensor:
    """The patches of a radiograph in random order."""
    side = image.shape[-1] // (2 + 2 * _draw(2, generator))
    patches = functional.unfold(image[None], side, stride=side)
    order = torch.randperm(patches.shape[-1], generator=generator)
    count = image.shape[-1] // side
    folded = functional.fold(patches[..., order], (side * count,) * 2, side, stride=side)[0]
    return _resized(folded, image.shape[-1], image.shape[-1])


KINDS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "turned": _turned,
    "upside down": _upside_down,
    "inverted": _inverted,
    "cut out": _cut_out,
    "squashed": _squashed,
    "texture": _texture,
    "shapes": _shapes,
    "scrambled": _scrambled,
}
"""Maps a radiograph (1, s, s) and a generator to an impostor of the same shape, by name."""


def _draw(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    return functional.interpolate(image[None], (height, width), mode="bilinear")[0]
