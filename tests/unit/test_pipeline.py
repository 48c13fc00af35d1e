"""The pipeline as a whole, on dummy components."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from privdiff_infer.errors import BundleError, OptionError
from privdiff_infer.model.conditioning import Condition
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.profiles import PROFILES
from privdiff_infer.vocabulary import FindingState, Profile
from tests.unit.tiny import generators, images, tiny_pipeline


@pytest.fixture(scope="module")
def pipeline() -> PrivDiffPipeline:
    return tiny_pipeline()


RUNNABLE = [Profile.STANDARD, Profile.FAST, Profile.VANILLA, Profile.PAPER]


@pytest.mark.parametrize("profile", RUNNABLE)
def test_every_profile_is_deterministic_with_a_seed(
    pipeline: PrivDiffPipeline, profile: Profile
) -> None:
    first = pipeline(images(2), profile=profile, generators=generators(2)).images
    second = pipeline(images(2), profile=profile, generators=generators(2)).images
    other = pipeline(images(2), profile=profile, generators=generators(2, first=9)).images

    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("profile", RUNNABLE)
def test_output_has_the_shape_and_range_of_the_input(
    pipeline: PrivDiffPipeline, profile: Profile
) -> None:
    output = pipeline(images(2), profile=profile, generators=generators(2)).images

    assert output.shape == images(2).shape
    assert output.dtype == torch.float32
    assert 0 <= output.min() and output.max() <= 1
    assert output.isfinite().all()


def test_an_image_does_not_depend_on_its_batch_or_position(pipeline: PrivDiffPipeline) -> None:
    batch = images(3)
    seeds = generators(3)
    together = pipeline(batch, generators=seeds).images
    order = [2, 0, 1]

    shuffled = pipeline(batch[order], generators=[generators(3)[i] for i in order]).images
    alone = pipeline(batch[1:2], generators=[generators(3)[1]]).images

    torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(alone, together[1:2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("profile", RUNNABLE)
def test_saving_and_loading_changes_no_bit(
    pipeline: PrivDiffPipeline, profile: Profile, tmp_path: Path
) -> None:
    pipeline.save_pretrained(tmp_path)

    loaded = PrivDiffPipeline.from_pretrained(tmp_path)

    expected = pipeline(images(1), profile=profile, generators=generators(1)).images
    assert torch.equal(
        loaded(images(1), profile=profile, generators=generators(1)).images, expected
    )


@torch.no_grad()
def test_an_adapter_is_merged_for_its_profile_alone_and_saved_again(
    pipeline: PrivDiffPipeline, tmp_path: Path
) -> None:
    pipeline.save_pretrained(tmp_path / "first")
    tuned = tiny_pipeline().denoiser
    tuned.add_adapter("fast", rank=2)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            weight.fill_(0.1)
    tuned.save_adapter("fast", tmp_path / "first" / "adapters" / "fast")

    loaded = PrivDiffPipeline.from_pretrained(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second")
    again = PrivDiffPipeline.from_pretrained(tmp_path / "second")

    def redraw(of: PrivDiffPipeline, profile: Profile) -> torch.Tensor:
        return of(images(1), profile=profile, generators=generators(1)).images

    condition = Condition.unconditional(1)
    merged = loaded.denoiser.merged(tmp_path / "first" / "adapters" / "fast")
    sample = torch.randn(1, 4, 4, 4)
    torch.testing.assert_close(merged(sample, 7, condition), tuned(sample, 7, condition))
    assert not torch.equal(redraw(loaded, Profile.FAST), redraw(pipeline, Profile.FAST))
    assert torch.equal(redraw(loaded, Profile.VANILLA), redraw(pipeline, Profile.VANILLA))
    assert torch.equal(redraw(again, Profile.FAST), redraw(loaded, Profile.FAST))


def test_without_generators_two_calls_differ(pipeline: PrivDiffPipeline) -> None:
    assert not torch.equal(pipeline(images(1)).images, pipeline(images(1)).images)


def test_at_strength_1_nothing_of_the_latent_start_is_left(pipeline: PrivDiffPipeline) -> None:
    findings = torch.full((1, 15), FindingState.UNKNOWN.value)
    attributes = {"age": torch.tensor([2]), "sex": torch.tensor([1])}
    source = images(1)

    def redraw(image: torch.Tensor) -> torch.Tensor:
        return pipeline(
            image,
            profile=Profile.FAST,  # one branch: no identity prototype
            strength=1.0,
            findings=findings,
            generators=generators(1),
            **attributes,
        ).images

    assert torch.equal(redraw(source), redraw(1 - source))


def test_encoded_images_as_the_start_change_no_bit(pipeline: PrivDiffPipeline) -> None:
    start = pipeline.autoencoder.encode(images(2)).detach()

    given = pipeline(images(2), start_latents=start, generators=generators(2)).images

    assert torch.equal(given, pipeline(images(2), generators=generators(2)).images)


def test_another_start_draws_another_image_under_the_same_conditions(
    pipeline: PrivDiffPipeline,
) -> None:
    start = pipeline.autoencoder.encode(images(1, seed=5)).detach()

    plain = pipeline(images(1), generators=generators(1))
    other = pipeline(images(1), start_latents=start, generators=generators(1))
    noise_alone = pipeline(images(1), start_latents=start, strength=1.0, generators=generators(1))

    assert not torch.allclose(other.images, plain.images, atol=1e-3)
    assert torch.equal(other.findings, plain.findings)
    assert torch.equal(
        noise_alone.images, pipeline(images(1), strength=1.0, generators=generators(1)).images
    )


def test_a_start_of_another_shape_is_an_error(pipeline: PrivDiffPipeline) -> None:
    with pytest.raises(OptionError, match=r"shape \(1, 4, 4, 4\) for images of \(2, 4, 4, 4\)"):
        pipeline(images(2), start_latents=torch.zeros(1, 4, 4, 4))


def test_settings_without_a_name_sample_as_the_profile_that_has_them(
    pipeline: PrivDiffPipeline,
) -> None:
    settings = PROFILES[Profile.FAST]

    named = pipeline(images(1), profile=Profile.FAST, generators=generators(1)).images

    assert torch.equal(
        pipeline(images(1), profile=settings, generators=generators(1)).images, named
    )


def test_findings_that_are_given_are_used_and_others_are_read(pipeline: PrivDiffPipeline) -> None:
    given = torch.full((1, 15), FindingState.PRESENT.value)

    output = pipeline(images(1), findings=given, generators=generators(1))
    read = pipeline(images(1), generators=generators(1))

    assert torch.equal(output.findings, given)
    assert torch.equal(read.findings, pipeline.read_findings(images(1)))


def test_a_rare_finding_is_present_at_a_probability_that_is_high_for_it() -> None:
    pipeline = tiny_pipeline()
    pipeline.reader.prevalence.fill_(0.05)
    for weight in (pipeline.reader.head.weight, pipeline.reader.head.bias):
        torch.nn.init.zeros_(weight)
    pipeline.reader.head.bias.data[:3] = torch.tensor([0.15, 0.05, 0.01]).logit()

    states = pipeline.read_findings(images(1))[0, :3].tolist()

    assert states == [FindingState.PRESENT, FindingState.UNKNOWN, FindingState.ABSENT]


def test_progress_is_reported_for_every_step(pipeline: PrivDiffPipeline) -> None:
    seen: list[tuple[int, int]] = []

    pipeline(
        images(1),
        strength=0.5,
        num_inference_steps=10,
        generators=generators(1),
        callback=lambda done, total: seen.append((done, total)),
    )

    assert seen == [(done, 5) for done in range(1, 6)]


@pytest.mark.parametrize("strength", [0.001, 0.05, 0.5, 1.0])
def test_extreme_strengths_give_finite_images(pipeline: PrivDiffPipeline, strength: float) -> None:
    for profile in RUNNABLE:
        output = pipeline(images(1), profile=profile, strength=strength, generators=generators(1))

        assert output.images.isfinite().all()


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01])
def test_a_strength_outside_0_to_1_is_refused(pipeline: PrivDiffPipeline, strength: float) -> None:
    with pytest.raises(OptionError, match="strength"):
        pipeline(images(1), strength=strength)


def test_too_few_generators_are_refused(pipeline: PrivDiffPipeline) -> None:
    with pytest.raises(OptionError, match="1 generators for 2 images"):
        pipeline(images(2), generators=generators(1))


def test_a_folder_without_a_model_index_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no model_index\.json"):
        PrivDiffPipeline.from_pretrained(tmp_path)
