"""Equal components make equal bundles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from privdiff_training.assemble import BundleConfig, assemble_bundle
from privdiff_training.config import load_config
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from privdiff_infer.model.bundle import bundle_files
from privdiff_infer.model.denoiser import ADAPTER_WEIGHTS
from privdiff_infer.pipeline import ADAPTERS
from tests.unit.workshop import Workshop

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"


def bundle_config(folder: Path) -> BundleConfig:
    card = folder / "card.md"
    card.write_text("# Card\n")
    return BundleConfig(
        name="tiny",
        version="0",
        licence="Apache-2.0",
        summary="test",
        training_data="synthetic",
        intended_use="tests",
        image_size=64,
        model_card=card,
        operating_points={},
    )


def shuffle_layers(adapter: Path) -> None:
    """Rewrite an adapter as another process would: the same layers in another order."""
    path = adapter / ADAPTER_WEIGHTS
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()[LORA_ADAPTER_METADATA_KEY])
    config["target_modules"] = config["target_modules"][::-1]
    save_file(
        load_file(path),
        path,
        metadata={"format": "pt", LORA_ADAPTER_METADATA_KEY: json.dumps(config)},
    )


def content(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in bundle_files(folder).items()}


def test_equal_weights_give_equal_bytes_wherever_they_were_trained(
    built: Workshop, tmp_path: Path
) -> None:
    elsewhere = Path(shutil.copytree(built.bundle, tmp_path / "elsewhere"))
    for adapter in (elsewhere / ADAPTERS).iterdir():
        shuffle_layers(adapter)

    config = bundle_config(tmp_path)
    assemble_bundle(built.bundle, config, tmp_path / "first")
    assemble_bundle(elsewhere, config, tmp_path / "second")

    first, second = content(tmp_path / "first"), content(tmp_path / "second")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_a_bundle_does_not_say_where_it_was_made(built: Workshop, tmp_path: Path) -> None:
    assemble_bundle(built.bundle, bundle_config(tmp_path), tmp_path / "bundle")

    for name, data in content(tmp_path / "bundle").items():
        assert str(built.bundle).encode() not in data, name


def test_what_an_interrupted_export_left_behind_is_no_adapter(
    built: Workshop, tmp_path: Path
) -> None:
    components = Path(shutil.copytree(built.bundle, tmp_path / "components"))
    (components / ADAPTERS / ".standard.partial").mkdir()

    assemble_bundle(components, bundle_config(tmp_path), tmp_path / "bundle")

    adapters = {path.name for path in (tmp_path / "bundle" / ADAPTERS).iterdir()}
    assert adapters == {"standard", "fast"}


@pytest.mark.parametrize("size", ["paper-256", "sd-512"])
def test_the_larger_sizes_can_be_assembled_too(
    built: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    monkeypatch.chdir(CONFIGS.parents[1])
    config = load_config(CONFIGS / size / "bundle.yaml", BundleConfig)

    metadata = assemble_bundle(built.bundle, config, tmp_path / "bundle")

    assert metadata.image_size == int(size.split("-")[1])
    assert {profile.value for profile in metadata.operating_points} == {
        "standard",
        "fast",
        "vanilla",
        "paper",
    }
