"""PrivDiffPipeline: start -> noise -> denoise with SAS and SPG -> decode."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler
from diffusers.utils import BaseOutput
from torch import Tensor
from typing_extensions import Self

from privdiff_infer.errors import BundleError, OptionError
from privdiff_infer.model.autoencoder import RadiographAutoencoder
from privdiff_infer.model.clusters import PatientClusters
from privdiff_infer.model.conditioning import Condition
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.model.erasers import Erasers
from privdiff_infer.model.guidance import guided_prediction, rescaled, sensitive_branch
from privdiff_infer.model.stable_diffusion import (
    KLAutoencoder,
    is_stable_diffusion,
    load_autoencoder,
    load_stable_diffusion,
)
from privdiff_infer.model.strict_model import StrictModel
from privdiff_infer.profiles import PROFILES, ProfileSettings, Solver, Start
from privdiff_infer.vocabulary import Branch, FindingState, Profile

ADAPTERS = "adapters"
PRESENT_ABOVE = math.log(2)
ABSENT_BELOW = -math.log(2)
"""Evidence (log odds beyond the prevalence) for a state. Most findings are rare, so a probability
of a half is hardly ever reached, and a redrawing told that all is absent would take them away."""

OPTIONAL: dict[str, type[StrictModel]] = {
    "identity": IdentityEmbedder,
    "reader": RadiographReader,
    "clusters": PatientClusters,
}

BASE_ONLY = "it is a base for training, without privacy tuning and without codebooks"


@dataclass
class PrivDiffOutput(BaseOutput):
    """Result of one call.

    Attributes
    ----------
    images
        Redrawn radiographs, shape (n, 1, h, w), float32 in [0, 1], 0 = black = air.
    findings
        The states (n, 15) that the images were conditioned on.
    """

    images: Tensor
    findings: Tensor


@dataclass(frozen=True)
class Conditions:
    """The conditions of all branches for one batch."""

    findings: Condition
    unconditional: Condition
    sensitive: dict[Branch, Condition]

    @classmethod
    def of(cls, findings: Tensor, identity: Tensor, age: Tensor, sex: Tensor) -> Conditions:
        """Return the conditions for states (n, 15) and codebook rows (n,)."""
        values = {Branch.IDENTITY: identity, Branch.AGE: age, Branch.SEX: sex}
        return cls(
            findings=Condition.of_findings(findings),
            unconditional=Condition.unconditional(len(findings), findings.device),
            sensitive={
                branch: Condition.of_attribute(branch, value) for branch, value in values.items()
            },
        )

    def told(self, findings: Tensor | None, age: Tensor | None, sex: Tensor | None) -> Conditions:
        """Return the conditions with what is known in place of what was seen."""
        device = self.findings.findings.device
        sensitive = dict(self.sensitive)
        for branch, value in ((Branch.AGE, age), (Branch.SEX, sex)):
            if value is not None:
                sensitive[branch] = Condition.of_attribute(branch, value).to(device)
        known = self.findings if findings is None else Condition.of_findings(findings).to(device)
        return Conditions(known, self.unconditional, sensitive)


class PrivDiffPipeline(DiffusionPipeline):
    """Redraws frontal chest radiographs so that the findings stay and the person goes.

    Parameters
    ----------
    autoencoder
        Between images and latents.
    denoiser
        UNet with SAS in every cross-attention.
    scheduler
        The forward process that the denoiser was trained with.
    identity, reader
        Networks that supply prototype, findings, age and sex from the pixels; None in a base for
        training that has no privacy tuning.
    clusters
        Groups of patients that take the place of the source; None if the bundle has none.

    Attributes
    ----------
    erasers
        Fitted to the denoiser and put here by whoever samples with them; none in a bundle.
    """

    _optional_components = ["identity", "reader", "clusters"]  # noqa: RUF012 - diffusers' own protocol
    model_cpu_offload_seq = "autoencoder->denoiser->autoencoder"

    def __init__(
        self,
        autoencoder: RadiographAutoencoder | KLAutoencoder,
        denoiser: PrivDiffDenoiser,
        scheduler: DDPMScheduler,
        identity: IdentityEmbedder | None = None,
        reader: RadiographReader | None = None,
        clusters: PatientClusters | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            autoencoder=autoencoder,
            denoiser=denoiser,
            scheduler=scheduler,
            identity=identity,
            reader=reader,
            clusters=clusters,
        )
        self.adapters: dict[str, Path] = {}
        self.erasers = Erasers()
        self._merged: dict[str, PrivDiffDenoiser] = {}

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load a bundle, or a Stable-Diffusion-shaped folder as a base for training.

        Components are loaded by their own classes, which install the SAS processors first and
        refuse missing or unexpected weights; the generic loading of diffusers does neither.

        Raises
        ------
        BundleError
            If the folder is no bundle, or a weight is missing or unexpected.
        """
        folder = Path(folder)
        _require_model_index(folder)
        if is_stable_diffusion(folder):
            return cls(*load_stable_diffusion(folder))
        loaded: dict[str, Any] = {
            "autoencoder": load_autoencoder(folder / "autoencoder"),
            "denoiser": PrivDiffDenoiser.from_pretrained(folder / "denoiser"),
            "scheduler": DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
        }
        for name, model in OPTIONAL.items():
            if (folder / name).is_dir():
                loaded[name] = model.from_pretrained(folder / name)
        pipeline = cls(**loaded)
        pipeline.adapters = {path.name: path for path in sorted((folder / ADAPTERS).glob("*"))}
        return pipeline

    def save_pretrained(self, folder: str | Path, **kwargs: Any) -> None:
        """Save all components and copy the adapters; metadata and model card are not written."""
        super().save_pretrained(folder, **kwargs)
        for name, source in self.adapters.items():
            shutil.copytree(source, Path(folder) / ADAPTERS / name, dirs_exist_ok=True)

    @property
    def is_base(self) -> bool:
        """Whether this is only a base for training: no critics, no privacy tuning."""
        return self.identity is None or self.reader is None

    def starts_from_cluster(self, profile: Profile | ProfileSettings) -> bool:
        """Tell whether results of a profile owe to their source the choice of a group alone."""
        return _settings(profile).start is Start.CLUSTER and self.clusters is not None

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,
        *,
        profile: Profile | ProfileSettings = Profile.STANDARD,
        strength: float = 0.6,
        num_inference_steps: int | None = None,
        generators: Sequence[torch.Generator] | None = None,
        findings: Tensor | None = None,
        age: Tensor | None = None,
        sex: Tensor | None = None,
        start_latents: Tensor | None = None,
        callback: Callable[[int, int], None] | None = None,
    ) -> PrivDiffOutput:
        """Redraw a batch.

        Parameters
        ----------
        images
            Shape (n, 1, h, w), float32 in [0, 1], 0 = black = air, on the model grid.
        profile
            Named way of sampling, or settings that have no name.
        strength
            Fraction of the noise schedule applied before denoising, 0 < strength <= 1. At 1 the
            start is noise alone, and the image depends on the source through its conditions only.
        num_inference_steps
            Steps over the whole schedule; the profile's own number if None.
        generators
            One CPU generator per image, so that an image does not depend on its batch; fresh ones
            from the operating system's entropy if None.
        findings
            States (n, 15) of a report or manifest; those of the group, or predicted from the
            pixels, if None.
        age, sex
            Codebook rows (n,) from the header; those of the group, or predicted from the pixels,
            if None.
        start_latents
            Of the shape and scale of ``autoencoder.encode(images)``: what is drowned in noise in
            place of what the profile starts from. Conditions stay; at strength 1 there is no
            effect.
        callback
            Called with (steps done, steps in all) after each step.

        Raises
        ------
        OptionError
            If the strength or the number of steps is out of range, or the start does not fit.
        BundleError
            If the pipeline is only a base for training.
        """
        if self.is_base:
            raise BundleError(
                f"this folder cannot anonymize: {BASE_ONLY}", "train or name a bundle"
            )
        settings = _settings(profile)
        steps = num_inference_steps or settings.num_inference_steps
        self._check(strength, steps, len(images), generators)
        generators = generators or [_fresh_generator() for _ in images]
        images = images.to(self.device, self.dtype)

        # 1. What the images show, and of whom; or a group of patients that shows the like
        if self.starts_from_cluster(settings):
            groups = self.group_of(images)
            seen = self._conditions_of(groups)
            latents = self.clusters.drawn(groups, generators)  # (n, c, h/16, w/16)
        else:
            seen = self._conditions_in(images)
            latents = self.autoencoder.encode(images)
        conditions = seen.told(findings, age, sex)

        # 2. Drown the person in noise
        if start_latents is not None:
            latents = _of_one_shape(start_latents, latents)
        scheduler, timesteps = self._schedule(settings, strength, steps)
        noise = _randn_like(latents, generators)
        if strength < 1:
            latents = self.scheduler.add_noise(latents, noise, timesteps[:1].expand(len(latents)))
        else:
            latents = noise  # the schedule ends with a hundredth of the source left

        # 3. Denoise towards the findings, away from the person
        denoiser = self._denoiser_of(settings)
        for index, timestep in enumerate(timesteps):
            prediction = self._predict(denoiser, latents, timestep, index, conditions, settings)
            latents = scheduler.step(
                prediction, timestep, latents, generator=list(generators)
            ).prev_sample
            if callback:
                callback(index + 1, len(timesteps))

        # 4. Decode
        redrawn = self.autoencoder.decode(latents).float().clamp(0, 1)
        return PrivDiffOutput(images=redrawn, findings=conditions.findings.findings)

    @torch.no_grad()
    def read_findings(self, images: Tensor) -> Tensor:
        """Return the finding states (n, 15) that the pipeline sees in images."""
        return finding_states(self.reader.evidence(self.reader(images)))

    @torch.no_grad()
    def group_of(self, images: Tensor) -> Tensor:
        """Return the group of patients (n,) whose findings are nearest to those of images."""
        groups: Tensor = self.clusters.nearest(self.reader.evidence(self.reader(images)))
        return groups

    def _conditions_in(self, images: Tensor) -> Conditions:
        """Return what the critics see in images."""
        reading = self.reader(images)
        return Conditions.of(
            findings=finding_states(self.reader.evidence(reading)),
            identity=self.identity.nearest_prototype(images),
            age=reading.age.argmax(dim=-1),
            sex=(reading.sex > 0).long(),
        )

    def _conditions_of(self, groups: Tensor) -> Conditions:
        """Return the conditions of groups of patients (n,)."""
        clusters = self.clusters
        return Conditions.of(
            findings=clusters.findings[groups],
            identity=clusters.identity[groups],
            age=clusters.age[groups],
            sex=clusters.sex[groups],
        )

    def _schedule(
        self, settings: ProfileSettings, strength: float, steps: int
    ) -> tuple[DDPMScheduler | DPMSolverMultistepScheduler, Tensor]:
        """Return the sampler and its timesteps, from strength * T down to 0."""
        if settings.solver is Solver.DDPM:
            scheduler = DDPMScheduler.from_config(self.scheduler.config)
        else:
            scheduler = DPMSolverMultistepScheduler.from_config(
                self.scheduler.config,
                algorithm_type=settings.solver.value,
                solver_order=2,
                final_sigmas_type="zero",  # no noise is added by the last step
            )
        timesteps = spaced_timesteps(
            start=max(1, round(strength * scheduler.config.num_train_timesteps)),
            count=max(1, math.ceil(steps * strength)),
            power=settings.spacing_power,
        )
        scheduler.set_timesteps(timesteps=timesteps, device=self.device)
        return scheduler, torch.tensor(timesteps, device=self.device)

    def _denoiser_of(self, settings: ProfileSettings) -> PrivDiffDenoiser:
        """Return the denoiser of a profile: the base, with the profile's adapter merged into it."""
        name = settings.adapter
        if name is None or name not in self.adapters:
            return self.denoiser
        if name not in self._merged:
            self._merged[name] = self.denoiser.merged(self.adapters[name])
        return self._merged[name].to(self.device, self.dtype)

    def _predict(
        self,
        denoiser: PrivDiffDenoiser,
        latents: Tensor,
        timestep: Tensor,
        index: int,
        conditions: Conditions,
        settings: ProfileSettings,
    ) -> Tensor:
        """Return the (guided) prediction; all branches share one call of the denoiser."""
        guidance, total = settings.guidance, self.scheduler.config.num_train_timesteps
        if guidance is None or not guidance.covers(int(timestep), total):
            return denoiser(latents, timestep, conditions.findings, settings.sas, self.erasers)
        branches = Condition.cat(
            [
                conditions.unconditional,
                conditions.findings,
                conditions.sensitive[sensitive_branch(index)],
            ]
        )
        predictions = denoiser(
            latents.repeat(3, 1, 1, 1), timestep, branches, settings.sas, self.erasers
        )
        unconditional, diagnostic, sensitive = predictions.chunk(3)
        guided = guided_prediction(
            unconditional,
            diagnostic,
            sensitive,
            guidance.findings_weight,
            guidance.attribute_weight,
        )
        return rescaled(guided, diagnostic) if guidance.rescale else guided

    def _check(
        self,
        strength: float,
        steps: int,
        count: int,
        generators: Sequence[torch.Generator] | None,
    ) -> None:
        check_strength(strength)
        limit = self.scheduler.config.num_train_timesteps
        if not 1 <= steps <= limit:
            raise OptionError(
                f"{steps} inference steps is outside 1 to {limit}", "choose a number in it"
            )
        if generators is not None and len(generators) != count:
            raise OptionError(
                f"{len(generators)} generators for {count} images", "give one generator per image"
            )


