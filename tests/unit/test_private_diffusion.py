"""Differentially private training: what a patient can change, and what epsilon says of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from privdiff_training.config import load_config
from privdiff_training.loop import train
from privdiff_training.stages.diffusion import DiffusionConfig
from privdiff_training.stages.private_diffusion import PrivateDiffusionStage, delta_for

from privdiff_infer.errors import ConfigError
from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from tests.unit.tiny import tiny_denoiser, tiny_pipeline
from tests.unit.workshop import Workshop, step_of, weights

KEYS = {"rank": 2, "steps": 6, "batch_size": 3, "latent_versions": 1}


def private_stage(root: Path, *, epsilon: float = 8.0, clip: float = 0.5, **changes):
    workshop = Workshop(root)
    config = load_config(workshop.config("diffusion", **{**KEYS, **changes}), DiffusionConfig)
    pipeline = tiny_pipeline()
    return PrivateDiffusionStage(
        config,
        pipeline.autoencoder,
        pipeline.identity,
        tiny_denoiser(),
        epsilon=epsilon,
        clip=clip,
        secret=17,
    )


def gradient(stage: PrivateDiffusionStage, index: int = 0) -> torch.Tensor:
    """Return the gradient that the loop gets, as one vector."""
    loss, _ = stage.loss("denoiser", step_of(stage, "denoiser", index))
    loss.backward()
    found = [weight.grad.flatten() for weight in stage.clipping.params]
    stage.denoiser.zero_grad(set_to_none=True)
    return torch.cat(found)


def open_lora(stage: PrivateDiffusionStage) -> None:
    """Let both halves of the LoRA weights have gradients, as after the first steps."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in stage.clipping.params:
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))


def step_with_patients(stage: PrivateDiffusionStage, least: int) -> int:
    return next(index for index in range(100) if len(stage.drawn_rows(index)) >= least)


def test_all_steps_spend_the_epsilon_that_was_asked_for(tmp_path):
    stage = private_stage(tmp_path, epsilon=3.0)
    spent = [stage.privacy_spent(steps)["epsilon"] for steps in (0, 1, 3, 6)]

    assert spent[0] == 0
    assert spent == sorted(spent)
    assert 2.7 < spent[-1] <= 3.0
    assert stage.privacy_spent(6)["delta"] == delta_for(5) == pytest.approx(0.02)


def test_a_smaller_epsilon_takes_more_noise(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    strict = private_stage(tmp_path / "a", epsilon=1.0)
    lax = private_stage(tmp_path / "b", epsilon=20.0)
    assert strict.noise_multiplier > 2 * lax.noise_multiplier


def test_a_patient_takes_part_with_one_image_and_as_often_as_accounted(tmp_path):
    stage = private_stage(tmp_path)
    cohort = stage.images.cohort.rows
    took_part: Counter[str] = Counter()
    images: Counter[int] = Counter()
    for index in range(400):
        rows = stage.drawn_rows(index).tolist()
        units = [cohort[row].unit for row in rows]
        assert len(set(units)) == len(units)
        took_part.update(units)
        images.update(rows)

    assert stage.sample_rate == 3 / len(took_part) == 0.6
    assert all(200 < count < 280 for count in took_part.values())
    assert set(images) == set(range(len(cohort))), "every image of a patient is drawn in time"


def test_what_one_patient_adds_is_never_longer_than_the_clip(tmp_path):
    stage = private_stage(tmp_path, clip=1e-3)
    open_lora(stage)
    stage.clipping.noise_multiplier = 0.0
    index = step_with_patients(stage, 2)
    taking_part = len(stage.drawn_rows(index))

    length = gradient(stage, index).norm() * stage.config.batch_size
    assert 0 < length <= 1e-3 * taking_part * 1.001


def test_gradients_of_patients_are_those_of_each_alone(tmp_path):
    stage = private_stage(tmp_path, clip=1e6)
    open_lora(stage)
    stage.clipping.noise_multiplier = 0.0
    index = step_with_patients(stage, 3)
    taking_part = len(stage.drawn_rows(index))
    together = gradient(stage, index)

    stage.mean_loss(stage.drawn_rows(index), step_of(stage, "denoiser", index)).backward()
    plain = torch.cat([weight.grad.flatten() for weight in stage.clipping.params])
    scale = taking_part / stage.config.batch_size
    assert torch.allclose(together, plain * scale, atol=1e-5, rtol=1e-3)


def test_noise_comes_from_the_secret_alone(tmp_path):
    stage = private_stage(tmp_path)
    first, again = gradient(stage, 0), gradient(stage, 0)
    assert torch.equal(first, again), "a run that is resumed equals one that is not"
    stage.secret = 18
    assert not torch.allclose(first, gradient(stage, 0))


def test_a_step_without_patients_is_noise(tmp_path):
    stage = private_stage(tmp_path, clip=0.5)
    stage.sample_rate = 0.0
    found = gradient(stage, 0)
    expected = stage.noise_multiplier * 0.5 / stage.config.batch_size
    assert found.std().item() == pytest.approx(expected, rel=0.1)


def test_it_trains_and_its_weights_end_in_the_denoiser(tmp_path):
    stage = private_stage(tmp_path)
    start = tiny_denoiser()
    start.save_pretrained(tmp_path / "start" / "denoiser")
    train(stage, tmp_path / "run", tmp_path / "out")

    before, after = weights(tmp_path / "start"), weights(tmp_path / "out")
    assert before.keys() == {name for name in after if name.startswith("denoiser")}
    assert any(not torch.equal(after[name], weight) for name, weight in before.items())
    PrivDiffDenoiser.from_pretrained(tmp_path / "out" / "denoiser")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": None}, "LoRA weights in float32"),
        ({"mixed_precision": "bf16"}, "LoRA weights in float32"),
        ({"batch_size": 7}, "7 patients a step, but 5 train"),
    ],
)
def test_what_cannot_be_private_is_refused(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        private_stage(tmp_path, **changes)


def test_the_critic_is_left_as_it_is(tmp_path):
    stage = private_stage(tmp_path)
    assert not any(isinstance(network, IdentityEmbedder) for network in stage.networks.values())
