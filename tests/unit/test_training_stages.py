"""Every stage trains, stops, resumes and exports, on a cohort of a dozen small images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from privdiff_training.assemble import BundleConfig, assemble_bundle
from privdiff_training.loop import Stage, train
from privdiff_training.stages.registry import STAGES, build_stage
from safetensors.torch import load_file

from privdiff_infer.errors import BundleError, CohortError, ConfigError
from privdiff_infer.model.autoencoder import RadiographAutoencoder
from privdiff_infer.model.critics import RadiographReader
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.vocabulary import FINDING_TOKENS, Profile
from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import SIZE, TINY_RESNET, TINY_UNET, generators, images

LATENT: dict[str, Any] = {"latent_versions": 2, "batch_size": 4}
STAGE_KEYS: dict[str, dict[str, Any]] = {
    "autoencoder": {
        "batch_size": 4,
        "latent_channels": 4,
        "block_out_channels": [8, 8, 8],
        "crop_size": 32,
        "adversarial_weight": 0.1,
        "feature_weight": 0.1,
        "adversarial_first_step": 1,
    },
    "identity": {
        "batch_size": 4,
        "backbone": TINY_RESNET,
        "critic_image_size": 32,
        "embedding_dim": 8,
        "prototypes": 4,
    },
    "reader": {"batch_size": 8, "backbone": TINY_RESNET, "critic_image_size": 32},
    "diffusion": {**LATENT, "unet": TINY_UNET},
    "suppression": {**LATENT, "rank": 2, "adversarial_rows": 2},
    "distillation": {**LATENT, "rank": 2},
}


def plain(value: Any) -> Any:
    """Turn tuples into lists, which YAML can hold."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


class Workshop:
    """A folder with a cohort, configurations and the bundle that is being built."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bundle = root / "bundle"
        self.manifest = write_cohort(root)

    def config(self, stage: str, **changes: Any) -> Path:
        data = {
            "manifest": str(self.manifest),
            "image_size": SIZE,
            "cache_dir": str(self.root / "cache"),
        }
        keys = {"stage": stage, "steps": 3, "checkpoint_every": 2, "data": data}
        path = self.root / f"{stage}.yaml"
        path.write_text(yaml.safe_dump(plain({**keys, **STAGE_KEYS[stage], **changes})))
        return path

    def stage(self, name: str, **changes: Any) -> Stage[Any]:
        return build_stage(name, self.config(name, **changes), self.bundle, None)

    def train(self, name: str, run: str = "run", **changes: Any) -> None:
        train(self.stage(name, **changes), self.root / run / name, self.bundle)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A workshop in which every stage has run once."""
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    for name in STAGES:
        if name in STAGE_KEYS:
            workshop.train(name)
    return workshop


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


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}/{name}": weight
        for path in sorted(folder.rglob("*.safetensors"))
        for name, weight in load_file(path).items()
    }


@pytest.mark.parametrize("name", sorted(STAGE_KEYS))
def test_a_resumed_run_equals_an_uninterrupted_one(
    built: Workshop, tmp_path: Path, name: str
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(built.stage(name, steps=5), tmp_path / "run-1", whole)
    interrupted = built.stage(name, steps=5)
    stop_at(interrupted, step=3)

    with pytest.raises(Stopped):
        train(interrupted, tmp_path / "run-2", parts)
    train(built.stage(name, steps=5), tmp_path / "run-2", parts)

    expected, actual = weights(whole), weights(parts)
    assert expected.keys() == actual.keys()
    for key, weight in expected.items():
        assert torch.equal(weight, actual[key]), key


def test_training_changes_the_weights(built: Workshop, tmp_path: Path) -> None:
    train(built.stage("reader", steps=1), tmp_path / "run-1", tmp_path / "short")
    train(built.stage("reader", steps=3), tmp_path / "run-2", tmp_path / "long")

    short, long = weights(tmp_path / "short"), weights(tmp_path / "long")

    assert any(not torch.equal(short[key], long[key]) for key in short)


def test_a_leg_starts_from_the_weights_of_a_bundle(built: Workshop) -> None:
    config = built.config("reader")

    stage = build_stage("reader", config, built.bundle, init_from=built.bundle)

    stored = load_file(built.bundle / "reader" / "diffusion_pytorch_model.safetensors")
    started = stage.networks["reader"].state_dict()
    assert all(torch.equal(started[key], weight) for key, weight in stored.items())


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