def finding_states(evidence: Tensor) -> Tensor:
    """Return the states (n, 15), int64, for evidence of the findings (n, 15).

    Examples
    --------
    >>> finding_states(torch.tensor([[-1.0, 0.0, 1.0]])).tolist()
    [[1, 0, 2]]
    """
    states = torch.full_like(evidence, FindingState.UNKNOWN.value, dtype=torch.long)
    states[evidence >= PRESENT_ABOVE] = FindingState.PRESENT.value
    states[evidence <= ABSENT_BELOW] = FindingState.ABSENT.value
    return states


def spaced_timesteps(start: int, count: int, power: float) -> list[int]:
    """Return at most `count` distinct timesteps that fall from ``start - 1``.

    Examples
    --------
    >>> spaced_timesteps(start=600, count=4, power=1.0)
    [599, 449, 299, 149]
    >>> spaced_timesteps(start=600, count=4, power=2.0)
    [599, 337, 149, 37]
    >>> spaced_timesteps(start=3, count=10, power=2.0)
    [2, 1, 0]
    """
    ideal = (start * (1 - i / count) ** power for i in range(count))
    return sorted({math.ceil(round(value, 6)) - 1 for value in ideal}, reverse=True)


def check_strength(strength: float) -> float:
    """Return the strength, or raise `OptionError` if it is outside (0, 1]."""
    if not 0 < strength <= 1:
        raise OptionError(f"strength {strength} is outside (0, 1]", "choose a value up to 1")
    return strength


def _settings(profile: Profile | ProfileSettings) -> ProfileSettings:
    return PROFILES[profile] if isinstance(profile, Profile) else profile


def _randn_like(latents: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw noise per image on the CPU, so that devices and batches agree."""
    drawn = [torch.randn(latents.shape[1:], generator=generator) for generator in generators]
    return torch.stack(drawn).to(latents)


def _of_one_shape(start: Tensor, latents: Tensor) -> Tensor:
    if start.shape != latents.shape:
        raise OptionError(
            f"start latents of shape {tuple(start.shape)} for images of {tuple(latents.shape)}",
            "give one latent per image, of the autoencoder's shape",
        )
    return start.to(latents)


def _fresh_generator() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()  # the operating system's entropy
    return generator


def _require_model_index(folder: Path) -> None:
    if not (folder / "model_index.json").is_file():
        raise BundleError(
            f"{folder.name} is no model bundle: it has no model_index.json",
            "name a bundle of `privdiff models` or a bundle's folder",
        )
