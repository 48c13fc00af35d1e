"""How far two sets of images lie apart in the features of some network."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

SUBSET = 50
"""Images of one subset of the kernel distance, which is a mean over many."""


def kernel_distance(real: Tensor, drawn: Tensor, seed: int) -> float:
    """Return the kernel distance (KID) of two sets of features.

    Source: Binkowski et al., Demystifying MMD GANs, ICLR 2018. Values of one feature network
    compare with each other only. About 0 for two sets of one distribution, and by chance below.

    Parameters
    ----------
    real, drawn
        Shape (n, d) and (m, d), float32.
    seed
        Of the subsets.
    """
    torch.manual_seed(seed)  # torchmetrics draws subsets from the global generator
    with warnings.catch_warnings():
        # That it keeps all features in memory: they are in memory already.
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all")
        metric = KernelInceptionDistance(
            feature=_Given(real.shape[1]),
            subset_size=min(SUBSET, len(real), len(drawn)),
            sync_on_compute=False,  # one process measures, also where several have trained
        )
    metric.update(real, real=True)
    metric.update(drawn, real=False)
    return float(metric.compute()[0])


def frechet_distance(real: Tensor, drawn: Tensor) -> float | None:
    """Return the Frechet distance (FID) of two sets of features.

    Source: Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017. None with no
    more images than features: the covariances are then not of full rank, and it says nothing.
    """
    features = real.shape[1]
    if min(len(real), len(drawn)) <= features:
        return None
    metric = FrechetInceptionDistance(feature=_Given(features), sync_on_compute=False)
    metric.update(real, real=True)
    metric.update(drawn, real=False)
    return float(metric.compute())


class _Given(nn.Module):
    """Hands features on to a metric that expects a network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
