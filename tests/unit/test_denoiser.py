"""The denoiser: branches, processors that survive saving, adapters, other UNets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from privdiff_infer.errors import BundleError
from privdiff_infer.model.conditioning import Condition
from privdiff_infer.model.denoiser import ADAPTER_WEIGHTS, PrivDiffDenoiser
from privdiff_infer.model.sas import SASMode, SASProcessor, SASSettings
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.vocabulary import Branch, FindingState
from tests.unit.tiny import generators, images, tiny_denoiser

WEIGHTS = "diffusion_pytorch_model.safetensors"


def noisy(count: int) -> torch.Tensor:
    return torch.randn(count, 4, 4, 4, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_all_branches_in_one_batch_equal_one_call_per_branch() -> None:
    denoiser, sample = tiny_denoiser(), noisy(4)
    findings = torch.full((1, 15), FindingState.PRESENT.value)
    branches = [
        Condition.of_findings(findings),
        Condition.unconditional(1),
        Condition.of_attribute(Branch.IDENTITY, torch.tensor([3])),
        Condition.of_attribute(Branch.SEX, torch.tensor([1])),
    ]

    together = denoiser(sample, 100, Condition.cat(branches))
    apart = [denoiser(sample[i : i + 1], 100, branch) for i, branch in enumerate(branches)]

    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_every_branch_and_value_changes_the_prediction() -> None:
    denoiser, sample = tiny_denoiser(), noisy(1)
    conditions = [
        Condition.unconditional(1),
        Condition.of_findings(torch.full((1, 15), FindingState.PRESENT.value)),
        Condition.of_attribute(Branch.AGE, torch.tensor([0])),
        Condition.of_attribute(Branch.AGE, torch.tensor([4])),
        Condition.of_attribute(Branch.IDENTITY, torch.tensor([0])),
    ]

    predictions = [denoiser(sample, 100, condition) for condition in conditions]

    for first in range(len(predictions)):
        for second in range(first):
            assert not torch.allclose(predictions[first], predictions[second], atol=1e-6)


def test_sas_sits_in_every_cross_attention_and_nowhere_else() -> None:
    processors = tiny_denoiser().unet.attn_processors

    for name, processor in processors.items():
        assert isinstance(processor, SASProcessor) == ("attn2" in name)
    assert any("attn2" in name for name in processors)


@torch.no_grad()
def test_saved_and_loaded_weights_give_the_same_bits(tmp_path: Path) -> None:
    denoiser, condition = tiny_denoiser(), Condition.unconditional(2)
    denoiser.save_pretrained(tmp_path)

    loaded = PrivDiffDenoiser.from_pretrained(tmp_path)

    for settings in (SASSettings(), SASSettings(strength=0.0), SASSettings(mode=SASMode.PAPER)):
        assert torch.equal(
            loaded(noisy(2), 7, condition, settings), denoiser(noisy(2), 7, condition, settings)
        )


@torch.no_grad()
def test_sas_strength_matters_after_loading(tmp_path: Path) -> None:
    tiny_denoiser().save_pretrained(tmp_path)

    loaded = PrivDiffDenoiser.from_pretrained(tmp_path)
    on = loaded(noisy(1), 7, Condition.unconditional(1), SASSettings(strength=1.0))
    off = loaded(noisy(1), 7, Condition.unconditional(1), SASSettings(strength=0.0))

    assert not torch.allclose(on, off, atol=1e-6)


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_a_processor_weight_that_does_not_match_is_an_error(tmp_path: Path, change: str) -> None:
    tiny_denoiser().save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    gate = next(name for name in weights if name.endswith("processor.gate"))
    if change == "missing":
        del weights[gate]
    else:
        weights["unet.stray.processor.gate"] = torch.zeros(())
    save_file(weights, tmp_path / WEIGHTS)

    with pytest.raises(BundleError, match=f"1 {change} weight.*processor.gate"):
        PrivDiffDenoiser.from_pretrained(tmp_path)


@torch.no_grad()
def test_an_adapter_is_off_until_it_is_activated_and_survives_saving(tmp_path: Path) -> None:
    base, tuned = tiny_denoiser(), tiny_denoiser()
    tuned.add_adapter("standard", rank=2)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            weight.fill_(0.1)
    tuned.save_adapter("standard", tmp_path / "standard")
    condition = Condition.unconditional(1)

    loaded = tiny_denoiser()
    loaded.load_adapter(tmp_path / "standard")

    assert torch.equal(loaded(noisy(1), 7, condition), base(noisy(1), 7, condition))
    loaded.activate_adapter("standard")
    assert torch.equal(loaded(noisy(1), 7, condition), tuned(noisy(1), 7, condition))
    assert not torch.allclose(loaded(noisy(1), 7, condition), base(noisy(1), 7, condition))


def test_an_adapter_with_a_missing_weight_is_an_error(tmp_path: Path) -> None:
    tuned = tiny_denoiser()
    tuned.add_adapter("fast", rank=2)
    tuned.save_adapter("fast", tmp_path / "fast")
    path = tmp_path / "fast" / ADAPTER_WEIGHTS
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path)

    with pytest.raises(BundleError, match="adapter fast"):
        tiny_denoiser().load_adapter(tmp_path / "fast")


def test_a_denoiser_with_adapters_refuses_to_be_saved_as_a_whole(tmp_path: Path) -> None:
    denoiser = tiny_denoiser()
    denoiser.add_adapter("fast", rank=2)

    with pytest.raises(BundleError, match="adapters cannot be saved"):
        denoiser.save_pretrained(tmp_path)


@torch.no_grad()
def test_a_stable_diffusion_folder_loads_and_gets_sas(stable_diffusion_folder: Path) -> None:
    plain = UNet2DConditionModel.from_pretrained(stable_diffusion_folder / "unet").state_dict()

    pipeline = PrivDiffPipeline.from_pretrained(stable_diffusion_folder)
    loaded = pipeline.denoiser.unet.state_dict()

    assert pipeline.is_base
    assert all(torch.equal(loaded[name], weight) for name, weight in plain.items())
    on = pipeline.denoiser(noisy(1), 7, Condition.unconditional(1), SASSettings(strength=1.0))
    off = pipeline.denoiser(noisy(1), 7, Condition.unconditional(1), SASSettings(strength=0.0))
    assert not torch.allclose(on, off, atol=1e-6)
    redrawn = pipeline.autoencoder.decode(pipeline.autoencoder.encode(images(1)))
    assert redrawn.shape == images(1).shape


def test_a_base_for_training_refuses_to_anonymize(stable_diffusion_folder: Path) -> None:
    pipeline = PrivDiffPipeline.from_pretrained(stable_diffusion_folder)

    with pytest.raises(BundleError, match="base for training, without privacy tuning"):
        pipeline(images(1), generators=generators(1))


def test_gates_are_opened_to_a_size_and_keep_their_sign() -> None:
    denoiser = tiny_denoiser()
    gates = [weight for name, weight in denoiser.named_parameters() if name.endswith("gate")]
    for gate, value in zip(gates, (0.01, -0.02, 0.7), strict=False):
        gate.data.fill_(value)

    denoiser.open_gates(0.3)

    assert [round(gate.item(), 4) for gate in gates[:3]] == [0.3, -0.3, 0.7][: len(gates)]
