"""A complete pipeline of a few thousand weights, for tests."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler

from privdiff_infer.model.autoencoder import RadiographAutoencoder
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.pipeline import PrivDiffPipeline

TINY_RESNET = {"kind": "resnet", "layers": (1, 1, 1, 1), "widths": (4, 4, 8, 8)}
TINY_UNET = {
    "sample_size": 4,
    "in_channels": 4,
    "out_channels": 4,
    "cross_attention_dim": 16,
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
SIZE = 64


def tiny_denoiser(seed: int = 0) -> PrivDiffDenoiser:
    """Return a denoiser whose residual gates are open, so that conditions matter."""
    torch.manual_seed(seed)
    return PrivDiffDenoiser(TINY_UNET, identity_prototypes=4, gate=0.5).eval()


def tiny_pipeline(seed: int = 0) -> PrivDiffPipeline:
    """Return a pipeline over 64-pixel images with 4 x 4 latents."""
    denoiser = tiny_denoiser(seed)
    autoencoder = RadiographAutoencoder(4, (8, 8, 8)).eval()
    identity = IdentityEmbedder(TINY_RESNET, 32, 8, 4).eval()
    identity.prototypes.copy_(torch.nn.functional.normalize(torch.randn(4, 8), dim=-1))
    return PrivDiffPipeline(
        autoencoder=autoencoder,
        denoiser=denoiser,
        scheduler=DDPMScheduler(
            beta_start=0.0015,
            beta_end=0.0205,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            clip_sample=False,
        ),
        identity=identity,
        reader=RadiographReader(TINY_RESNET, 32).eval(),
    )


def generators(count: int, first: int = 0) -> list[torch.Generator]:
    """Return one seeded generator per image."""
    return [torch.Generator().manual_seed(first + index) for index in range(count)]


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Return random images of shape (count, 1, 64, 64) in [0, 1]."""
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
