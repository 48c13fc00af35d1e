"""Encoders on disk: DINOv2's folder and TorchXRayVision's weights, tiny or random."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from monai.networks.nets.densenet import DenseNet121
from privdiff_training.evaluation.attacks.config import EncoderConfig
from privdiff_training.evaluation.attacks.frozen_encoder import FrozenEncoder
from privdiff_training.evaluation.public_encoders import load_encoder, monai_keys
from safetensors.torch import save_file
from torch.nn import functional
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from privdiff_infer.errors import OptionError
from tests.unit.toy_people import copies_of, known, people


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "tiny-dinov2"
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """Random weights in the published layout, which is torchvision's, for one channel."""
    torch.manual_seed(0)
    network = DenseNet121(spatial_dims=2, in_channels=1, out_channels=18)
    weights = {
        name.replace(".layers.", "."): weight
        for name, weight in network.state_dict().items()
        if name.startswith("features.")
    }
    return {
        **weights,
        "classifier.weight": torch.randn(18, 1024),
        "classifier.bias": torch.randn(18),
        "op_threshs": torch.rand(18),
    }


def forward_as_published(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Run a DenseNet-121 by the published names, layer by layer; dropout and momentum aside."""

    def norm(values: torch.Tensor, name: str) -> torch.Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(values, *(weights[f"{name}.{part}"] for part in parts))

    def conv(values: torch.Tensor, name: str, **kwargs: int) -> torch.Tensor:
        return functional.conv2d(values, weights[f"{name}.weight"], **kwargs)

    values = conv(images, "features.conv0", stride=2, padding=3)
    values = functional.max_pool2d(norm(values, "features.norm0").relu(), 3, 2, 1)
    for block, layers in enumerate((6, 12, 24, 16), start=1):
        for layer in range(1, layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            new = conv(norm(values, f"{name}.norm1").relu(), f"{name}.conv1")
            new = conv(norm(new, f"{name}.norm2").relu(), f"{name}.conv2", padding=1)
            values = torch.cat((values, new), 1)
        if block < 4:
            name = f"features.transition{block}"
            values = conv(norm(values, f"{name}.norm").relu(), f"{name}.conv")
            values = functional.avg_pool2d(values, 2)
    return norm(values, "features.norm5").relu().mean((2, 3))


def test_published_names_are_those_of_the_layout(published):
    assert "features.denseblock4.denselayer16.conv2.weight" in published
    assert "features.transition3.norm.running_var" in published
    assert all(re.match(r"features\.|classifier\.|op_threshs", name) for name in published)
    assert len(monai_keys(published)) == len(published) - 3


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_features_are_those_of_the_published_network(published, tmp_path, suffix):
    file = tmp_path / f"xrv{suffix}"
    save_file(published, file) if suffix == ".safetensors" else torch.save(published, file)
    images = torch.rand(2, 1, 224, 224)

    features = load_encoder(EncoderConfig(kind="torchxrayvision", path=file)).features(images)

    expected = forward_as_published(published, (2 * images - 1) * 1024)
    assert torch.allclose(features, expected, rtol=1e-3, atol=1e-3)
    assert features.shape == (2, 1024)


def test_other_weights_are_refused_by_name(published, tmp_path):
    del published["features.norm5.weight"]
    save_file(published, tmp_path / "half.safetensors")
    with pytest.raises(OptionError, match=r"1 weights are missing .* features\.norm5\.weight"):
        load_encoder(EncoderConfig(kind="torchxrayvision", path=tmp_path / "half.safetensors"))


def test_pickled_code_is_not_run(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pt")
    with pytest.raises(OptionError, match="pickled code, which is not run; save its state dict"):
        load_encoder(EncoderConfig(kind="torchxrayvision", path=tmp_path / "model.pt"))


@pytest.mark.parametrize("kind", ["transformers", "torchxrayvision"])
def test_what_is_missing_is_said(tmp_path, kind):
    with pytest.raises(OptionError, match="nowhere"):
        load_encoder(EncoderConfig(kind=kind, path=tmp_path / "nowhere"))


def test_transformers_folder_without_preprocessing_has_the_size_of_its_config(dinov2):
    encoder = load_encoder(EncoderConfig(kind="transformers", path=dinov2))
    assert encoder.name == "tiny-dinov2"
    assert encoder.side == 28
    assert encoder.features(torch.rand(3, 1, 64, 64)).shape == (3, 16)


def test_preprocessing_of_the_folder_is_used(dinov2, tmp_path):
    Dinov2Model.from_pretrained(dinov2).save_pretrained(tmp_path)
    BitImageProcessor(
        crop_size={"height": 42, "width": 42}, image_mean=[0.2] * 3, image_std=[0.4] * 3
    ).save_pretrained(tmp_path)
    encoder = load_encoder(EncoderConfig(kind="transformers", path=tmp_path))
    assert encoder.side == 42
    assert encoder.mean.flatten().tolist() == pytest.approx([0.2] * 3)


def test_frozen_encoder_links_an_image_to_itself(dinov2):
    test = people(6, 1)

    def nothing_done(images, seed):
        return images

    attack = FrozenEncoder(EncoderConfig(kind="transformers", path=dinov2, name="DINOv2"))
    scores = attack.train(known(nothing_done), 0)(copies_of(nothing_done, test), test)
    assert attack.name == "DINOv2"
    assert (scores.argmax(1) == range(12)).all()
