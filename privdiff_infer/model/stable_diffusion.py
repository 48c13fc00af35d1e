"""Stable-Diffusion-shaped folders (AutoencoderKL, UNet2DConditionModel) as a base."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.model.strict_model import refuse_incomplete


class KLAutoencoder(nn.Module):
    """An AutoencoderKL with the interface of `RadiographAutoencoder`: grey images in [0, 1].

    Parameters
    ----------
    vae
        Autoencoder over RGB in [-1, 1].
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

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
    return KLAutoencoder(vae), PrivDiffDenoiser.from_unet(unet), scheduler
