"""Erasers: what is linearly told of a person is taken out of tokens and features of a denoiser.

They are fitted after training (`privdiff_training.erasers`) and are no weights of a bundle: whoever
samples with them puts them on the pipeline.

Sources: Belrose et al., LEACE: Perfect Linear Concept Erasure in Closed Form, NeurIPS 2023
(arXiv 2306.03819), for tokens; a generalized eigenproblem of scatter between and within patients,
as of linear discriminant analysis, for features. Both hold for linear attackers alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TokenEraser:
    """x - g M (x - mu) for token x: the affine map of LEACE.

    Attributes
    ----------
    matrix
        M, shape (d, d), float32.
    mean
        mu, shape (d,), float32.
    """

    matrix: Tensor
    mean: Tensor

    def __call__(self, tokens: Tensor, strength: float = 1.0) -> Tensor:
        """Erase from tokens of shape (..., d); with strength g in [0, 1], 0 erases nothing."""
        matrix, mean = self.matrix.to(tokens), self.mean.to(tokens)
        return tokens - strength * (tokens - mean) @ matrix.mT


@dataclass(frozen=True)
class FeatureEraser:
    """h_n - g P (h_n - mu_n) for the channels h_n at every location n.

    Attributes
    ----------
    matrices
        P, one for each part of the schedule, shape (buckets, C, C), float32.
    means
        mu, shape (buckets, C, h, w), float32.
    strength
        g in [0, 1].
    """

    matrices: Tensor
    means: Tensor
    strength: float = 1.0

    def __call__(self, features: Tensor, part: Tensor) -> Tensor:
        """Erase from features.

        Parameters
        ----------
        features
            Shape (n, C, h, w).
        part
            Of the schedule, in [0, 1), one for all rows or one per row, shape (1,) or (n,).
        """
        bucket = (part.cpu() * len(self.matrices)).long()
        matrices = self.matrices[bucket].to(features)  # (1 or n, C, C)
        centred = features - self.means[bucket].to(features)
        removed = torch.einsum("nij,njhw->nihw", matrices.expand(len(features), -1, -1), centred)
        return features - self.strength * removed


@dataclass(frozen=True)
class Erasers:
    """All erasers of one denoiser.

    Attributes
    ----------
    context
        Of findings tokens, used by the SAS modes `context` and `combined`; None if not fitted.
    features
        By name of a module of the UNet whose output they change, whatever the mode of SAS.
    num_train_timesteps
        Length of the schedule of the denoiser.
    """

    context: TokenEraser | None = None
    features: Mapping[str, FeatureEraser] = field(default_factory=dict)
    num_train_timesteps: int = 1000

    @contextmanager
    def acting_on(self, unet: nn.Module, timestep: Tensor | int) -> Iterator[None]:
        """Erase features of all calls of a UNet at this timestep, or timesteps, of its rows."""
        part = torch.as_tensor(timestep).reshape(-1) / self.num_train_timesteps
        handles = [
            unet.get_submodule(name).register_forward_hook(partial(_erase, eraser, part))
            for name, eraser in self.features.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _erase(
    eraser: FeatureEraser, part: Tensor, module: nn.Module, arguments: object, output: Tensor
) -> Tensor:
    return eraser(output, part)
