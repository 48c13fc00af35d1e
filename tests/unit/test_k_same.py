"""k-same: means of at least k reference patients, and what an output owes to its source."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.evaluation.methods.k_same import KSame, KSameRedraw
from privdiff_training.evaluation.methods.reference import Reference
from torch import Tensor

from privdiff_infer.errors import CohortError
from privdiff_infer.pipeline import PrivDiffPipeline
from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import SIZE, images

SOURCES = 40
K = 3


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return read_manifest(write_cohort(tmp_path_factory.mktemp("cohort"), patients=10))


@pytest.fixture(scope="module")
def k_same(cohort: Cohort, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> KSame:
    return KSame(tiny_bundle, Reference(cohort, SIZE, tmp_path_factory.mktemp("cache")), K)


@pytest.fixture(scope="module")
def copies(k_same: KSame, cohort: Cohort) -> Tensor:
    return k_same.anonymize(cohort, images(SOURCES), 0)


def test_every_cluster_has_k_patients_and_not_only_k_images(k_same: KSame) -> None:
    clusters = k_same.clusters  # 10 patients with 2 images each

    assert clusters.patients.min() >= K
    assert clusters.patients.sum() == 10


def test_there_are_at_most_as_many_outputs_as_clusters(k_same: KSame, copies: Tensor) -> None:
    outputs = torch.unique(copies.flatten(1), dim=0)

    assert copies.shape == images(SOURCES).shape
    assert 0 <= copies.min() and copies.max() <= 1
    assert 1 < len(outputs) <= len(k_same.clusters.patients)


def test_no_attacker_names_more_sources_than_there_are_clusters(
    k_same: KSame, copies: Tensor
) -> None:
    outputs = [tuple(copy.flatten().tolist()) for copy in copies]
    sharing = Counter(outputs)
    rank_1_of_the_best_attacker = sum(1 / sharing[output] for output in outputs) / SOURCES

    assert rank_1_of_the_best_attacker <= len(k_same.clusters.patients) / SOURCES + 1e-9


def test_sources_that_read_alike_get_one_output(k_same: KSame, cohort: Cohort) -> None:
    source = images(1)
    twice = torch.cat([source, source])

    first, second = k_same.anonymize(cohort, twice, 0)

    assert torch.equal(first, second)
    assert torch.equal(k_same.anonymize(cohort, source, 1)[0], first)


def test_too_few_patients_are_an_error(k_same: KSame, cohort: Cohort) -> None:
    with pytest.raises(CohortError, match="10 patients make no cluster of 11"):
        replace(k_same, k=11).anonymize(cohort, images(1), 0)


class TestRedrawn:
    def test_from_the_mean_alone_only_cluster_and_findings_matter(
        self, k_same: KSame, cohort: Cohort, tiny_bundle: Path
    ) -> None:
        pipeline = PrivDiffPipeline.from_pretrained(tiny_bundle)
        source = images(1)
        other = (source + 0.001 * images(1, seed=1)).clamp(0, 1)
        assert torch.equal(pipeline.read_findings(source), pipeline.read_findings(other))
        assert torch.equal(
            k_same.mean_latents(pipeline, source), k_same.mean_latents(pipeline, other)
        )

        mean_alone, mixed = KSameRedraw(k_same, 0.3), KSameRedraw(k_same, 0.3, weight=0.5)

        assert torch.equal(
            mean_alone.anonymize(cohort, source, 0), mean_alone.anonymize(cohort, other, 0)
        )
        assert not torch.equal(
            mixed.anonymize(cohort, source, 0), mixed.anonymize(cohort, other, 0)
        )

    def test_seeds_decide_the_copy(self, k_same: KSame, cohort: Cohort) -> None:
        method = KSameRedraw(k_same, 0.3)

        first, again, other = (method.anonymize(cohort, images(2), seed) for seed in (0, 0, 1))

        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert first.shape == images(2).shape


def test_every_parameter_changes_the_fingerprint(
    k_same: KSame, cohort: Cohort, tmp_path: Path
) -> None:
    fewer = Reference(Cohort(cohort.root, cohort.rows[:-1]), SIZE, tmp_path)
    redrawn = KSameRedraw(k_same, 0.3)
    methods = [
        k_same,
        replace(k_same, k=4),
        replace(k_same, reference=fewer),
        redrawn,
        replace(redrawn, k_same=replace(k_same, k=4)),
        replace(redrawn, strength=0.4),
        replace(redrawn, weight=0.5),
    ]

    assert len({method.fingerprint for method in methods}) == len(methods)
