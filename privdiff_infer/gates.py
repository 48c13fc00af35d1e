"""Checks before an image is redrawn and before a result leaves; they fail closed.

The rule for a result, all of it: each attempt is drawn with fresh noise and checked by every gate.
The first one that passes all is kept. After a failure that more noise cures (`MORE_NOISE`) the next
attempt has `STRENGTH_STEP` more of it; after any other, such as lost findings, which more noise
would not bring back, it has the same strength. `MAX_ATTEMPTS` attempts are made; the last is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from privdiff_infer.burned_in_text import LEFT_IN_RESULT
from privdiff_infer.errors import ImageHeld
from privdiff_infer.model.bundle import GateThresholds
from privdiff_infer.radiograph import HeaderFacts
from privdiff_infer.vocabulary import AGE_BIN_EDGES

ADULT_YEARS = AGE_BIN_EDGES[0]

MAX_ATTEMPTS = 3
STRENGTH_STEP = 0.1

GALLERY_RATE = 0.05
"""Part of a gallery among which the original must not be; as many strangers are there anyhow."""

SMOOTH = 0.9
"""Part of an image, the smoothest, whose grain is measured: edges and markers lie in the rest."""


class Gate(str, Enum):
    """What a result must pass."""

    LINKAGE = "linkage"
    GALLERY = "gallery"
    FINDINGS = "findings"
    FRONTAL = "frontal"
    QUALITY = "quality"
    TEXT = "text"


MORE_NOISE = frozenset({Gate.LINKAGE, Gate.GALLERY, Gate.TEXT})
"""Gates that a result passes more easily the more noise it is drawn from."""


@dataclass(frozen=True)
class GalleryRank:
    """How many of a gallery and the original a result is nearer to than to the original, plus one.

    Attributes
    ----------
    rank
        From 1, the original is the nearest of all, to ``size + 1``.
    size
        Images in the gallery.
    """

    rank: int
    size: int


@dataclass(frozen=True)
class ResultChecks:
    """What the gates look at in one result.

    Attributes
    ----------
    identity_similarity
        Cosine of source and result under the bundle's identity network: a fast check of one image,
        not a measurement of risk.
    findings_agreement
        Cosine of the evidence that the bundle's reader sees in source and result (see
        `RadiographReader.evidence`), over all findings and their absence.
    frontal_logit
        The reader's, above 0 for upright frontal chest radiographs.
    grain, contrast
        See `grain`; and the standard deviation of the pixels in [0, 1].
    has_text
        Whether text can be read in it.
    gallery_rank
        None without a gallery.
    """

    identity_similarity: float
    findings_agreement: float
    frontal_logit: float
    grain: float
    contrast: float
    has_text: bool
    gallery_rank: GalleryRank | None = None


@dataclass(frozen=True)
class Failure:
    """A gate that a result did not pass, and why; the reason is private, for it has values."""

    gate: Gate
    reason: str


def check_patient(header: HeaderFacts, *, evaluated_under_18: bool) -> None:
    """Hold images of patients known to be under 18 unless the model was evaluated on them.

    Raises
    ------
    ImageHeld
        If the header gives such an age.
    """
    if header.age_years is not None and header.age_years < ADULT_YEARS and not evaluated_under_18:
        raise ImageHeld(
            "the patient is under 18 and this model has no evaluation for children",
            "use a model that was evaluated on children",
        )


def check_frontal(frontal_logit: float, thresholds: GateThresholds) -> None:
    """Hold what does not look like an upright frontal chest radiograph.

    Raises
    ------
    ImageHeld
        If the bundle's reader scores the image below the threshold.
    """
    if not frontal_logit >= thresholds.frontal_logit:  # NaN is held too
        raise ImageHeld(
            "this does not look like an upright frontal chest radiograph",
            "check view, orientation and photometric interpretation",
            detail=f"score {frontal_logit:.1f}, needed {thresholds.frontal_logit:.1f}",
        )


def failures(checks: ResultChecks, thresholds: GateThresholds) -> tuple[Failure, ...]:
    """Return the gates that a result does not pass, in the order of `Gate`; NaN passes none."""
    reasons = {
        Gate.LINKAGE: linkage_failure(checks.identity_similarity, thresholds),
        Gate.GALLERY: gallery_failure(checks.gallery_rank),
        Gate.FINDINGS: _findings_failure(checks.findings_agreement, thresholds),
        Gate.FRONTAL: _frontal_failure(checks.frontal_logit, thresholds),
        Gate.QUALITY: quality_failure(checks.grain, checks.contrast, thresholds),
        Gate.TEXT: LEFT_IN_RESULT if checks.has_text else None,
    }
    return tuple(Failure(gate, reason) for gate, reason in reasons.items() if reason)


def next_strength(strength: float, failed: Sequence[Failure]) -> float:
    """Return the strength of the attempt after one that failed.

    Examples
    --------
    >>> next_strength(0.6, [Failure(Gate.FINDINGS, "lost")])
    0.6
    >>> next_strength(0.6, [Failure(Gate.FINDINGS, "lost"), Failure(Gate.LINKAGE, "near")])
    0.7
    """
    if not any(failure.gate in MORE_NOISE for failure in failed):
        return strength
    return min(1.0, round(strength + STRENGTH_STEP, 6))


def linkage_failure(similarity: float, thresholds: GateThresholds) -> str | None:
    """Return why a result is too close to its source, or None if it is not."""
    if similarity <= thresholds.linkage_similarity:
        return None
    return (
        f"the result is too similar to its source (cosine {similarity:.2f}, "
        f"allowed {thresholds.linkage_similarity:.2f}); try a higher strength"
    )


def gallery_failure(place: GalleryRank | None) -> str | None:
    """Return why a search among a gallery would find the source, or None if it would not.

    Examples
    --------
    >>> gallery_failure(GalleryRank(rank=6, size=99)) is None
    True
    >>> gallery_failure(GalleryRank(rank=5, size=99)) is None
    False
    """
    if place is None or place.rank > max(1, round(GALLERY_RATE * (place.size + 1))):
        return None
    return (
        "a search in the gallery would find the source of the result "
        f"(rank {place.rank} of {place.size + 1}); try a higher strength"
    )


def quality_failure(
    grain_of_result: float, contrast: float, thresholds: GateThresholds
) -> str | None:
    """Return why a result does not look like the picture of a radiograph, or None if it does."""
    least, most = thresholds.grain
    if least <= grain_of_result <= most and contrast >= thresholds.contrast:
        return None
    return (
        f"the result is too blurred, too noisy or too pale (grain {grain_of_result:.4f}, allowed "
        f"{least:.4f} to {most:.4f}; contrast {contrast:.3f}, needed {thresholds.contrast:.3f}); "
        "try another profile or strength"
    )


def _findings_failure(agreement: float, thresholds: GateThresholds) -> str | None:
    if agreement >= thresholds.findings_agreement:
        return None
    return (
        f"the findings of the source are not in the result (agreement {agreement:.2f}, "
        f"needed {thresholds.findings_agreement:.2f}); try a lower strength or another profile"
    )


def _frontal_failure(frontal_logit: float, thresholds: GateThresholds) -> str | None:
    if frontal_logit >= thresholds.frontal_logit:
        return None
    return (
        "the result does not look like an upright frontal chest radiograph "
        f"(score {frontal_logit:.1f}, needed {thresholds.frontal_logit:.1f}); "
        "try another profile or strength"
    )


def grain(pixels: np.ndarray) -> float:
    """Return how rough an image is where it is smooth: high for speckle, near 0 for blur.

    Mean magnitude of the second differences along rows and columns, over the smoothest `SMOOTH` of
    the image. The mask is that of Immerkaer, *Fast noise variance estimation*, CVIU 64(2), 1996.

    Parameters
    ----------
    pixels
        Shape (rows, columns), float in [0, 1].
    """
    rough = np.abs(np.diff(np.diff(pixels, 2, axis=0), 2, axis=1)).ravel()
    count = max(1, int(SMOOTH * rough.size))
    return float(np.partition(rough, count - 1)[:count].mean())
