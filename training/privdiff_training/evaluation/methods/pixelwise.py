"""Baselines that change pixels without knowing what they show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from privdiff_infer.errors import OptionError
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.methods.method import Starts, hash_of, itself
from privdiff_training.sampling import generator_for

GREY_LEVELS = 255


class PixelwiseMethod(ABC):
    """What these baselines have in common; each is a dataclass of its parameters.

    Attributes
    ----------
    told
        Nothing.
    shows_groups
        No.
    """

    told = "nothing"
    shows_groups = False

    @property
    def name(self) -> str:
        """Family and setting."""
        return f"{self.family} {self.setting}"

    @property
    @abstractmethod
    def family(self) -> str:
        """The curve."""

    @property
    @abstractmethod
    def setting(self) -> str:
        """The parameter that makes the curve."""

    @property
    def fingerprint(self) -> str:
        """Of the class and all its parameters, which is what a dataclass shows."""
        return hash_of(self)

    @abstractmethod
    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Return one copy of each original; see `Method`."""

    def starts(self, originals: Tensor) -> Starts:
        """Return the originals; see `Method`."""
        return itself(originals)


@dataclass(frozen=True)
class Identity(PixelwiseMethod):
    """Does nothing: what an attacker gets from originals."""

    name = "identity"
    family = "identity"
    setting = "nothing done"

    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Return a copy."""
        return originals.clone()


@dataclass(frozen=True)
class Downsampling(PixelwiseMethod):
    """Means of cells, interpolated back to the grid.

    Attributes
    ----------
    factor
        Side of a cell in pixels.
    """

    factor: int
    family = "downsampling"

    @property
    def setting(self) -> str:
        """The factor."""
        return f"{self.factor}"

    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Average and interpolate."""
        small = _cell_means(originals, self.factor)
        return functional.interpolate(small, originals.shape[-2:], mode="bilinear").clamp(0, 1)


@dataclass(frozen=True)
class Blur(PixelwiseMethod):
    """Gaussian blur.

    Attributes
    ----------
    deviation
        Of the kernel, in pixels.
    """

    deviation: float
    family = "blur"

    @property
    def setting(self) -> str:
        """The deviation."""
        return f"{self.deviation:g}"

    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Blur, with the border repeated outwards."""
        spread = (0, 0, self.deviation, self.deviation)
        blurred: np.ndarray = gaussian_filter(originals.numpy(), spread, mode="nearest")
        return torch.from_numpy(blurred).clamp(0, 1)


@dataclass(frozen=True)
class Noise(PixelwiseMethod):
    """Independent Gaussian noise on every pixel.

    Attributes
    ----------
    deviation
        Of the noise, where the image is in [0, 1].
    """

    deviation: float
    family = "noise"

    @property
    def setting(self) -> str:
        """The deviation."""
        return f"{self.deviation:g}"

    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Add noise and clip."""
        shape = originals.shape[1:]
        noise = [
            torch.randn(shape, generator=generator_for(seed, "noise", row))
            for row in range(len(originals))
        ]
        return (originals + self.deviation * torch.stack(noise)).clamp(0, 1)


@dataclass(frozen=True)
class DPPix(PixelwiseMethod):
    """Pixelization with Laplace noise (DP-Pix).

    Source: L. Fan, Image Pixelization with Differential Privacy, DBSec 2018. Where two images
    differ in at most m pixels, the means of all cells together differ by at most 255 m / b^2, so
    Laplace noise of scale 255 m / (b^2 eps) on every mean is eps-differentially private for such
    neighbours. They are no persons: two images of one person differ in every pixel. And noise is
    drawn in floating point, which a formal guarantee would have to treat.

    Attributes
    ----------
    cell
        b, side of a cell in pixels.
    epsilon
        eps; smaller is noisier.
    neighbours
        m, number of pixels in which neighbours may differ.
    """

    cell: int
    epsilon: float
    neighbours: int = 16
    family = "DP-Pix"

    @property
    def setting(self) -> str:
        """Cell and epsilon."""
        return f"b={self.cell} eps={self.epsilon:g}"

    @property
    def scale(self) -> float:
        """Of the Laplace noise, in grey levels of 255."""
        return GREY_LEVELS * self.neighbours / (self.cell**2 * self.epsilon)

    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Average, add noise, clip, and repeat every mean over its cell."""
        means = _cell_means(originals, self.cell)
        noise = [
            _laplace(means.shape[1:], generator_for(seed, "dp-pix", row))
            for row in range(len(originals))
        ]
        noisy = (means + self.scale / GREY_LEVELS * torch.stack(noise)).clamp(0, 1)
        return functional.interpolate(noisy, scale_factor=self.cell, mode="nearest")


def pixelwise_methods() -> tuple[PixelwiseMethod, ...]:
    """Return every baseline with the settings that make its curve, the mildest first."""
    return (
        *(Downsampling(factor) for factor in (2, 4, 8, 16, 32)),
        *(Blur(deviation) for deviation in (1.0, 2.0, 4.0, 8.0, 16.0)),
        *(Noise(deviation) for deviation in (0.05, 0.1, 0.2, 0.4, 0.8)),
        *(DPPix(8, epsilon) for epsilon in (30.0, 10.0, 3.0, 1.0, 0.3)),
    )


def _cell_means(images: Tensor, side: int) -> Tensor:
    rows, columns = images.shape[-2:]
    if rows % side or columns % side:
        raise OptionError(
            f"cells of {side} pixels do not fill an image of {rows} x {columns}",
            "choose a divisor of its side",
        )
    return functional.avg_pool2d(images, side)


def _laplace(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw Laplace noise of scale 1: the difference of two exponential draws."""
    first, second = (torch.empty(shape).exponential_(generator=generator) for _ in range(2))
    return first - second
