"""Stage `autoencoder`: a smooth latent first, sharpness second."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from monai.networks.nets import PatchDiscriminator
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from privdiff_infer.model.autoencoder import RadiographAutoencoder
from privdiff_training.config import StageConfig
from privdiff_training.loop import Player, Stage
from privdiff_training.sampling import Step
from privdiff_training.stages.data import TrainingImages
from privdiff_training.whole_folder import whole_folder


class AutoencoderConfig(StageConfig):
    """Keys of the autoencoder stage."""

    stage: Literal["autoencoder"] = "autoencoder"
    freeze_encoder: bool = Field(
        False, description="Train the decoder alone; latents stay as a diffusion model knows them."
    )
    latent_channels: int = 8
    block_out_channels: tuple[int, ...] = (64, 96, 160)
    encoder_layers: int = 1
    decoder_layers: int = 2
    detail_channels: int = Field(
        0, ge=0, description="Channels of a convolution on the pixel grid; a later leg may add it."
    )
    crop_size: int = Field(128, description="Side of the training crops in pixels.")
    latent_noise: float = Field(
        0.2, ge=0, description="Largest noise on the latent, in units of its standard deviation."
    )
    latent_penalty: float = Field(1e-4, ge=0, description="Weight of the mean squared latent.")
    edge_weight: float = Field(0.5, ge=0, description="Weight of the L1 distance of gradients.")
    adversarial_weight: float = Field(0.0, ge=0)
    feature_weight: float = Field(
        0.0, ge=0, description="Weight of discriminator feature matching."
    )
    adversarial_first_step: int = 0


class AutoencoderStage(Stage[AutoencoderConfig]):
    """Reconstruction on crops, with latent noise and an optional late patch discriminator."""

    def __init__(self, config: AutoencoderConfig, initial: RadiographAutoencoder | None) -> None:
        self.config = config
        self.images = TrainingImages.load(config.data)
        torch.manual_seed(config.seed)
        self.autoencoder = initial or self._new_autoencoder()
        if config.detail_channels:
            self.autoencoder.add_detail(config.detail_channels)
        if config.freeze_encoder:
            self.autoencoder.analysis.requires_grad_(False)
            self.autoencoder.encoder.requires_grad_(False)
        self.networks = {"autoencoder": self.autoencoder}
        if config.adversarial_weight:
            self.networks["discriminator"] = PatchDiscriminator(
                spatial_dims=2, channels=32, in_channels=1, num_layers_d=3, norm="INSTANCE"
            )

    def players(self) -> tuple[Player, ...]:
        config = self.config
        generator = Player("generator", ("autoencoder",), config.learning_rate)
        if not config.adversarial_weight:
            return (generator,)
        critic = Player(
            "discriminator",
            ("discriminator",),
            config.learning_rate,
            config.adversarial_first_step,
        )
        return (generator, critic)

    def loss(self, player: str, step: Step) -> tuple[Tensor, Mapping[str, float]]:
        crops = self._crops(step)
        noise_level = self.config.latent_noise * step.rand(len(step.rows), 1, 1, 1)
        grid = self.config.crop_size // 16
        noise = noise_level * step.randn(len(step.rows), self.config.latent_channels, grid, grid)
        if player == "discriminator":
            return self._discriminator_loss(crops, noise.to(crops.device))
        return self._generator_loss(crops, noise.to(crops.device), step.index)

    def export(self, folder: Path) -> None:
        if not self.config.freeze_encoder:
            self._set_statistics()
        with whole_folder(folder / "autoencoder") as partial:
            self.autoencoder.save_pretrained(partial)

    def _set_statistics(self) -> None:
        autoencoder = self.autoencoder
        latents = torch.cat([autoencoder.encode(batch) for batch in self.images.batches(limit=512)])
        # `encode` already removed the statistics of an earlier leg.
        mean = autoencoder.latent_mean + latents.mean() * autoencoder.latent_std
        autoencoder.latent_std.mul_(latents.std())
        autoencoder.latent_mean.copy_(mean)

    def _new_autoencoder(self) -> RadiographAutoencoder:
        config = self.config
        autoencoder = RadiographAutoencoder(
            latent_channels=config.latent_channels,
            block_out_channels=config.block_out_channels,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            detail_channels=config.detail_channels,
        )
        sample = torch.cat(list(self.images.batches(limit=256))).cpu()
        autoencoder.start_from_components(sample)
        return autoencoder

    def _crops(self, step: Step) -> Tensor:
        size, crop = self.config.data.image_size, self.config.crop_size
        offsets = torch.randint(0, size - crop + 1, (len(step.rows), 2), generator=step.generator)
        pairs = zip(step.local(step.rows).tolist(), step.local(offsets).tolist(), strict=True)
        crops = [
            self.images.pixels[row, top : top + crop, left : left + crop]
            for row, (top, left) in pairs
        ]
        return torch.stack(crops).unsqueeze(1).to(self.images.device).float() / 255

    def _generator_loss(
        self, crops: Tensor, noise: Tensor, index: int
    ) -> tuple[Tensor, Mapping[str, float]]:
        config = self.config
        redrawn, latent = self.networks["autoencoder"](crops, noise)
        l1 = functional.l1_loss(redrawn, crops)
        edge = _edge_distance(redrawn, crops)
        loss = l1 + config.edge_weight * edge + config.latent_penalty * latent.square().mean()
        figures = {"l1": l1.item(), "edge": edge.item(), "latent_std": latent.std().item()}
        if config.adversarial_weight and index >= config.adversarial_first_step:
            judged = self.networks["discriminator"](redrawn)
            with torch.no_grad():
                wanted = self.networks["discriminator"](crops)
            adversarial = -judged[-1].mean()
            features = torch.stack(
                [functional.l1_loss(a, b) for a, b in zip(judged[:-1], wanted[:-1], strict=True)]
            ).mean()
            loss = loss + config.adversarial_weight * adversarial + config.feature_weight * features
            figures |= {"adversarial": adversarial.item(), "features": features.item()}
        return loss, figures

    def _discriminator_loss(
        self, crops: Tensor, noise: Tensor
    ) -> tuple[Tensor, Mapping[str, float]]:
        with torch.no_grad():
            redrawn, _ = self.networks["autoencoder"](crops, noise)
        real = self.networks["discriminator"](crops)[-1]
        fake = self.networks["discriminator"](redrawn)[-1]
        hinge = functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
        return hinge, {"discriminator": hinge.item()}


def _edge_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the L1 distance of horizontal and vertical gradients at full and half resolution."""
    distance = first.new_zeros(())
    for scale in (1, 2):
        a = functional.avg_pool2d(first, scale)
        b = functional.avg_pool2d(second, scale)
        for axis in (-1, -2):
            distance = distance + functional.l1_loss(a.diff(dim=axis), b.diff(dim=axis))
    return distance
