"""Public image encoders that a user has on disk: DINOv2 and RAD-DINO, TorchXRayVision.

Nothing is downloaded, and no pickled code is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from monai.networks.nets.densenet import DenseNet
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModel

from privdiff_infer.errors import OptionError
from privdiff_training.evaluation.attacks.config import EncoderConfig

BATCH = 16
XRV_SIDE = 224
XRV_RANGE = 1024.0
"""TorchXRayVision scales images to [-1024, 1024], whatever their bit depth was."""

EXPORT = (
    "save its state dict once, where torchxrayvision is installed: safetensors.torch.save_file("
    "torchxrayvision.models.DenseNet(weights='densenet121-res224-all').state_dict(), FILE)"
)


class PublicEncoder(nn.Module):
    """A frozen encoder with a name.

    Parameters
    ----------
    name
        For people.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @property
    def name(self) -> str:
        """For people."""
        return self._name

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return features (n, d), float32, of images (n, 1, s, s), float32 in [0, 1]."""
        return torch.cat([self(part) for part in images.split(BATCH)])


def load_encoder(config: EncoderConfig) -> PublicEncoder:
    """Load an encoder from disk.

    Raises
    ------
    OptionError
        If nothing usable is there; the message says what is missing and what to do.
    """
    name = config.name or config.path.name
    if config.kind == "transformers":
        return _TransformersEncoder(config.path, name).eval()
    return _XRayVisionEncoder(config.path, name).eval()


class _TransformersEncoder(PublicEncoder):
    """The class token of a ViT-like encoder, on images as its own preprocessing makes them."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(name)
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise OptionError(
                f"{folder} holds no encoder of transformers: config.json and *.safetensors",
                "download the model (for example microsoft/rad-dino) and name its folder",
            )
        self.encoder = AutoModel.from_pretrained(folder, local_files_only=True)
        self.side, mean, deviation = _preprocessing(folder, self.encoder.config)
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Return class tokens."""
        scaled = functional.interpolate(
            images, (self.side, self.side), mode="bicubic", antialias=True
        ).clamp(0, 1)
        normal = (scaled.expand(-1, 3, -1, -1) - self.mean) / self.deviation
        return self.encoder(pixel_values=normal).last_hidden_state[:, 0]


def _preprocessing(folder: Path, config: object) -> tuple[int, list[float], list[float]]:
    """Return side, mean and deviation of an encoder's images: its own, or those of its config."""
    if not (folder / "preprocessor_config.json").is_file():
        side = getattr(config, "image_size", XRV_SIDE)
        return int(side), [0.5] * 3, [0.5] * 3
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    size = processor.crop_size or processor.size
    return (
        int(size.get("height") or size.get("shortest_edge")),
        list(processor.image_mean),
        list(processor.image_std),
    )


class _XRayVisionEncoder(PublicEncoder):
    """Pooled features of TorchXRayVision's DenseNet-121.

    Source: Cohen et al., TorchXRayVision: a library of chest X-ray datasets and models, MIDL 2022.
    """

    def __init__(self, file: Path, name: str) -> None:
        super().__init__(name)
        self.network = DenseNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            init_features=64,
            growth_rate=32,
            block_config=(6, 12, 24, 16),
        )
        del self.network.class_layers.out  # ends in pooled features
        weights = monai_keys(_state_dict(file))
        missing, unexpected = self.network.load_state_dict(weights, strict=False)
        if missing or unexpected:
            raise OptionError(
                f"{file} is no DenseNet-121 of TorchXRayVision: {len(missing)} weights are "
                f"missing and {len(unexpected)} unexpected, first {[*missing, *unexpected][0]}",
                EXPORT,
            )

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features (n, 1024)."""
        scaled = functional.interpolate(
            images, (XRV_SIDE, XRV_SIDE), mode="bilinear", antialias=True
        )
        return self.network((scaled * 2 - 1) * XRV_RANGE)


def monai_keys(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the published weights under the names that MONAI's DenseNet has for them.

    The layout is torchvision's; MONAI puts the parts of a dense layer below ``layers``. The
    classifier and what belongs to it (``op_threshs``) are left out.

    Examples
    --------
    >>> list(monai_keys({"features.denseblock1.denselayer2.norm1.weight": torch.ones(1)}))
    ['features.denseblock1.denselayer2.layers.norm1.weight']
    """
    layer = re.compile(r"(denselayer\d+)\.(norm|relu|conv)")
    return {
        layer.sub(r"\1.layers.\2", name): weight
        for name, weight in published.items()
        if name.startswith("features.")
    }


def _state_dict(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise OptionError(f"there are no weights in {file}", EXPORT)
    if file.suffix == ".safetensors":
        return load_file(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise OptionError(f"{file} holds pickled code, which is not run", EXPORT) from error
    return dict(content.get("state_dict", content))
