"""Latents of a cohort under one autoencoder, encoded once and kept on disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from privdiff_infer.model.autoencoder import RadiographAutoencoder
from privdiff_infer.model.stable_diffusion import KLAutoencoder
from privdiff_training.augmentation import Augmentation
from privdiff_training.sampling import generator_for, row_seeds
from privdiff_training.stages.data import TrainingImages

DECODING = ("decoder.", "synthesis.", "detail.")
"""Weights that leave the latents as they are."""


@torch.no_grad()
def load_latents(
    autoencoder: RadiographAutoencoder | KLAutoencoder,
    images: TrainingImages,
    versions: int,
    seed: int,
    cache_dir: Path,
) -> Tensor:
    """Return latents of several augmented versions of every training image.

    Version 0 is the image itself; the others differ a little in position and exposure.

    Returns
    -------
    Tensor
        Shape (versions, images, channels, h, w), float16, in host memory.
    """
    path = cache_dir / f"latents-{_key(autoencoder, images, versions, seed)}.safetensors"
    if not path.exists():
        autoencoder.to(images.device)
        encoded = torch.stack(
            [_encode(autoencoder, images, version, seed) for version in range(versions)]
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({"latents": encoded}, partial)
        os.replace(partial, path)
    return load_file(path)["latents"]


def _encode(
    autoencoder: RadiographAutoencoder | KLAutoencoder,
    images: TrainingImages,
    version: int,
    seed: int,
) -> Tensor:
    augmentation = Augmentation(strong=False)
    encoded = []
    batches = track(
        enumerate(images.batches()),
        f"Encoding version {version}",
        total=-(-len(images.pixels) // 32),
    )
    for number, plain in batches:
        seeds = row_seeds(len(plain), generator_for(seed, "latents", version, number))
        batch = augmentation(plain, seeds) if version else plain
        encoded.append(autoencoder.encode(batch).half().cpu())
    return torch.cat(encoded)


def _key(
    autoencoder: RadiographAutoencoder | KLAutoencoder,
    images: TrainingImages,
    versions: int,
    seed: int,
) -> str:
    """Return a name for the latents that changes with the encoder and with every pixel."""
    digest = hashlib.sha256(f"latents-v2:{versions}:{seed}:{images.pixels.shape}".encode())
    for name, weight in sorted(autoencoder.state_dict().items()):
        if not name.startswith(DECODING):
            digest.update(weight.cpu().numpy().tobytes())
    digest.update(images.pixels.numpy().data)
    return digest.hexdigest()[:16]
