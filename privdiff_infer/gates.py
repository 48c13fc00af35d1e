"""Checks before an image is redrawn and before a result leaves; they fail closed."""

from __future__ import annotations

from privdiff_infer.errors import ImageHeld
from privdiff_infer.model.bundle import GateThresholds
from privdiff_infer.radiograph import HeaderFacts
from privdiff_infer.vocabulary import AGE_BIN_EDGES

ADULT_YEARS = AGE_BIN_EDGES[0]


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


def linkage_failure(similarity: float, thresholds: GateThresholds) -> str | None:
    """Return why a result is too close to its source, or None if it is not.

    `similarity` is the cosine of both embeddings under the bundle's own identity network: a fast
    check of one image, not a measurement of risk.
    """
    if similarity <= thresholds.linkage_similarity:
        return None
    return (
        f"the result is too similar to its source (cosine {similarity:.2f}, "
        f"allowed {thresholds.linkage_similarity:.2f}); try a higher strength"
    )
