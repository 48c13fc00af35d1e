"""Erasers: what linear attackers find after them, and what the denoiser does with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.erasers import (
    SubspaceSettings,
    between_patients,
    fit_context_eraser,
    fit_feature_erasers,
    fit_leace,
)
from privdiff_training.evaluation.methods.ablation import (
    ABLATIONS,
    WITH_SUBSPACE,
    Ablation,
    FittedErasers,
    ablations,
)
from privdiff_training.evaluation.methods.bundle import BundleMethod
from privdiff_training.evaluation.methods.reference import Reference
from privdiff_training.evaluation.redraw import redraw_with
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from privdiff_infer.errors import CohortError, OptionError
from privdiff_infer.model.conditioning import Condition
from privdiff_infer.model.erasers import Erasers, FeatureEraser, TokenEraser
from privdiff_infer.model.sas import SASMode, SASSettings
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.profiles import PROFILES
from privdiff_infer.vocabulary import Branch, Profile
from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import SIZE, generators, images, tiny_denoiser, tiny_pipeline

WIDTH = 16  # of the tokens of the tiny denoiser


def labelled_samples(count: int = 600, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return correlated samples (n, 6) and one-hot classes (n, 3) that they tell."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(count) % 3
    mixing = torch.randn(6, 6, generator=generator)
    noise = torch.randn(count, 6, generator=generator) @ mixing
    means = torch.randn(3, 6, generator=generator)
    return noise + 2 * means[classes], torch.nn.functional.one_hot(classes).float()


def accuracy(samples: Tensor, classes: Tensor) -> float:
    """Return how often an unregularised linear classifier is right on what it was fitted to."""
    labels = classes.argmax(-1).numpy()
    model = LogisticRegression(C=1e6, max_iter=5000).fit(samples.numpy(), labels)
    return float(model.score(samples.numpy(), labels))


class TestLEACE:
    def test_no_linear_classifier_beats_chance_on_the_fitted_data(self) -> None:
        samples, classes = labelled_samples()
        erased = fit_leace(samples, classes)(samples)

        assert accuracy(samples, classes) > 0.8
        labels = classes.argmax(-1).numpy()
        model = LogisticRegression(C=1e6, max_iter=5000).fit(erased.numpy(), labels)
        chances = model.predict_proba(erased.numpy())
        np.testing.assert_allclose(chances, 1 / 3, atol=1e-3)  # the best it can say is the prior

    def test_samples_and_classes_are_uncorrelated_after_it(self) -> None:
        samples, classes = labelled_samples()

        erased = fit_leace(samples, classes)(samples).double()

        cross = (erased - erased.mean(0)).mT @ (classes - classes.mean(0)).double()
        assert cross.abs().max() / len(samples) < 1e-5

    def test_it_is_idempotent_and_keeps_the_mean(self) -> None:
        samples, classes = labelled_samples()
        eraser = fit_leace(samples, classes)

        erased = eraser(samples)

        torch.testing.assert_close(eraser(erased), erased, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(erased.mean(0), samples.mean(0), atol=1e-4, rtol=1e-4)

    def test_it_changes_less_than_the_orthogonal_projection(self) -> None:
        samples, classes = labelled_samples()
        cross = (samples - samples.mean(0)).mT @ (classes - classes.mean(0))
        left, singular, _ = torch.linalg.svd(cross, full_matrices=False)
        told = left[:, singular > 1e-4 * singular.amax()]
        orthogonal = samples - (samples - samples.mean(0)) @ told @ told.mT

        erased = fit_leace(samples, classes)(samples)

        assert (erased - samples).square().sum() < (orthogonal - samples).square().sum()

    def test_samples_that_span_few_directions_are_erased_too(self) -> None:
        samples, classes = labelled_samples()
        wide = samples @ torch.randn(6, 20, generator=torch.Generator().manual_seed(1))

        erased = fit_leace(wide, classes)(wide)

        cross = (erased - erased.mean(0)).mT @ (classes - classes.mean(0))
        assert cross.abs().max() / len(wide) < 1e-3
        assert not torch.allclose(erased.var(0), torch.zeros(20), atol=1e-2)

    def test_classes_that_tell_nothing_change_nothing(self) -> None:
        samples, _ = labelled_samples()

        assert torch.equal(fit_leace(samples, torch.ones(len(samples), 1))(samples), samples)

    def test_strength_is_the_part_that_is_erased(self) -> None:
        samples, classes = labelled_samples()
        eraser = fit_leace(samples, classes)

        half = eraser(samples, 0.5)

        torch.testing.assert_close(half, (samples + eraser(samples)) / 2, atol=1e-5, rtol=1e-4)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return read_manifest(write_cohort(tmp_path, patients=6))


def told_tokens(cohort: Cohort) -> tuple[PrivDiffPipeline, Tensor]:
    """Return a pipeline and findings that tell the sex: Effusion is present in men alone."""
    findings = torch.tensor([[int(state) for state in row.findings] for row in cohort])
    return tiny_pipeline(), findings


def test_the_context_no_longer_tells_age_and_sex(cohort: Cohort) -> None:
    pipeline, findings = told_tokens(cohort)
    embeddings = pipeline.denoiser.embeddings
    tokens = embeddings.finding_tokens(findings).detach()
    men = torch.tensor([row.sex == 1 for row in cohort])

    eraser = fit_context_eraser(embeddings, findings, cohort)

    def gap(of: Tensor) -> float:
        mean_token = of.mean(1)
        return float((mean_token[men].mean(0) - mean_token[~men].mean(0)).norm())

    assert gap(tokens) > 0.1
    assert gap(eraser(tokens)) < 1e-5


def test_rows_without_age_or_sex_are_left_out(cohort: Cohort) -> None:
    pipeline, findings = told_tokens(cohort)
    embeddings = pipeline.denoiser.embeddings
    first = replace(cohort.rows[0], sex=None)
    without = Cohort(cohort.root, (first, *cohort.rows[1:]))
    shorter = Cohort(cohort.root, cohort.rows[1:])

    fitted = fit_context_eraser(embeddings, findings, without)

    expected = fit_context_eraser(embeddings, findings[1:], shorter)
    assert torch.equal(fitted.matrix, expected.matrix)
    with pytest.raises(CohortError, match="no image has age and sex"):
        fit_context_eraser(embeddings, findings[:1], Cohort(cohort.root, (first,)))


def features_of_patients(patients: int = 12, per_patient: int = 4) -> tuple[Tensor, Tensor]:
    """Return maps (n, 5, 2, 2) in whose channels 0 and 1 patients differ, and whose they are."""
    generator = torch.Generator().manual_seed(0)
    whose = torch.arange(patients).repeat_interleave(per_patient)
    maps = torch.randn(len(whose), 5, 2, 2, generator=generator)
    maps[:, :2] += 5 * torch.randn(patients, 2, 2, 2, generator=generator)[whose]
    mixing = torch.randn(5, 5, generator=generator)
    return torch.einsum("ij,njhw->nihw", mixing, maps), whose


class TestSubspace:
    def test_patients_no_longer_differ_more_than_images_of_one(self) -> None:
        maps, whose = features_of_patients()
        matrix, mean = between_patients(maps, whose, rank=2, ridge=1e-4)

        erased = FeatureEraser(matrix[None], mean[None])(maps, torch.zeros(1))

        def largest_ratio(of: Tensor) -> float:
            own = torch.stack([of[whose == patient].mean(0) for patient in range(12)])
            between = (own - own.mean(0)).movedim(1, -1).flatten(0, 2)
            within = (of - own[whose]).movedim(1, -1).flatten(0, 2)
            inverse = torch.linalg.pinv(within.mT @ within / len(within))
            scatter = between.mT @ between / len(between)
            return float(torch.linalg.eigvals(inverse @ scatter).real.max())

        assert largest_ratio(maps) > 10
        assert largest_ratio(erased) < 1

    def test_it_is_a_projection_of_the_rank_that_was_asked_for(self) -> None:
        matrix, _ = between_patients(*features_of_patients(), rank=2, ridge=1e-2)

        torch.testing.assert_close(matrix @ matrix, matrix, atol=1e-4, rtol=1e-3)
        assert torch.linalg.matrix_rank(matrix, atol=1e-3) == 2

    def test_strength_leaves_its_complement_of_what_is_erased(self) -> None:
        maps, whose = features_of_patients()
        matrix, mean = between_patients(maps, whose, rank=2, ridge=1e-2)

        erased = FeatureEraser(matrix[None], mean[None], strength=0.75)(maps, torch.zeros(1))

        left = torch.einsum("ij,njhw->nihw", matrix, erased - mean)
        before = torch.einsum("ij,njhw->nihw", matrix, maps - mean)
        torch.testing.assert_close(left, before / 4, atol=1e-3, rtol=1e-3)

    def test_each_part_of_the_schedule_has_its_own_matrix(self) -> None:
        maps = torch.ones(2, 1, 1, 1)
        eraser = FeatureEraser(torch.tensor([0.0, 1.0]).view(2, 1, 1), torch.zeros(2, 1, 1, 1))

        assert eraser(maps, torch.tensor([0.49, 0.5])).flatten().tolist() == [1.0, 0.0]
        assert eraser(maps, torch.tensor([0.99])).flatten().tolist() == [0.0, 0.0]

    def test_too_few_patients_are_an_error(self, cohort: Cohort) -> None:
        pixels = (images(12)[:, 0] * 255).byte()
        units = [row.unit for row in cohort]

        with pytest.raises(CohortError, match="6 patients with several images give no 6"):
            fit_feature_erasers(tiny_pipeline(), pixels, units, SubspaceSettings(rank=6))


def noisy(count: int) -> Tensor:
    return torch.randn(count, 4, 4, 4, generator=torch.Generator().manual_seed(1))


class TestDenoiser:
    def test_erased_features_are_what_the_blocks_give(self, cohort: Cohort) -> None:
        pipeline = tiny_pipeline()
        pixels = (images(12)[:, 0] * 255).byte()
        settings = SubspaceSettings(rank=2, buckets=2, draws=1)
        features = fit_feature_erasers(pipeline, pixels, [row.unit for row in cohort], settings)
        unet, seen = pipeline.denoiser.unet, []
        erasers = Erasers(features=features)

        with torch.no_grad(), erasers.acting_on(unet, 700):
            handle = unet.mid_block.register_forward_hook(lambda *call: seen.append(call[2]))
            pipeline.denoiser(noisy(2), 700, Condition.unconditional(2))
            handle.remove()

        eraser = features["mid_block"]
        left = torch.einsum("ij,njhw->nihw", eraser.matrices[1], seen[0] - eraser.means[1])
        assert features.keys() == {"mid_block", "up_blocks.0", "up_blocks.1"}
        assert left.abs().max() < 1e-4

    @torch.no_grad()
    def test_nothing_stays_behind(self) -> None:
        denoiser, condition = tiny_denoiser(), Condition.unconditional(1)
        plain = denoiser(noisy(1), 700, condition)
        eraser = FeatureEraser(torch.eye(16)[None], torch.zeros(1, 16, 1, 1))
        erasers = Erasers(features={"mid_block": eraser})

        erased = denoiser(noisy(1), 700, condition, erasers=erasers)

        assert not torch.allclose(erased, plain, atol=1e-5)
        assert torch.equal(denoiser(noisy(1), 700, condition), plain)

    @torch.no_grad()
    @pytest.mark.parametrize("mode", [SASMode.CONTEXT, SASMode.COMBINED])
    def test_modes_of_the_context_use_its_eraser(self, mode: SASMode) -> None:
        denoiser, condition = tiny_denoiser(), Condition.unconditional(1)
        without = {SASMode.CONTEXT: SASSettings(strength=0.0), SASMode.COMBINED: SASSettings()}
        nothing = Erasers(context=TokenEraser(torch.zeros(WIDTH, WIDTH), torch.zeros(WIDTH)))
        everything = Erasers(context=TokenEraser(torch.eye(WIDTH), torch.zeros(WIDTH)))
        settings = SASSettings(mode=mode)

        kept = denoiser(noisy(1), 7, condition, settings, nothing)
        erased = denoiser(noisy(1), 7, condition, settings, everything)

        assert torch.equal(kept, denoiser(noisy(1), 7, condition, without[mode]))
        assert not torch.allclose(erased, kept, atol=1e-5)

    def test_without_an_eraser_they_are_an_error(self) -> None:
        with pytest.raises(OptionError, match="SAS mode 'context' without an eraser"):
            tiny_denoiser()(
                noisy(1), 7, Condition.unconditional(1), SASSettings(mode=SASMode.CONTEXT)
            )

    @torch.no_grad()
    def test_mode_value_changes_rows_of_findings_alone(self) -> None:
        denoiser = tiny_denoiser()
        branches = Condition.cat(
            [
                Condition.unconditional(1),
                Condition.of_attribute(Branch.SEX, torch.tensor([1])),
            ]
        )
        value = SASSettings(mode=SASMode.VALUE, rank_cap=1.0)

        on = denoiser(noisy(2), 7, branches, value)
        off = denoiser(noisy(2), 7, branches, SASSettings(strength=0.0))

        assert not torch.allclose(on[0], off[0], atol=1e-5)
        torch.testing.assert_close(on[1], off[1])


def test_erasers_of_a_pipeline_reach_every_step() -> None:
    pipeline = tiny_pipeline()
    plain = pipeline(images(1), generators=generators(1)).images
    eraser = FeatureEraser(torch.eye(16)[None], torch.zeros(1, 16, 1, 1))

    pipeline.erasers = Erasers(features={"mid_block": eraser})
    erased = pipeline(images(1), generators=generators(1)).images
    pipeline.erasers = Erasers()

    assert not torch.allclose(erased, plain, atol=1e-4)
    assert torch.equal(pipeline(images(1), generators=generators(1)).images, plain)


class TestAblation:
    @pytest.fixture
    def fitted(self, cohort: Cohort, tiny_bundle: Path, tmp_path: Path) -> FittedErasers:
        reference = Reference(cohort, SIZE, tmp_path / "cache")
        return FittedErasers(tiny_bundle, reference, SubspaceSettings(rank=2, draws=1))

    def test_every_one_runs_and_differs_from_plain_diffusion_and_the_others(
        self, fitted: FittedErasers, cohort: Cohort, tiny_bundle: Path
    ) -> None:
        methods = [Ablation(fitted, name, how, 0.3) for name, how in ABLATIONS.items()]
        methods += [Ablation(fitted, name, how, 0.3, True) for name, how in WITH_SUBSPACE.items()]
        pipeline = PrivDiffPipeline.from_pretrained(tiny_bundle)
        plain = redraw_with(pipeline, images(2), Profile.VANILLA, 0.3, 0)

        copies = [plain, *(method.anonymize(cohort, images(2), 0) for method in methods)]

        assert all(copy.shape == plain.shape for copy in copies)
        assert all(copy.isfinite().all() for copy in copies)
        for first in range(len(copies)):
            for second in range(first):
                assert not torch.equal(copies[first], copies[second])

    def test_the_name_of_a_profile_is_not_needed(
        self, fitted: FittedErasers, tiny_bundle: Path
    ) -> None:
        settings = PROFILES[Profile.STANDARD]
        named = BundleMethod(tiny_bundle, Profile.STANDARD, 0.3)

        assert Ablation(fitted, "both", settings, 0.3).fingerprint == named.fingerprint

    def test_every_parameter_changes_the_fingerprint(self, fitted: FittedErasers) -> None:
        method = Ablation(fitted, "erased", ABLATIONS["SAS context (LEACE)"], 0.3)
        fewer = replace(fitted, subspace=SubspaceSettings(rank=3))
        changed = [
            replace(method, settings=ABLATIONS["SAS combined"]),
            replace(method, strength=0.4),
            replace(method, erases_features=True),
            replace(method, fitted=fewer),
        ]

        assert method.fingerprint not in {other.fingerprint for other in changed}

    def test_those_without_an_eraser_are_left_out(
        self, fitted: FittedErasers, tmp_path: Path
    ) -> None:
        def families(cohort: Cohort) -> set[str]:
            reference = replace(fitted.reference, cohort=cohort)
            return {method.family for method in ablations(fitted.bundle, reference, 0.3)}

        (tmp_path / "many").mkdir()
        many = read_manifest(write_cohort(tmp_path / "many", patients=17))
        few = many.where(lambda row: row.unit != many.rows[0].unit)
        sexless = Cohort(many.root, tuple(replace(row, sex=None) for row in many))

        assert families(many) == {*ABLATIONS, *WITH_SUBSPACE}
        assert families(few) == {*ABLATIONS}
        assert {*ABLATIONS} - families(sexless) == {"SAS context (LEACE)", "SAS combined"}

    def test_what_leace_is_fitted_to_changes_the_fingerprint(
        self, fitted: FittedErasers, cohort: Cohort
    ) -> None:
        older = Cohort(cohort.root, tuple(replace(row, age_years=90.0) for row in cohort))
        other = replace(fitted, reference=replace(fitted.reference, cohort=older))

        assert other.fingerprint != fitted.fingerprint
