"""How far vectors differ, as a covariance, and vectors in units of it."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from sklearn.covariance import ledoit_wolf

FLOOR = 1e-2
"""Part of the spread of all vectors that any difference has at least."""
TINY = 1e-12
"""Variance where all vectors are the same."""


def covariance_around_zero(differences: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the covariance (d, d) of differences (n, d) around zero, positive definite.

    A part of the spread of all `vectors` (m, d) is added to it, for a tool that changes nothing
    leaves no difference.
    """
    spread, _ = ledoit_wolf(differences, assume_centered=True)
    floor = max(FLOOR * vectors.var(0).mean(), TINY)
    return np.asarray(spread + floor * np.eye(len(spread)))


def whitened(vectors: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return vectors (n, d) in coordinates in which a covariance (d, d) is the identity.

    Their squared lengths and distances are those of Mahalanobis.
    """
    root = cholesky(covariance, lower=True)
    return np.asarray(solve_triangular(root, vectors.T, lower=True).T)
