"""The autoencoder between a radiograph and its latent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor, nn
from torch.nn import functional

from privdiff_infer.model.strict_model import StrictModel

PATCH = 4  # pixel (un)shuffle at both ends keeps all convolutions at a quarter of the pixel grid
HEAD = 2
"""Last modules of the decoder, a convolution and the pixel shuffle."""


class RadiographAutoencoder(StrictModel, ConfigMixin):
    """A light convolutional autoencoder with downsampling factor 16.

    Parameters
    ----------
    latent_channels
        Channels of the latent.
    block_out_channels
        Widths at 1/4, 1/8 and 1/16 of the pixel grid.
    encoder_layers, decoder_layers
        Residual blocks per resolution.
    detail_channels
        Channels of a convolution on the pixel grid itself, which mends the seams that pixel
        shuffling leaves along hard edges; 0: none.

    Notes
    -----
    A linear transform of patches (`analysis`, `synthesis`) carries the coarse image, as a lapped
    transform would; the convolutional networks start at zero and add what a linear code cannot.
    With the principal components of patches as its start (`start_from_components`), training
    begins where the best linear code of that size ends.

    Latents leave `encode` with one global mean and standard deviation removed (buffers
    ``latent_mean`` and ``latent_std``, set by training), so that the diffusion model sees unit
    variance without the weak channels being blown up.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        block_out_channels: Sequence[int] = (64, 96, 160),
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        detail_channels: int = 0,
    ) -> None:
        super().__init__()
        downsampling = PATCH * 2 ** (len(block_out_channels) - 1)
        self.analysis = nn.Conv2d(1, latent_channels, downsampling, stride=downsampling)
        self.encoder = _encoder(latent_channels, block_out_channels, encoder_layers)
        self.synthesis = nn.ConvTranspose2d(latent_channels, 1, downsampling, stride=downsampling)
        self.decoder = _decoder(latent_channels, block_out_channels, decoder_layers)
        self.detail = _detail(block_out_channels[0], detail_channels) if detail_channels else None
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.register_buffer("latent_mean", torch.zeros(()))
        self.register_buffer("latent_std", torch.ones(()))

    @property
    def downsampling(self) -> int:
        """Pixels per latent element along one side."""
        return PATCH * 2 ** (len(self.config.block_out_channels) - 1)

    def encode(self, images: Tensor) -> Tensor:
        """Return latents of unit variance.

        Parameters
        ----------
        images
            Shape (n, 1, h, w), float in [0, 1], h and w multiples of `downsampling`.

        Returns
        -------
        Tensor
            Shape (n, latent_channels, h / 16, w / 16).
        """
        return (self._raw_latents(images) - self.latent_mean) / self.latent_std

    def decode(self, latents: Tensor) -> Tensor:
        """Return images for latents of unit variance; the inverse of `encode`.

        Returns
        -------
        Tensor
            Shape (n, 1, h, w), float around [0, 1], not clamped so that training keeps gradients.
        """
        return self._images(latents * self.latent_std + self.latent_mean)

    def forward(self, images: Tensor, latent_noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (reconstruction, latent); `latent_noise` is added before decoding.

        The noise is in units of the batch's latent standard deviation: a decoder that tolerates it
        does not turn the small errors of a diffusion model into texture.
        """
        raw = self._raw_latents(images)
        disturbed = raw if latent_noise is None else raw + latent_noise * raw.detach().std()
        return self._images(disturbed), raw

    @torch.no_grad()
    def start_from_components(self, images: Tensor) -> None:
        """Set the linear transform to the principal components of image patches.

        Components are scaled by the square root of their standard deviation: whitening them wholly
        would turn weak detail into strong noise, not scaling them at all would drown it.

        Parameters
        ----------
        images
            Shape (n, 1, h, w), float in [0, 1].
        """
        side, channels = self.downsampling, self.config.latent_channels
        patches = functional.unfold(images * 2 - 1, side, stride=side).transpose(1, 2).flatten(0, 1)
        mean = patches.mean(dim=0)
        _, singular, components = torch.linalg.svd(patches - mean, full_matrices=False)
        scale = (singular[:channels] / len(patches) ** 0.5).sqrt()
        basis = components[:channels]  # (channels, side * side)
        self.analysis.weight.copy_((basis / scale[:, None]).view_as(self.analysis.weight))
        self.analysis.bias = nn.Parameter(-(basis @ mean) / scale)
        self.synthesis.weight.copy_((basis * scale[:, None]).view_as(self.synthesis.weight))
        # One bias for all pixels of a patch; the components carry the rest of the mean patch.
        self.synthesis.bias = nn.Parameter(mean.mean()[None])

    def add_detail(self, channels: int) -> None:
        """Add the convolution on the pixel grid where there is none; it starts at zero."""
        if self.detail is None:
            self.detail = _detail(self.config.block_out_channels[0], channels)
            self.register_to_config(detail_channels=channels)

    def _raw_latents(self, images: Tensor) -> Tensor:
        scaled = images * 2 - 1
        return self.analysis(scaled) + self.encoder(scaled)

    def _images(self, raw_latents: Tensor) -> Tensor:
        features = self.decoder[:-HEAD](raw_latents)  # (n, widths[0], h/4, w/4)
        scaled = self.synthesis(raw_latents) + self.decoder[-HEAD:](features)
        if self.detail is not None:
            scaled = scaled + self.detail(features)
        return (scaled + 1) / 2


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.body(hidden)


def _encoder(latent_channels: int, widths: Sequence[int], layers: int) -> nn.Sequential:
    modules: list[nn.Module] = [
        nn.PixelUnshuffle(PATCH),  # (n, 16, h/4, w/4)
        nn.Conv2d(PATCH**2, widths[0], 3, padding=1),
    ]
    for level, width in enumerate(widths):
        if level:
            modules.append(nn.Conv2d(widths[level - 1], width, 3, stride=2, padding=1))
        modules += [_ResidualBlock(width) for _ in range(layers)]
    modules += [
        nn.GroupNorm(8, widths[-1]),
        nn.SiLU(),
        _zeroed(nn.Conv2d(widths[-1], latent_channels, 1)),
    ]
    return nn.Sequential(*modules)


def _decoder(latent_channels: int, widths: Sequence[int], layers: int) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Conv2d(latent_channels, widths[-1], 3, padding=1)]
    for level in reversed(range(len(widths))):
        modules += [_ResidualBlock(widths[level]) for _ in range(layers)]
        if level:
            modules += [
                nn.Conv2d(widths[level], widths[level - 1], 1),  # narrow before the larger grid
                nn.Upsample(scale_factor=2, mode="nearest"),
            ]
    modules += [
        nn.GroupNorm(8, widths[0]),
        nn.SiLU(),
        _zeroed(nn.Conv2d(widths[0], PATCH**2, 3, padding=1)),
        nn.PixelShuffle(PATCH),  # (n, 1, h, w)
    ]
    return nn.Sequential(*modules)


def _detail(width: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, channels * PATCH**2, 3, padding=1),
        nn.PixelShuffle(PATCH),  # (n, channels, h, w)
        nn.SiLU(),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.SiLU(),
        _zeroed(nn.Conv2d(2 * channels, 1, 3, padding=1)),
    )


def _zeroed(convolution: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution
