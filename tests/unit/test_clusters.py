"""Groups of patients: how they are fitted, and what a redrawing from a group owes to its source."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from privdiff_training.clusters import (
    ClustersConfig,
    ExemplarsConfig,
    PatientGroups,
    PatientReadings,
    alike,
    group_patients,
    microaggregated,
    principal_directions,
)
from privdiff_training.config import DataConfig
from privdiff_training.evaluation.methods.bundle import BundleMethod
from privdiff_training.exemplars import NearCopies, export_clusters, with_exemplars
from privdiff_training.stages.data import TrainingImages
from torch import Tensor

from privdiff_infer.errors import CohortError
from privdiff_infer.model.clusters import PatientClusters, nearest_centre
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.profiles import PROFILES, Start
from privdiff_infer.vocabulary import FINDING_TOKENS, Profile
from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import generators, images, tiny_pipeline

GROUPS = 5
SHAPE = (4, 4, 4)


@pytest.fixture(scope="module")
def clusters() -> PatientClusters:
    return grouped(GROUPS)


@pytest.fixture(scope="module")
def pipeline(clusters: PatientClusters) -> PrivDiffPipeline:
    pipeline = tiny_pipeline()
    pipeline.register_modules(clusters=clusters)
    return pipeline


def grouped(count: int) -> PatientClusters:
    """Return groups around evidence that the tiny reader gives to random images."""
    generator = torch.Generator().manual_seed(5)
    tiny, seen = tiny_pipeline(), images(count, seed=8)
    clusters = PatientClusters(count, SHAPE, num_exemplars=3)
    with torch.no_grad():
        clusters.centres.copy_(tiny.reader.evidence(tiny.reader(seen)))
        clusters.exemplars.copy_(torch.randn(count, 3, *SHAPE, generator=generator))
    clusters.patients += 10
    clusters.findings.copy_(torch.randint(0, 3, (count, len(FINDING_TOKENS)), generator=generator))
    return clusters


class TestRedrawnFromAGroup:
    @pytest.mark.parametrize("profile", [Profile.STANDARD, Profile.FAST])
    def test_sources_of_one_group_give_one_image(
        self, pipeline: PrivDiffPipeline, profile: Profile
    ) -> None:
        """The premise of the theorem, bit for bit."""
        sources = images(12)
        group = groups_of(pipeline, sources)
        common, times = Counter(group.tolist()).most_common(1)[0]
        assert times > 1
        alike = sources[group == common]

        first, *others = [
            pipeline(source[None], profile=profile, generators=generators(1)).images
            for source in alike
        ]

        assert all(torch.equal(first, other) for other in others)

    def test_sources_of_different_groups_give_different_images(
        self, pipeline: PrivDiffPipeline
    ) -> None:
        one, other = images(2, seed=8)[:, None]  # the centres of groups 0 and 1
        assert groups_of(pipeline, torch.cat([one, other])).tolist() == [0, 1]

        assert not torch.equal(
            pipeline(one, generators=generators(1)).images,
            pipeline(other, generators=generators(1)).images,
        )

    def test_the_group_gives_the_conditions(self, pipeline: PrivDiffPipeline) -> None:
        output = pipeline(images(3, seed=8), generators=generators(3))

        assert torch.equal(output.findings, pipeline.clusters.findings[:3])

    def test_an_attacker_is_told_the_exemplars_of_the_group(
        self, pipeline: PrivDiffPipeline, tmp_path: Path
    ) -> None:
        pipeline.save_pretrained(tmp_path)
        sources, clusters = images(5), pipeline.clusters
        count = clusters.exemplars.shape[1]

        starts = BundleMethod(tmp_path, Profile.STANDARD, 0.4).starts(sources)

        assert len(starts.pixels) == len(clusters.patients) * count
        chosen = starts.stand_for.nonzero()[:, 1].reshape(5, count) // count
        assert torch.equal(chosen, groups_of(pipeline, sources)[:, None].expand(5, count))
        from_source = BundleMethod(tmp_path, Profile.VANILLA, 0.4).starts(sources)
        assert torch.equal(from_source.pixels, sources)

    def test_findings_that_are_known_are_used(self, pipeline: PrivDiffPipeline) -> None:
        known = torch.full((1, len(FINDING_TOKENS)), 2)

        output = pipeline(images(1), findings=known, generators=generators(1))

        assert torch.equal(output.findings, known)

    def test_an_image_does_not_depend_on_its_batch(self, pipeline: PrivDiffPipeline) -> None:
        together = pipeline(images(3), generators=generators(3)).images
        alone = pipeline(images(3)[1:2], generators=[generators(3)[1]]).images

        torch.testing.assert_close(alone, together[1:2], atol=1e-5, rtol=0)

    def test_profiles_that_start_from_the_source_do_not_see_groups(
        self, pipeline: PrivDiffPipeline
    ) -> None:
        for profile in (Profile.VANILLA, Profile.PAPER):
            assert not pipeline.starts_from_cluster(profile)
            assert torch.equal(
                pipeline(images(1), profile=profile, generators=generators(1)).images,
                tiny_pipeline()(images(1), profile=profile, generators=generators(1)).images,
            )

    @pytest.mark.parametrize("profile", [Profile.STANDARD, Profile.FAST])
    def test_a_bundle_without_groups_starts_from_the_source(self, profile: Profile) -> None:
        plain = tiny_pipeline()
        from_source = replace(PROFILES[profile], start=Start.SOURCE)

        assert not plain.starts_from_cluster(profile)
        assert torch.equal(
            plain(images(1), profile=profile, generators=generators(1)).images,
            plain(images(1), profile=from_source, generators=generators(1)).images,
        )

    def test_saving_and_loading_changes_no_bit(
        self, pipeline: PrivDiffPipeline, tmp_path: Path
    ) -> None:
        pipeline.save_pretrained(tmp_path)

        loaded = PrivDiffPipeline.from_pretrained(tmp_path)

        assert torch.equal(
            loaded(images(2), generators=generators(2)).images,
            pipeline(images(2), generators=generators(2)).images,
        )


class TestBound:
    @given(
        groups=st.lists(st.integers(0, 3), min_size=2, max_size=12),
        noise=st.integers(0, 99),
    )
    @settings(max_examples=50, deadline=None)
    def test_no_scores_of_one_who_knows_the_group_exceed_it(
        self, groups: list[int], noise: int
    ) -> None:
        """Every score is a function of (group of the output, image of the person)."""
        persons = torch.tensor(groups)
        clusters = PatientClusters(4, SHAPE)
        clusters.patients.copy_(torch.bincount(persons, minlength=4))
        table = torch.rand(4, len(persons), generator=torch.Generator().manual_seed(noise))
        table[persons, torch.arange(len(persons))] += 1  # the best: no other group can be right
        scores = table[persons]  # row: output of a person; column: image of a person

        own = scores.diagonal()
        wins = (own[:, None] > scores).float() + (own[:, None] == scores).float() / 2
        bound = clusters.linkage_bound(persons=len(persons))

        # Independent persons: each row against all columns, its own among them.
        assert wins.mean() <= bound.pair_auc + 1e-9
        named = (scores.argmax(1) == torch.arange(len(persons))).float().mean()
        assert named <= bound.rank_one + 1e-9


class TestFit:
    def test_like_patients_come_together_and_give_mean_and_conditions(self) -> None:
        evidence = torch.zeros(6, len(FINDING_TOKENS))
        evidence[3:, 0] = 9.0
        evidence[:3, 1] = 9.0
        latents = torch.arange(6.0)[:, None, None, None].expand(6, 1, 2, 2)
        readings = PatientReadings(
            evidence=evidence,
            latents=latents,
            identity=torch.eye(2)[[0, 0, 0, 1, 1, 1]],
            age=torch.eye(5)[[1, 1, 1, 4, 4, 4]],
            sex=torch.tensor([-1.0, -1, -1, 1, 1, 1]),
        )

        rows = alike(evidence, num_groups=2, k=3)
        clusters = group_patients(readings, torch.eye(2), rows, num_directions=1)

        first, second = nearest_centre(evidence[[0, 5]], clusters.centres).tolist()
        assert first != second
        assert clusters.means[[first, second], 0, 0, 0].tolist() == [1.0, 4.0]
        assert clusters.findings[[first, second], 0].tolist() == [0, 2]
        assert clusters.findings[[first, second], 1].tolist() == [2, 0]
        assert clusters.identity[[first, second]].tolist() == [0, 1]
        assert clusters.age[[first, second]].tolist() == [1, 4]
        assert clusters.sex[[first, second]].tolist() == [0, 1]
        assert clusters.patients.tolist() == [3, 3]
        # Within both groups the latents are -1, 0, 1 on all four elements: 4 sum of squares, 4 free
        torch.testing.assert_close(clusters.directions[0].abs(), torch.ones(1, 2, 2))

    def test_a_patient_with_many_images_counts_once(self) -> None:
        pipeline, batch = tiny_pipeline(), images(4)

        readings = PatientReadings.read(pipeline, batch.split(2), ["one", "one", "one", "two"])

        with torch.no_grad():
            evidence = pipeline.reader.evidence(pipeline.reader(batch))
        torch.testing.assert_close(readings.evidence[0], evidence[:3].mean(0))
        torch.testing.assert_close(readings.evidence[1], evidence[3])

    def test_draws_vary_as_patients_do(self) -> None:
        residuals = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor(
            [3.0, 2.0, 0.5]
        )
        residuals -= residuals.mean(0)
        one = replace(groups(1), means=torch.zeros(1, 3, 1, 1))
        directions = principal_directions(residuals[:, :, None, None], freedom=399, count=3)

        drawn = replace(one, directions=directions).drawn(0, generators(4000))

        torch.testing.assert_close(
            drawn.flatten(1).mT.cov(), residuals.mT.cov(), atol=0.7, rtol=0.1
        )

    @pytest.mark.parametrize(
        ("k", "directions", "message"),
        [(7, 0, "6 patients make no cluster of 7"), (3, 6, "in fewer than 6 directions")],
    )
    def test_too_few_patients_are_an_error(self, k: int, directions: int, message: str) -> None:
        zeros = torch.zeros
        readings = PatientReadings(
            zeros(6, 15), zeros(6, *SHAPE), zeros(6, 2), zeros(6, 5), zeros(6)
        )

        with pytest.raises(CohortError, match=message):
            rows = alike(readings.evidence, 2, k)
            group_patients(readings, torch.eye(2), rows, directions)

    def test_groups_are_of_one_direction_and_none_is_too_small(self) -> None:
        directions = torch.eye(15)[[0] * 8 + [1] * 8 + [2] * 2]
        evidence = directions * torch.linspace(1, 9, 18)[:, None]

        three, two = (alike(evidence, 3, k) for k in (2, 3))

        assert sorted(map(len, three)) == [2, 8, 8]
        assert all(len(set(directions[rows].argmax(1).tolist())) == 1 for rows in three)
        assert len(two) == 2 and min(map(len, two)) >= 3
        assert sorted(np.concatenate(two)) == list(range(18))

    def test_the_command_puts_them_into_a_bundle_that_is_being_built(self, tmp_path: Path) -> None:
        tiny_pipeline().save_pretrained(tmp_path / "components")
        manifest = write_cohort(tmp_path, patients=12)
        config = ClustersConfig(
            data=DataConfig(manifest=manifest, image_size=64, cache_dir=tmp_path / "cache"),
            num_groups=3,
            k=2,
            num_directions=4,
            exemplars=ExemplarsConfig(count=2, candidates=3),
        )

        fitted = export_clusters(tmp_path / "components", config)
        again = export_clusters(tmp_path / "components", config)

        loaded = PrivDiffPipeline.from_pretrained(tmp_path / "components").clusters
        assert fitted.patients.min() >= 2
        for name, values in loaded.state_dict().items():
            assert torch.equal(values, fitted.state_dict()[name])
            assert torch.equal(values, again.state_dict()[name])


class TestExemplars:
    def test_kept_are_those_that_show_the_findings_best(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        pipeline, one = tiny_pipeline(), groups(1)

        def drawn(agreements: list[float], count: int) -> Tensor:
            towards = torch.nn.functional.normalize(one.centres, dim=-1)
            across = torch.nn.functional.normalize(towards.roll(1, -1) * signs, dim=-1)
            cosines = torch.tensor(agreements)[:, None]
            shown = cosines * towards + (1 - cosines.square()).sqrt() * across
            monkeypatch.setattr(pipeline.reader, "evidence", lambda reading: shown)
            config = ExemplarsConfig(count=count, candidates=len(agreements))
            return with_exemplars(pipeline, one, config, none, tmp_path / str(count)).exemplars[0]

        signs = torch.tensor([1.0, -1.0] * 8)[: len(FINDING_TOKENS)]
        every = drawn([0.9, 0.8, 0.7, 0.6], count=4)

        assert torch.equal(drawn([0.1, 0.9, 0.2, 0.8], count=2), every[[1, 3]])

    def test_near_copies_of_patients_are_discarded(self, tmp_path: Path) -> None:
        pipeline, one = tiny_pipeline(), groups(1)
        four = ExemplarsConfig(count=4, candidates=4)
        every = with_exemplars(pipeline, one, four, none, tmp_path / "every").exemplars[0]

        def best_two(images: Tensor) -> Tensor:
            latents = pipeline.autoencoder.encode(images)
            nearest = torch.cdist(latents.flatten(1), every.flatten(1)).argmin(1)
            return nearest < 2

        kept = with_exemplars(pipeline, one, four, best_two, tmp_path / "kept").exemplars[0]

        assert torch.equal(kept, every[[2, 3, 2, 3]])
        with pytest.raises(CohortError, match="all 4 candidates of group 0 are near copies"):
            with_exemplars(pipeline, one, four, lambda images: ~none(images), tmp_path / "none")

    def test_an_image_of_a_patient_is_a_near_copy(self, tmp_path: Path) -> None:
        manifest = write_cohort(tmp_path, patients=12)
        data = DataConfig(manifest=manifest, image_size=64, cache_dir=tmp_path / "cache")
        cohort = TrainingImages.load(data)

        is_copy = NearCopies.of(cohort, tiny_pipeline().identity)

        assert is_copy(cohort.images(torch.arange(3)).flip(-1)).all()

    def test_the_pipeline_keeps_its_own_groups(
        self, pipeline: PrivDiffPipeline, tmp_path: Path
    ) -> None:
        own = pipeline.clusters

        with_exemplars(pipeline, groups(1), ExemplarsConfig(count=1, candidates=1), none, tmp_path)

        assert pipeline.clusters is own

    def test_a_run_that_was_stopped_goes_on(self, tmp_path: Path) -> None:
        config = ExemplarsConfig(count=1, candidates=2)
        whole = with_exemplars(tiny_pipeline(), groups(2), config, none, tmp_path).exemplars
        first, second = sorted(tmp_path.glob("exemplars-*"))
        second.unlink()
        written = first.stat().st_mtime_ns

        again = with_exemplars(tiny_pipeline(), groups(2), config, none, tmp_path).exemplars

        assert torch.equal(again, whole)
        assert first.stat().st_mtime_ns == written
        assert second.exists()

    def test_every_group_has_exemplars_of_its_own_conditions(self, tmp_path: Path) -> None:
        config = ExemplarsConfig(count=1, candidates=1)
        absent, present = groups(2), groups(2)
        present.findings[1] = 2

        one = with_exemplars(tiny_pipeline(), absent, config, none, tmp_path).exemplars
        other = with_exemplars(tiny_pipeline(), present, config, none, tmp_path).exemplars

        assert torch.equal(one[0], other[0])
        assert not torch.equal(one[1], other[1])


def none(images: Tensor) -> Tensor:
    """Tell that no image is a copy."""
    return torch.zeros(len(images), dtype=torch.bool)


def groups(count: int) -> PatientGroups:
    """Return groups that differ in their means."""
    zeros = torch.zeros(count, dtype=torch.long)
    generator = torch.Generator().manual_seed(2)
    return PatientGroups(
        centres=torch.randn(count, len(FINDING_TOKENS), generator=generator),
        patients=zeros + 10,
        means=torch.randn(count, *SHAPE, generator=generator),
        directions=torch.randn(2, *SHAPE, generator=generator),
        findings=torch.zeros(count, len(FINDING_TOKENS), dtype=torch.long),
        identity=zeros,
        age=zeros,
        sex=zeros,
    )


@given(rows=st.integers(1, 60), k=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_groups_are_a_partition_into_k_or_more(rows: int, k: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(max(rows, k), 4))

    groups = microaggregated(values, k)

    assert sorted(np.concatenate(groups).tolist()) == list(range(len(values)))
    assert all(k <= len(group) < 2 * k for group in groups)


@torch.no_grad()
def groups_of(pipeline: PrivDiffPipeline, sources: Tensor) -> Tensor:
    return pipeline.clusters.nearest(pipeline.reader.evidence(pipeline.reader(sources)))
