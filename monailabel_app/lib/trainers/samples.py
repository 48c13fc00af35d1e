"""Small pictures of how the weights that are being trained redraw people they have not seen."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from privdiff_training.stages.suppression import SuppressionStage
from torch import Tensor

from monailabel_app.lib.state_folder import PRIVATE_FOLDER
from privdiff_infer.model.bundle import BundleInfo
from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.release import write_private
from privdiff_infer.vocabulary import Profile

IMAGES = 2
PICTURES = 10
"""About so many over a whole run."""

STEPS = 8
"""Inference steps over the whole schedule: a quick look, not what a job would get."""


class Sampler:
    """Draws the same images again and again, with the same noise.

    Parameters
    ----------
    stage
        Whose live weights are used.
    base
        The bundle that is tuned.
    pixels
        Images of people that nothing is trained on, shape (n, size, size), uint8.
    profile
        How to sample.
    folder
        Where the pictures go: originals above, redrawings below; readable by their owner alone.
    """

    def __init__(
        self,
        stage: SuppressionStage,
        base: BundleInfo,
        pixels: Tensor,
        profile: Profile,
        folder: Path,
    ) -> None:
        self._stage = stage
        self._identity = IdentityEmbedder.from_pretrained(base.path / "identity").eval()
        self._images = pixels[:IMAGES].unsqueeze(1).float() / 255
        self._profile = profile
        self._strength = base.metadata.operating_points[profile].strength
        self._every = math.ceil(stage.config.steps / PICTURES)
        self._folder = folder
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)

    def is_due(self, step: int) -> bool:
        """Tell whether a picture of this step is wanted."""
        return step % self._every == 0

    def draw(self, step: int) -> None:
        """Write the picture of a step."""
        stage = self._stage
        device = next(stage.denoiser.parameters()).device
        # Without adapters of its own the pipeline draws with the weights as they are now.
        pipeline = PrivDiffPipeline(
            stage.autoencoder,
            stage.denoiser,
            stage.scheduler,
            self._identity.to(device),
            stage.reader,
        )
        redrawn = pipeline(
            self._images,
            profile=self._profile,
            strength=self._strength,
            num_inference_steps=STEPS,
            generators=[torch.Generator().manual_seed(n) for n in range(len(self._images))],
        ).images.cpu()
        picture = torch.cat([torch.cat(list(row[:, 0]), dim=1) for row in (self._images, redrawn)])
        buffer = io.BytesIO()
        Image.fromarray((picture.numpy() * 255).round().astype(np.uint8)).save(buffer, "PNG")
        write_private(self._folder / f"step-{step:06}.png", buffer.getvalue())
