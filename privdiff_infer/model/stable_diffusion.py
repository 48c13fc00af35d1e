"""Stable-Diffusion-shaped folders (AutoencoderKL, UNet2DConditionModel) as a base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor

from privdiff_infer.model.autoencoder import RadiographAutoencoder
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.model.strict_model import StrictModel, refuse_incomplete


class KLAutoencoder(StrictModel, ConfigMixin):
    """An AutoencoderKL with the interface of `RadiographAutoencoder`: grey images in [0, 1].

    Parameters
    ----------
    vae_config
        Arguments of `AutoencoderKL`, which works on RGB in [-1, 1].
    """

    @register_to_config
    def __init__(self, vae_config: Mapping[str, Any]) -> None:
        super().__init__()
        self.vae = AutoencoderKL(**vae_config)

    @classmethod
    def from_vae(cls, vae: AutoencoderKL) -> KLAutoencoder:
        """Wrap a trained AutoencoderKL."""
        arguments = {key: value for key, value in vae.config.items() if not key.startswith("_")}
        wrapped = cls(arguments)
        wrapped.vae.load_state_dict(vae.state_dict())
        return wrapped

    @property
    def downsampling(self) -> int:
        """Pixels per latent element along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(self, images: Tensor) -> Tensor:
        """Return the mean latents (n, c, h / f, w / f) of images (n, 1, h, w) in [0, 1]."""
        rgb = images.repeat(1, self.vae.config.in_channels, 1, 1) * 2 - 1
        latents = self.vae.encode(rgb).latent_dist.mean
        return latents * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Return images (n, 1, h, w) around [0, 1]: the mean of the decoded channels."""
        rgb = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (rgb.mean(dim=1, keepdim=True) + 1) / 2


def load_stable_diffusion(folder: Path) -> tuple[KLAutoencoder, PrivDiffDenoiser, DDPMScheduler]:
    """Load autoencoder, UNet (with SAS put into its cross-attentions) and forward process.

    Raises
    ------
    BundleError
        If a weight is missing or unexpected.
    """
    vae, info = AutoencoderKL.from_pretrained(
        folder / "vae", local_files_only=True, output_loading_info=True, torch_dtype=torch.float32
    )
    refuse_incomplete("AutoencoderKL", info["missing_keys"], info["unexpected_keys"])
    unet, info = UNet2DConditionModel.from_pretrained(
        folder / "unet", local_files_only=True, output_loading_info=True, torch_dtype=torch.float32
    )
    refuse_incomplete("UNet2DConditionModel", info["missing_keys"], info["unexpected_keys"])
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    return KLAutoencoder.from_vae(vae), PrivDiffDenoiser.from_unet(unet), scheduler


def load_autoencoder(folder: Path) -> RadiographAutoencoder | KLAutoencoder:
    """Load the autoencoder of a bundle, of whichever of the two kinds it is."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["_class_name"] == KLAutoencoder.__name__:
        return KLAutoencoder.from_pretrained(folder)
    return RadiographAutoencoder.from_pretrained(folder)


def is_stable_diffusion(folder: Path) -> bool:
    """Tell whether a folder is laid out as Stable Diffusion is."""
    return (folder / "unet").is_dir() and (folder / "vae").is_dir()
