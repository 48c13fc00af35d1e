"""Selective Privacy Guidance (SPG): towards the findings, away from one sensitive attribute.

Source: Akhter, Dosi, Vatsa, Singh, PMLR 317:27-36, 2026, section on SPG:

    eps_p = eps(phi) + w_diag [eps(diag) - eps(phi)] - |w_s| [eps(s) - eps(phi)].

The weights sum to one, so the same combination holds for v-predictions. With the cumulated signal
abar_t,

    v = (eps - sqrt(1 - abar_t) z_t) / sqrt(abar_t)

is an affine function of eps whose coefficients depend on z_t and t alone: the combination of the v
is the v of the combined eps.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from privdiff_infer.errors import OptionError
from privdiff_infer.vocabulary import SENSITIVE_BRANCHES, Branch


@dataclass(frozen=True)
class Guidance:
    """When and how strongly a sampler is guided.

    Attributes
    ----------
    findings_weight
        w_diag >= 1. Guidance exaggerates what the findings change, so values stay near 1.
    attribute_weight
        |w_s| in [0, 1]; constant negative guidance beyond 1 distorts images.
    interval
        Part of the schedule, as (low, high) fractions of T, in which to guide; outside it the
        diagnostic branch is used alone.
    rescale
        Give the guided prediction the standard deviation of the diagnostic one, per image.

    Raises
    ------
    OptionError
        If a weight is out of range, or the interval is not ordered and within [0, 1].
    """

    findings_weight: float = 1.5
    attribute_weight: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: bool = True

    def __post_init__(self) -> None:
        if self.findings_weight < 1:
            raise OptionError(
                f"findings weight {self.findings_weight} is below 1",
                "choose 1 for the plain diagnostic branch, or more",
            )
        if not 0 <= self.attribute_weight <= 1:
            raise OptionError(
                f"attribute weight {self.attribute_weight} is outside [0, 1]",
                "choose a value in it",
            )
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise OptionError(
                f"guidance interval ({low}, {high}) is not ordered within [0, 1]",
                "name fractions of the schedule, the lower one first",
            )

    def covers(self, timestep: int, num_train_timesteps: int) -> bool:
        """Tell whether this timestep is guided."""
        low, high = self.interval
        return low * num_train_timesteps <= timestep <= high * num_train_timesteps


def sensitive_branch(step: int) -> Branch:
    """Return the attribute of one sampling step; the paper uses a single one per iteration.

    Examples
    --------
    >>> [sensitive_branch(step).name for step in range(4)]
    ['IDENTITY', 'AGE', 'SEX', 'IDENTITY']
    """
    return SENSITIVE_BRANCHES[step % len(SENSITIVE_BRANCHES)]


def guided_prediction(
    unconditional: Tensor,
    diagnostic: Tensor,
    sensitive: Tensor,
    findings_weight: float,
    attribute_weight: float,
) -> Tensor:
    """Combine three predictions of one shape to the guided one (equation above).

    With ``findings_weight=1`` and ``attribute_weight=0`` the diagnostic prediction comes back.
    """
    return (
        (1 - findings_weight + attribute_weight) * unconditional
        + findings_weight * diagnostic
        - attribute_weight * sensitive
    )


def rescaled(guided: Tensor, reference: Tensor) -> Tensor:
    """Give every row of `guided` (n, c, h, w) the standard deviation of the row of `reference`."""
    dims = (1, 2, 3)
    return guided * (reference.std(dims, keepdim=True) / guided.std(dims, keepdim=True))
