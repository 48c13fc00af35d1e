"""Augmentation of training images by MONAI transforms, reproducible from one seed per image."""

from __future__ import annotations

import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandAffine,
    RandBiasField,
    RandCoarseDropout,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandHistogramShift,
    RandScaleIntensity,
)
from monai.utils import convert_to_tensor
from torch import Tensor


class Augmentation:
    """Small changes of position and exposure that leave person and findings as they are.

    No horizontal flip: the heart has a side.

    Parameters
    ----------
    strong
        Adds wider ranges, blur, noise, other tone curves, uneven exposure and patches that are
        hidden, for networks that must not learn the scanner's style or one detail.
    """

    def __init__(self, *, strong: bool) -> None:
        reach = 2.0 if strong else 1.0
        transforms = [
            RandAffine(
                prob=1.0,
                rotate_range=0.06 * reach,
                translate_range=(6 * reach, 6 * reach),
                scale_range=0.06 * reach,
                padding_mode="zeros",
            ),
            RandAdjustContrast(prob=0.7, gamma=(1 / (1 + 0.3 * reach), 1 + 0.3 * reach)),
            RandScaleIntensity(prob=0.5, factors=0.1 * reach),
        ]
        if strong:
            transforms += [
                RandGaussianSmooth(prob=0.3, sigma_x=(0.3, 1.2), sigma_y=(0.3, 1.2)),
                RandGaussianNoise(prob=0.3, std=0.03),
                RandHistogramShift(prob=0.3, num_control_points=(4, 8)),
                RandBiasField(prob=0.3, degree=2, coeff_range=(0.0, 0.15)),
                RandCoarseDropout(prob=0.3, holes=3, spatial_size=(24, 24), fill_value=0.0),
            ]
        self.transforms = Compose(transforms)

    def __call__(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Return augmented images, each by its own seed, so that no batch changes another's.

        Parameters
        ----------
        images
            Shape (n, 1, h, w), float32 in [0, 1].
        seeds
            Shape (n,), int64 in [0, 2**31).

        Returns
        -------
        Tensor
            Same shape, range and device as `images`; the transforms work on the CPU.
        """
        pairs = zip(images.cpu(), seeds.tolist(), strict=True)
        augmented = torch.stack([self._augmented(image, seed) for image, seed in pairs])
        return augmented.clamp(0, 1).to(images.device)

    def _augmented(self, image: Tensor, seed: int) -> Tensor:
        self.transforms.set_random_state(seed=seed)
        return convert_to_tensor(self.transforms(image))  # without the metadata that MONAI tracks
