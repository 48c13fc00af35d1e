"""How far vectors differ, as a covariance, and vectors in units of it."""

import numpy as np
import pytest
from privdiff_training.evaluation.attacks.covariance import covariance_around_zero, whitened
from scipy.spatial.distance import mahalanobis


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4))


def test_lengths_of_whitened_vectors_are_those_of_mahalanobis(vectors):
    covariance = covariance_around_zero(vectors[::2] - vectors[1::2], vectors)

    lengths = np.linalg.norm(whitened(vectors, covariance), axis=1)

    inverse = np.linalg.inv(covariance)
    assert lengths == pytest.approx([mahalanobis(each, np.zeros(4), inverse) for each in vectors])


@pytest.mark.parametrize("scale", [1, 0], ids=["they differ", "all are the same"])
def test_a_tool_that_changes_nothing_leaves_no_difference_and_a_covariance(vectors, scale):
    covariance = covariance_around_zero(np.zeros_like(vectors), scale * vectors)

    assert np.isfinite(whitened(vectors, covariance)).all()
