"""Every stage trains, stops, resumes and exports, on a cohort of a dozen small images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft.utils import get_peft_model_state_dict
from privdiff_training.assemble import BundleConfig, assemble_bundle
from privdiff_training.loop import Stage, train
from privdiff_training.sampling import Step
from privdiff_training.stages.registry import build_stage
from safetensors.torch import load_file

from privdiff_infer.errors import BundleError, CohortError, ConfigError
from privdiff_infer.model.autoencoder import RadiographAutoencoder
from privdiff_infer.model.conditioning import Condition
from privdiff_infer.model.critics import RadiographReader
from privdiff_infer.model.denoiser import ADAPTER_WEIGHTS
from privdiff_infer.pipeline import ADAPTERS, PrivDiffPipeline
from privdiff_infer.vocabulary import FINDING_TOKENS, Branch, FindingState, Profile
from tests.unit.tiny import SIZE, TINY_UNET, generators, images
from tests.unit.workshop import STAGE_KEYS, Workshop, step_of, weights


def test_the_stages_build_a_bundle_that_anonymizes(built: Workshop, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("# Card\n")
    config = BundleConfig(
        name="tiny",
        version="0",
        licence="Apache-2.0",
        summary="test",
        training_data="synthetic",
        intended_use="tests",
        image_size=SIZE,
        model_card=card,
        operating_points={Profile.STANDARD: {"strength": 0.5}},  # type: ignore[dict-item]
    )

    assemble_bundle(built.bundle, config, tmp_path / "tiny")
    pipeline = PrivDiffPipeline.from_pretrained(tmp_path / "tiny")

    assert set(pipeline.adapters) == {"standard", "fast"}
    for profile in Profile:
        redrawn = pipeline(images(1), profile=profile, generators=generators(1)).images
        assert redrawn.isfinite().all()


class Stopped(Exception):
    """Stands for a killed process."""


def stop_at(stage: Stage[Any], step: int) -> None:
    original: Callable[..., Any] = stage.loss

    def loss(player: str, at: Any) -> Any:
        if at.index == step:
            raise Stopped
        return original(player, at)

    stage.loss = loss  # type: ignore[method-assign]


LITERAL = {"spg_mode": "paper", "adapter": "paper"}


@pytest.mark.parametrize(
    ("name", "changes"), [*((name, {}) for name in sorted(STAGE_KEYS)), ("suppression", LITERAL)]
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    built: Workshop, tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(built.stage(name, steps=5, **changes), tmp_path / "run-1", whole)
    interrupted = built.stage(name, steps=5, **changes)
    stop_at(interrupted, step=3)

    with pytest.raises(Stopped):
        train(interrupted, tmp_path / "run-2", parts)
    train(built.stage(name, steps=5, **changes), tmp_path / "run-2", parts)

    expected, actual = weights(whole), weights(parts)
    assert expected.keys() == actual.keys()
    for key, weight in expected.items():
        assert torch.equal(weight, actual[key]), key


def test_a_watched_run_ends_where_it_is_told_as_if_that_were_its_last_step(
    built: Workshop, tmp_path: Path
) -> None:
    seen = []

    def watch(step: int, figures: Mapping[str, float]) -> bool:
        seen.append(step)
        assert figures
        return step == 3

    train(built.stage("suppression", steps=3), tmp_path / "run-1", tmp_path / "short")
    train(built.stage("suppression", steps=9), tmp_path / "run-2", tmp_path / "early", watch)

    assert seen == [1, 2, 3]
    expected, actual = weights(tmp_path / "short"), weights(tmp_path / "early")
    assert expected.keys() == actual.keys()
    for key, weight in expected.items():
        assert torch.equal(weight, actual[key]), key


def test_training_changes_the_weights(built: Workshop, tmp_path: Path) -> None:
    train(built.stage("reader", steps=1), tmp_path / "run-1", tmp_path / "short")
    train(built.stage("reader", steps=3), tmp_path / "run-2", tmp_path / "long")

    short, long = weights(tmp_path / "short"), weights(tmp_path / "long")

    assert any(not torch.equal(short[key], long[key]) for key in short)


@pytest.fixture
def other_precision() -> Iterator[None]:
    """Let accelerate, which fixes the precision once per process, take another one."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_bf16_computes_roughly_the_same_and_keeps_float32_weights(
    built: Workshop, tmp_path: Path, other_precision: None
) -> None:
    stage = built.stage("diffusion", steps=2, mixed_precision="bf16")
    start = {name: weight.clone() for name, weight in stage.networks["denoiser"].named_parameters()}
    losses = []
    original: Callable[..., Any] = stage.loss

    def loss(player: str, step: Step) -> Any:
        value, figures = original(player, step)
        losses.append(value.item())
        return value, figures

    exact = original("denoiser", step_of(stage, "denoiser"))[0].item()
    stage.loss = loss  # type: ignore[method-assign]
    train(stage, tmp_path / "run", tmp_path / "bundle")

    assert losses[0] == pytest.approx(exact, rel=2e-2)
    assert losses[0] != exact
    trained = weights(tmp_path / "bundle" / "denoiser")
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert all(weight.isfinite().all() for weight in trained.values())
    assert any(not torch.equal(trained[f"denoiser/{name}"], start[name]) for name in start)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_of_the_paper_is_the_plain_squared_error_of_the_guided_prediction(
    built: Workshop, prediction_type: str
) -> None:
    stage = built.stage(
        "suppression", schedule={"prediction_type": prediction_type}, batch_size=32, **LITERAL
    )
    parts = {"phi": -0.3, "diagnostic": 0.5, "sensitive": 0.9}

    def predict(noisy: torch.Tensor, _: Any, condition: Condition, __: Any) -> torch.Tensor:
        unknown = (condition.findings == FindingState.UNKNOWN).all(dim=1)
        is_phi = unknown & (condition.branch == Branch.FINDINGS)
        part = torch.where(
            condition.branch == Branch.FINDINGS, parts["diagnostic"], parts["sensitive"]
        )
        part = torch.where(is_phi, parts["phi"], part)
        return noisy * part[:, None, None, None]

    stage.networks["denoiser"] = predict  # type: ignore[assignment]
    loss, _ = stage.loss("denoiser", step_of(stage, "denoiser"))

    latents, noise, timesteps = stage._noised(step_of(stage, "denoiser"))  # type: ignore[attr-defined]
    noisy = stage.scheduler.add_noise(latents, noise, timesteps)  # type: ignore[attr-defined]
    w_diag, w_s = stage.config.findings_weight, stage.config.attribute_weight
    weight = parts["phi"] + w_diag * (parts["diagnostic"] - parts["phi"])
    weight -= w_s * (parts["sensitive"] - parts["phi"])
    signal = stage.scheduler.alphas_cumprod[timesteps][:, None, None, None]  # type: ignore[attr-defined]
    velocity = signal.sqrt() * noise - (1 - signal).sqrt() * latents
    target = noise if prediction_type == "epsilon" else velocity
    torch.testing.assert_close(loss, (weight * noisy - target).square().mean())


