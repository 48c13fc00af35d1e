"""Networks that judge a radiograph: who it is (embedding) and what it shows (findings, age, sex).

They guide training, condition sampling and feed the gates. They are never the networks that a
privacy or utility figure is measured with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel

from privdiff_infer.model.strict_model import StrictModel
from privdiff_infer.vocabulary import AGE_BINS, FINDING_TOKENS

RESNET: Mapping[str, Any] = {
    "kind": "resnet",
    "layers": (2, 2, 2, 2),
    "widths": (48, 96, 192, 384),
}


class IdentityEmbedder(StrictModel, ConfigMixin):
    """Unit vectors that are close for radiographs of one person.

    Parameters
    ----------
    backbone
        ``{"kind": "resnet", "layers": ..., "widths": ...}``, ``{"kind": "densenet", "layers":
        ..., "init_features": ..., "growth_rate": ...}`` or ``{"kind": "transformers", "config":
        ...}`` with the configuration of an image encoder such as a ViT or DINOv2.
    image_size
        Side in pixels to which images are resampled.
    embedding_dim
        Length of the vectors.
    num_prototypes
        Number of identity clusters; their centres are the buffer ``prototypes``.
    """

    @register_to_config
    def __init__(
        self,
        backbone: Mapping[str, Any] = RESNET,
        image_size: int = 128,
        embedding_dim: int = 128,
        num_prototypes: int = 32,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.encoder, features = build_backbone(backbone)
        self.head = nn.Linear(features, embedding_dim)
        self.prototypes: Tensor
        self.register_buffer("prototypes", torch.zeros(num_prototypes, embedding_dim))

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings of shape (n, embedding_dim) and length 1.

        Parameters
        ----------
        images
            Shape (n, 1, h, w), float in [0, 1], 0 = black = air.
        """
        features = self.encoder(prepared(images, self.image_size))
        return functional.normalize(self.head(features), dim=-1)

    def nearest_prototype(self, images: Tensor) -> Tensor:
        """Return the row of the identity codebook for each image, shape (n,), int64."""
        return (self(images) @ self.prototypes.mT).argmax(dim=-1)


@dataclass(frozen=True)
class Reading:
    """Logits of one batch; `frontal` is above 0 for upright frontal chest radiographs."""

    findings: Tensor  # (n, 15)
    age: Tensor  # (n, 5)
    sex: Tensor  # (n,), above 0 = male
    frontal: Tensor  # (n,)


class RadiographReader(StrictModel, ConfigMixin):
    """Findings, age bin, sex and whether the image is an upright frontal chest radiograph.

    Parameters
    ----------
    backbone
        See `IdentityEmbedder`.
    image_size
        Side in pixels to which images are resampled.

    Notes
    -----
    The buffer ``prevalence`` holds how often each finding is present among the training images
    that say, so that a probability can be told from what is known without looking.
    """

    @register_to_config
    def __init__(self, backbone: Mapping[str, Any] = RESNET, image_size: int = 128) -> None:
        super().__init__()
        self.image_size = image_size
        self.prevalence: Tensor
        self.register_buffer("prevalence", torch.full((len(FINDING_TOKENS),), 0.5))
        self.encoder, features = build_backbone(backbone)
        self.sizes = (len(FINDING_TOKENS), AGE_BINS, 1, 1)
        self.head = nn.Linear(features, sum(self.sizes))

    def forward(self, images: Tensor) -> Reading:
        """Read images of shape (n, 1, h, w), float in [0, 1], 0 = black = air."""
        logits = self.head(self.features(images))
        findings, age, sex, frontal = logits.split(self.sizes, dim=-1)
        return Reading(findings, age, sex.squeeze(-1), frontal.squeeze(-1))

    def evidence(self, reading: Reading) -> Tensor:
        """Return the log odds of every finding (n, 15) beyond those of its prevalence."""
        return reading.findings - self.prevalence.to(reading.findings).logit()

    def features(self, images: Tensor) -> Tensor:
        """Return pooled features (n, features) of images (n, 1, h, w), float in [0, 1]."""
        features: Tensor = self.encoder(prepared(images, self.image_size))
        return features


class _TransformersBackbone(nn.Module):
    """Any image encoder of transformers; grey is repeated over its three channels."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        settings = dict(config)
        self.encoder = AutoModel.from_config(
            AutoConfig.for_model(settings.pop("model_type"), **settings)
        )

    def forward(self, images: Tensor) -> Tensor:
        output = self.encoder(pixel_values=images.expand(-1, 3, -1, -1))
        return output.last_hidden_state[:, 0]  # class token


def build_backbone(settings: Mapping[str, Any]) -> tuple[nn.Module, int]:
    """Return a network from (n, 1, s, s) to (n, features), and the number of features.

    Parameters
    ----------
    settings
        See `IdentityEmbedder`.
    """
    if settings["kind"] == "transformers":
        backbone = _TransformersBackbone(settings["config"])
        return backbone, backbone.encoder.config.hidden_size
    if settings["kind"] == "densenet":
        return _densenet(settings)
    widths = list(settings["widths"])
    resnet = ResNet(
        "basic",
        list(settings["layers"]),
        widths,
        spatial_dims=2,
        n_input_channels=1,
        conv1_t_size=7,
        conv1_t_stride=2,
        feed_forward=False,
    )
    return resnet, widths[-1]


def _densenet(settings: Mapping[str, Any]) -> tuple[nn.Module, int]:
    """Return MONAI's DenseNet without its classifier, ending in pooled features."""
    network = DenseNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        init_features=settings["init_features"],
        growth_rate=settings["growth_rate"],
        block_config=tuple(settings["layers"]),
    )
    features = network.class_layers.get_submodule("out").in_features
    del network.class_layers.out
    return network, features


def prepared(images: Tensor, size: int) -> Tensor:
    """Resample by area to (n, 1, size, size) and scale to about zero mean and unit variance."""
    if images.shape[-1] != size:
        images = functional.interpolate(images, (size, size), mode="area")
    return (images - 0.5) / 0.25
