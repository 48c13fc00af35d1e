"""The named ways of sampling as data: what each profile switches on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from privdiff_infer.model.guidance import Guidance
from privdiff_infer.model.sas import SASMode, SASSettings
from privdiff_infer.vocabulary import Profile


class Solver(str, Enum):
    """Stochastic samplers. A deterministic one could be run backwards to the patient."""

    SDE_DPM = "sde-dpmsolver++"
    DDPM = "ddpm"


class Start(str, Enum):
    """Where a redrawing starts, and whose conditions it has.

    ``SOURCE``: the latent of the image, and what is read from it. ``CLUSTER``: an exemplar of the
    group of training patients whose findings are nearest, and the conditions of that group, so that
    the result owes to the image the choice of the group alone; the image itself for bundles without
    groups.
    """

    SOURCE = "source"
    CLUSTER = "cluster"


@dataclass(frozen=True)
class ProfileSettings:
    """One named way of sampling.

    Attributes
    ----------
    sas
        Settings of Selective Attribute Suppression.
    guidance
        None: one branch (the findings) per step.
    adapter
        Name of the LoRA weights of the bundle to use, if the bundle has them.
    solver
        Sampler of the reverse process.
    num_inference_steps
        Steps over the whole schedule; strength s runs about s times as many.
    spacing_power
        Timesteps fall from the start as (1 - i / steps) to this power. 1 spaces them evenly; above
        it they crowd towards the end, where fine detail is decided.
    start
        Where the redrawing starts, and whose conditions it has.
    """

    sas: SASSettings
    guidance: Guidance | None
    adapter: str | None
    solver: Solver
    num_inference_steps: int
    spacing_power: float = 2.0
    start: Start = Start.SOURCE


PROFILES: dict[Profile, ProfileSettings] = {
    Profile.STANDARD: ProfileSettings(
        sas=SASSettings(),
        guidance=Guidance(),
        adapter="standard",
        solver=Solver.SDE_DPM,
        num_inference_steps=16,
        start=Start.CLUSTER,
    ),
    Profile.FAST: ProfileSettings(
        sas=SASSettings(),
        guidance=None,
        adapter="fast",
        solver=Solver.SDE_DPM,
        num_inference_steps=8,
        start=Start.CLUSTER,
    ),
    Profile.VANILLA: ProfileSettings(
        sas=SASSettings(strength=0.0),
        guidance=None,
        adapter=None,
        solver=Solver.SDE_DPM,
        num_inference_steps=20,
    ),
    Profile.PAPER: ProfileSettings(
        sas=SASSettings(mode=SASMode.PAPER),
        guidance=Guidance(attribute_weight=0.5, rescale=False),
        adapter="paper",
        solver=Solver.DDPM,
        num_inference_steps=50,
        spacing_power=1.0,
    ),
}