@pytest.mark.parametrize("name", ["suppression", "distillation"])
def test_a_leg_starts_from_the_adapter_of_a_bundle(built: Workshop, name: str) -> None:
    stage = built.stage(name, init_from=built.bundle)

    adapter, denoiser = stage.config.adapter, stage.networks["denoiser"]
    stored = load_file(built.bundle / ADAPTERS / adapter / ADAPTER_WEIGHTS)
    started = get_peft_model_state_dict(denoiser.unet, adapter_name=adapter)
    assert started.keys() == stored.keys()
    assert all(torch.equal(started[key], weight) for key, weight in stored.items())
    trainable = {key for key, weight in denoiser.named_parameters() if weight.requires_grad}
    assert len(trainable) == len(stored)
    assert all("lora_" in key for key in trainable)


def test_an_adapter_of_another_rank_is_an_error(built: Workshop) -> None:
    with pytest.raises(ConfigError, match=r"rank: 3, but the adapter fast .* has the rank 2"):
        built.stage("distillation", init_from=built.bundle, rank=3)


def test_an_export_that_fails_leaves_the_component_as_it_was(
    built: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(built.bundle / "reader", bundle / "reader")

    def half(_: RadiographReader, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise Stopped

    monkeypatch.setattr(RadiographReader, "save_pretrained", half)
    with pytest.raises(Stopped):
        built.stage("reader").export(bundle)
    monkeypatch.undo()

    expected = weights(built.bundle / "reader")
    assert all(torch.equal(weights(bundle / "reader")[key], expected[key]) for key in expected)
    RadiographReader.from_pretrained(bundle / "reader")


def test_suppression_without_decoded_rows_has_no_adversary(built: Workshop) -> None:
    stage = built.stage("suppression", adversarial_rows=0)

    assert [player.name for player in stage.players()] == ["denoiser"]
    assert stage.loss("denoiser", step_of(stage, "denoiser"))[0].isfinite()


def test_a_leg_starts_from_the_weights_of_a_bundle(built: Workshop) -> None:
    config = built.config("reader")

    stage = build_stage("reader", config, built.bundle, init_from=built.bundle)

    stored = load_file(built.bundle / "reader" / "diffusion_pytorch_model.safetensors")
    started = stage.networks["reader"].state_dict()
    assert all(torch.equal(started[key], weight) for key, weight in stored.items())


def test_a_batch_that_cannot_be_divided_among_the_processes_is_an_error(
    built: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = built.stage("reader")
    monkeypatch.setattr(Accelerator, "num_processes", 3)

    with pytest.raises(ConfigError, match="batch_size: 8 rows cannot be divided among 3 processes"):
        train(stage, tmp_path / "run", tmp_path / "bundle")


def test_a_frozen_encoder_keeps_the_latents_of_the_first_leg(
    built: Workshop, tmp_path: Path
) -> None:
    config = built.config("autoencoder", freeze_encoder=True)
    stage = build_stage("autoencoder", config, tmp_path / "second", init_from=built.bundle)
    train(stage, tmp_path / "run", tmp_path / "second")

    first, second = (
        RadiographAutoencoder.from_pretrained(bundle / "autoencoder")
        for bundle in (built.bundle, tmp_path / "second")
    )

    latents = first.encode(images(2))
    assert torch.equal(second.encode(images(2)), latents)
    assert not torch.equal(second.decode(latents), first.decode(latents))


def test_a_later_leg_may_add_the_convolution_on_the_pixel_grid(
    built: Workshop, tmp_path: Path
) -> None:
    config = built.config("autoencoder", freeze_encoder=True, detail_channels=2)
    stage = build_stage("autoencoder", config, tmp_path / "later", init_from=built.bundle)
    first = RadiographAutoencoder.from_pretrained(built.bundle / "autoencoder")
    latents = first.encode(images(2))
    assert torch.equal(stage.networks["autoencoder"].decode(latents), first.decode(latents))

    train(stage, tmp_path / "run", tmp_path / "later")

    later = RadiographAutoencoder.from_pretrained(tmp_path / "later" / "autoencoder")
    assert later.config.detail_channels == 2
    assert later.detail is not None and bool(later.detail[-1].weight.any())


def test_prevalence_counts_only_images_that_say(built: Workshop) -> None:
    reader = RadiographReader.from_pretrained(built.bundle / "reader")

    effusion = FINDING_TOKENS.index("Effusion")
    known, present = 12, 6
    assert reader.prevalence[effusion] == pytest.approx((present + 1) / (known + 2), abs=0.1)
    assert reader.prevalence[FINDING_TOKENS.index("Hernia")] < 0.1


def test_an_unknown_key_is_an_error_that_names_it(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)

    with pytest.raises(ConfigError, match=r"reader\.yaml: learning_rat: .*"):
        workshop.stage("reader", learning_rat=0.1)


def test_an_unknown_argument_of_the_unet_is_an_error_that_names_it(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)

    with pytest.raises(ConfigError, match=r"diffusion\.yaml: unet: .* no argument 'chanels'"):
        workshop.stage("diffusion", unet={**TINY_UNET, "chanels": 4})


def test_a_transformers_backbone_without_an_encoder_is_an_error_that_says_what_it_needs(
    tmp_path: Path,
) -> None:
    workshop = Workshop(tmp_path)

    with pytest.raises(ConfigError, match=r"reader\.yaml: backbone: .* needs `pretrained`"):
        workshop.stage("reader", backbone={"kind": "transformers"})


def test_a_backbone_that_is_no_mapping_is_an_error(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)

    with pytest.raises(ConfigError, match=r"reader\.yaml: backbone: "):
        workshop.stage("reader", backbone="resnet")


def test_a_configuration_in_another_encoding_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "reader.yaml"
    path.write_bytes("stage: reader  # größer\n".encode("latin-1"))

    with pytest.raises(ConfigError, match="no UTF-8 text; save the file as UTF-8"):
        build_stage("reader", path, tmp_path, None)


def test_an_unknown_stage_is_an_error_that_lists_the_stages(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)

    with pytest.raises(ConfigError, match="autoencoder, identity"):
        build_stage("denoising", workshop.config("reader"), tmp_path, None)


def test_a_stage_without_its_predecessor_says_which_component_is_missing(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)

    with pytest.raises(BundleError, match="component autoencoder is missing"):
        workshop.stage("diffusion")


def test_a_cohort_whose_patients_cross_splits_is_refused(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    text = workshop.manifest.read_text().replace(
        "p0_1.png,cohort,p0,No Finding,F,20,PA,0", "p0_1.png,cohort,p0,No Finding,F,20,PA,1"
    )
    workshop.manifest.write_text(text)

    with pytest.raises(CohortError, match=r"1 patient\(s\) have images in more than one split"):
        workshop.stage("reader")


def test_a_frozen_transformers_encoder_can_carry_a_critic(tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    encoder = Dinov2Model(
        Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    )
    encoder.save_pretrained(tmp_path / "dinov2")
    workshop = Workshop(tmp_path)

    stage = workshop.stage(
        "identity", backbone={"kind": "transformers", "pretrained": str(tmp_path / "dinov2")}
    )
    carried = stage.networks["identity"].encoder.encoder.state_dict()  # type: ignore[union-attr]

    assert all(torch.equal(carried[key], weight) for key, weight in encoder.state_dict().items())


def test_strangers_of_the_identity_adversary_are_other_patients(built: Workshop) -> None:
    stage = built.stage("suppression", adversarial_rows=4)
    rows = torch.tensor([0, 1, 2, 3])  # two images each of two patients
    embeddings = torch.eye(4)[[0, 0, 1, 1]]

    own, strangers = stage._similarities(  # type: ignore[attr-defined]
        lambda images: embeddings, images(4), images(4), rows
    )

    assert own.tolist() == [1, 1, 1, 1]
    assert strangers.tolist() == [0, 0, 0, 0]
