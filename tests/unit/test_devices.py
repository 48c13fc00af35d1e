"""Every stage computes where accelerate puts it, with nothing left behind on the CPU."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from privdiff_training.loop import train
from privdiff_training.stages import data
from privdiff_training.stages.autoencoder import AutoencoderStage
from privdiff_training.stages.diffusion import LatentData
from privdiff_training.stages.registry import Sources

from privdiff_infer.model.critics import IdentityEmbedder
from tests.unit.pretend_device import DEVICE, PretendDevice
from tests.unit.workshop import STAGE_KEYS, Workshop, step_of, weights

LEGS = [*((name, {}) for name in sorted(STAGE_KEYS)), ("suppression", {"spg_mode": "paper"})]


@pytest.mark.parametrize(("name", "changes"), LEGS)
def test_a_step_on_another_device_mixes_none_and_gives_the_same_loss(
    built: Workshop, monkeypatch: pytest.MonkeyPatch, name: str, changes: dict[str, Any]
) -> None:
    stage = built.stage(name, **changes)
    for network in stage.networks.values():
        network.eval()  # running statistics would make the second loss another one
        _moved_away(network)
    players = [player.name for player in stage.players()]
    here = [stage.loss(player, step_of(stage, player, index=1))[0].item() for player in players]

    # Autocast does not know the pretended device.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    with PretendDevice():
        for network in stage.networks.values():
            network.to(DEVICE)
        stage.to(DEVICE)
        there = []
        for player in players:
            loss, _ = stage.loss(player, step_of(stage, player, index=1))
            loss.backward()
            assert loss.device == DEVICE
            there.append(loss.item())

    assert there == pytest.approx(here, rel=1e-5)


def _moved_away(network: torch.nn.Module) -> None:
    """Let an adapter change its base: at its start the loss of distillation is rounding alone."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)


def test_a_cohort_is_encoded_on_the_device_and_kept_in_host_memory(
    built: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = built.stage("diffusion")
    sources = Sources(built.bundle, None)
    autoencoder, identity = sources.autoencoder(), sources.need("identity", IdentityEmbedder)
    empty_cache = here.config.data.model_copy(update={"cache_dir": tmp_path})
    config = here.config.model_copy(update={"data": empty_cache})

    monkeypatch.setattr(data, "process_device", lambda: DEVICE)
    with PretendDevice(), torch.no_grad():
        there = LatentData.load(config, autoencoder, identity)

    assert next(autoencoder.parameters()).device == DEVICE
    torch.testing.assert_close(there.latents, here.data.latents)  # type: ignore[attr-defined]
    assert torch.equal(there.prototypes, here.data.prototypes)  # type: ignore[attr-defined]


def test_a_first_autoencoder_does_not_depend_on_the_device(
    built: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = built.stage("autoencoder")

    monkeypatch.setattr(data, "process_device", lambda: DEVICE)
    with PretendDevice():
        there = AutoencoderStage(here.config, None)

    expected = here.networks["autoencoder"].state_dict()
    assert all(
        torch.equal(weight, expected[name])
        for name, weight in there.autoencoder.state_dict().items()
    )


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "changes"), LEGS)
def test_a_stage_trains_on_a_gpu(
    built: Workshop, tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    stage = built.stage(name, **changes)

    train(stage, tmp_path / "run", tmp_path / "bundle")

    assert {network_device(network) for network in stage.networks.values()} == {"cuda"}
    exported = weights(tmp_path / "bundle")
    assert exported
    assert all(weight.isfinite().all() for weight in exported.values())


def network_device(network: torch.nn.Module) -> str:
    return next(network.parameters()).device.type
