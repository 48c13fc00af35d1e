"""A7: a network learns to undo the tool, and another attacker looks at what it recovers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from monai.networks.nets.unet import UNet
from torch import Tensor
from torch.nn import functional

from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import (
    Attack,
    Copies,
    Curve,
    Known,
    Originals,
    Scores,
)
from privdiff_training.evaluation.attacks.config import InverterConfig
from privdiff_training.evaluation.attacks.fitting import fit, in_batches, resampled
from privdiff_training.evaluation.methods.method import hash_of
from privdiff_training.sampling import generator_for


@dataclass(frozen=True)
class Inversion:
    """Recovers originals from copies, then attacks as another rung does.

    Attributes
    ----------
    then
        Who looks at the recovered images, and trains on recovered ones if it trains at all.
    config
        Network and training of the inverter.
    """

    then: Attack
    config: InverterConfig = field(default_factory=InverterConfig)
    rung = Rung.INVERSION
    is_learned = True
    learns_from_copies = True
    redraws_gallery = False
    needs_groups = False

    @property
    def name(self) -> str:
        """Who looks."""
        return f"recovered images, {self.then.name}"

    @property
    def fingerprint(self) -> str:
        """Of the inverter and of who looks."""
        return hash_of("inversion", self.config.model_dump_json(), self.then.fingerprint)

    def trained_on(self, known: Known) -> str:
        """Say how many images, copies and steps, for both."""
        return (
            f"inverter: {len(known.train)} images, {len(known.train_copies.pixels)} copies each, "
            f"at most {self.config.steps} steps of {self.config.batch_size}; "
            f"then: {self.then.trained_on(known)}"
        )

    def train(self, known: Known, seed: int) -> Scores:
        """Train the inverter by the mean absolute error, then who looks."""
        key = (hash_of("inverter", self.config.model_dump_json()), seed)
        if key not in known.memory:
            known.memory[key] = _trained(known, self.config, seed)
        inverter, curve = known.memory[key]

        def recovered(copies: Copies) -> Copies:
            small = resampled(copies.pixels, self.config.image_size)
            flat = in_batches(lambda part: _recover(inverter, part), small.flatten(0, 1))
            pixels = (flat * 255).round().byte().unflatten(0, small.shape[:2])
            return Copies(copies.cohort, pixels)

        of_recovered = replace(  # with a memory of its own
            known,
            copy=lambda originals: recovered(known.copy(originals)),
            copy_anew=lambda originals: recovered(known.copy_anew(originals)),
        )
        linker = self.then.train(of_recovered, seed)

        def link(queries: Copies, gallery: Originals) -> np.ndarray:
            return linker(recovered(queries), gallery)

        return Scores(link, curve)


def _trained(known: Known, config: InverterConfig, seed: int) -> tuple[UNet, Curve]:
    torch.manual_seed(generator_for(seed, "inverter").initial_seed())
    network = UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=config.channels,
        strides=(2,) * (len(config.channels) - 1),
        num_res_units=1,
        norm="batch",
    )
    copies = resampled(known.train_copies.pixels, config.image_size)
    originals = resampled(known.train.pixels, config.image_size)
    select_copies = resampled(known.select_copies.pixels[0], config.image_size)
    select = resampled(known.select.pixels, config.image_size).float() / 255

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(originals), (config.batch_size,), generator=generator)
        versions = torch.randint(len(copies), (config.batch_size,), generator=generator)
        recovered = _recover(network, copies[versions, rows].float() / 255)
        return functional.l1_loss(recovered, originals[rows].float() / 255)

    def judge() -> float:
        recovered = in_batches(lambda part: _recover(network, part), select_copies)
        return float(functional.l1_loss(recovered, select))

    fitted = fit(network, loss, judge, config, seed, f"A7 inverter seed {seed}")
    return network, fitted.curve


def _recover(network: UNet, copies: Tensor) -> Tensor:
    """Return images (n, 1, s, s) in [0, 1]: the copy and what the network adds to it."""
    return (copies + network(copies)).clamp(0, 1)
