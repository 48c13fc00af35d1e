"""Differentially private training of LoRA weights in the denoiser, per patient.

DP-SGD (Abadi et al., Deep Learning with Differential Privacy, CCS 2016): in every step each patient
takes part with a small probability, by one image that is drawn; the gradient of each patient is cut
to a length, their sum gets Gaussian noise. Adding or removing a patient with all images changes one
such gradient, so the epsilon that Opacus accounts for is one per patient.

The loop knows nothing of it: the loss that it is given has the noisy mean as its gradient. Noise
comes from torch's generators, which are not made against attacks on the generator itself.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping

import torch
from accelerate import PartialState
from opacus import GradSampleModule
from opacus.accountants import RDPAccountant
from opacus.accountants.utils import get_noise_multiplier
from opacus.optimizers import DPOptimizer
from torch import Tensor

from privdiff_infer.errors import ConfigError
from privdiff_infer.model.autoencoder import RadiographAutoencoder
from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.model.stable_diffusion import KLAutoencoder
from privdiff_training.cohort import Cohort
from privdiff_training.sampling import Step, generator_for
from privdiff_training.stages.diffusion import (
    DiffusionConfig,
    DiffusionStage,
    denoising_loss,
    draw_condition,
    draw_settings,
)


class PrivateDiffusionStage(DiffusionStage):
    """The diffusion stage under differential privacy.

    Parameters
    ----------
    config
        Of the diffusion stage, with a `rank`; `batch_size` is the mean number of patients a step.
    autoencoder, identity, initial
        As of the diffusion stage.
    epsilon
        To be spent by all steps.
    clip
        Longest gradient of one patient.
    secret
        Seed of the drawn patients and of the noise. Who knows it can take the noise away.

    Raises
    ------
    ConfigError
        If there are no LoRA weights to train, several processes, or too few patients.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        autoencoder: RadiographAutoencoder | KLAutoencoder,
        identity: IdentityEmbedder,
        initial: PrivDiffDenoiser | None,
        *,
        epsilon: float,
        clip: float,
        secret: int,
    ) -> None:
        if config.rank is None or config.mixed_precision != "no":
            raise ConfigError(
                "differentially private training trains LoRA weights in float32",
                "give a rank, and mixed_precision no",
            )
        if PartialState().num_processes > 1:
            raise ConfigError(
                "differentially private training runs in one process", "start one process"
            )
        super().__init__(config, autoencoder, identity, initial)
        self.secret, self.clip = secret, clip
        self.rows_of_patient = rows_of_patients(self.images.cohort)
        patients = len(self.rows_of_patient)
        if config.batch_size > patients:
            raise ConfigError(
                f"batch_size: {config.batch_size} patients a step, but {patients} train",
                "choose a smaller one: the fewer of all take part, the less is told of each",
            )
        self.sample_rate = config.batch_size / patients
        self.delta = delta_for(patients)
        self.noise_multiplier = get_noise_multiplier(
            target_epsilon=epsilon,
            target_delta=self.delta,
            sample_rate=self.sample_rate,
            steps=config.steps,
            accountant="rdp",
        )
        self.denoiser.train()
        GradSampleModule(self.denoiser, loss_reduction="sum")  # its hooks stay on the layers
        weights = [weight for weight in self.denoiser.parameters() if weight.requires_grad]
        self.clipping = DPOptimizer(
            torch.optim.SGD(weights, lr=0.0),  # never moves: the loop has an optimizer of its own
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=clip,
            expected_batch_size=config.batch_size,
        )

    def loss(self, player: str, step: Step) -> tuple[Tensor, Mapping[str, float]]:
        """Return a number whose gradient is the noisy mean of the patients' gradients."""
        rows = self.drawn_rows(step.index)
        loss = 0.0
        if len(rows):
            mean = self.mean_loss(rows, step)
            with warnings.catch_warnings():
                # Layers that see the findings alone: the codebook of these is not trained.
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                (mean * len(rows)).backward()
            loss = mean.item()
        gradients = self._noisy_mean(step.index, len(rows))
        self.denoiser.zero_grad(set_to_none=True)
        surrogate = sum(
            (weight * gradient).sum()
            for weight, gradient in zip(self.clipping.params, gradients, strict=True)
        )
        return surrogate, {"denoising": loss, "patients": float(len(rows))}

    def privacy_spent(self, steps: int) -> dict[str, float]:
        """Return epsilon and delta of so many steps, per patient."""
        accountant = RDPAccountant()
        accountant.history = [(self.noise_multiplier, self.sample_rate, steps)]
        epsilon = float(accountant.get_epsilon(self.delta)) if steps else 0.0
        return {"epsilon": epsilon, "delta": self.delta}

    def drawn_rows(self, index: int) -> Tensor:
        """Return one image of every patient who takes part in a step, shape (n,), int64."""
        generator = generator_for(self.secret, "patients", index)
        takes_part = torch.rand(len(self.rows_of_patient), generator=generator) < self.sample_rate
        which = torch.rand(len(self.rows_of_patient), generator=generator)
        return torch.tensor(
            [
                rows[int(which[patient] * len(rows))]
                for patient, rows in enumerate(self.rows_of_patient)
                if takes_part[patient]
            ],
            dtype=torch.long,
        )

    def mean_loss(self, rows: Tensor, step: Step) -> Tensor:
        """Return the denoising loss of some rows; each row has a gradient of its own kept."""
        own = Step(step.index, rows, step.generator)
        latents = self.data.draw(own)
        timesteps = self.data.timesteps(own, self.config.schedule.num_train_timesteps)
        noise = own.randn(len(rows), *latents.shape[1:]).to(latents.device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps).requires_grad_()
        condition = draw_condition(self.data, rows, own, self.config).to(latents.device)
        predicted = self.denoiser(noisy, timesteps, condition, draw_settings(self.config.sas, own))
        return denoising_loss(
            self.scheduler, predicted, latents, noise, timesteps, self.config.snr_gamma
        )

    def _noisy_mean(self, index: int, patients: int) -> list[Tensor]:
        dp = self.clipping
        for weight in dp.params:
            if patients == 0 or getattr(weight, "grad_sample", None) is None:
                weight.grad_sample = weight.new_zeros(patients, *weight.shape)
        seed = generator_for(self.secret, "noise", index).initial_seed()
        dp.generator = torch.Generator(dp.params[0].device).manual_seed(seed)
        dp.clip_and_accumulate()
        dp.add_noise()
        dp.scale_grad()
        gradients = [weight.grad.detach().clone() for weight in dp.params]
        dp.zero_grad(set_to_none=True)
        return gradients


def rows_of_patients(cohort: Cohort) -> list[list[int]]:
    """Return the rows of every patient, in the order of the cohort."""
    rows = defaultdict(list)
    for index, row in enumerate(cohort):
        rows[row.unit].append(index)
    return list(rows.values())


def delta_for(patients: int) -> float:
    """Return a tenth of one over the number of patients: far from giving one of them away."""
    return 0.1 / patients
