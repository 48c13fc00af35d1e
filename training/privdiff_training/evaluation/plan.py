"""What an evaluation of each size runs, and why it leaves the rest out.

Copies, readers and what is drawn for A10 are the same in the default and in the full size, so that
a full run in the folder of a default one goes on from it.
"""

from __future__ import annotations

from collections.abc import Collection

from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.record import Plan, Size

PLANS = {
    Size.QUICK: Plan(
        rungs=frozenset({Rung.FIXED, Rung.METADATA}),
        seeds=1,
        baseline_seeds=1,
        versions=1,
        test_versions=1,
        test_images=60,
        drawn=0,
        members=0,
        attributes=False,
        reader_steps=0,
        gallery_versions=0,
    ),
    Size.DEFAULT: Plan(
        rungs=frozenset(
            {
                Rung.FIXED,
                Rung.MATCHED_RETRAINING,
                Rung.METRIC_LEARNING,
                Rung.METADATA,
                Rung.AVERAGING,
                Rung.REDRAWN_GALLERY,
                Rung.READINGS,
                Rung.STARTING_POINTS,
                Rung.TOGETHER,
            }
        ),
        seeds=3,
        baseline_seeds=1,
        versions=2,
        test_versions=2,
        test_images=None,
        drawn=100,
        members=300,
        attributes=True,
        reader_steps=600,
        gallery_versions=1,
    ),
    Size.FULL: Plan(
        rungs=frozenset(Rung),
        seeds=5,
        baseline_seeds=3,
        versions=2,
        test_versions=2,
        test_images=None,
        drawn=100,
        members=300,
        attributes=True,
        reader_steps=600,
        gallery_versions=1,
    ),
}


def reasons_not_to_run(
    plan: Plan, size: Size, wanted: Collection[Rung] | None, has_encoders: bool
) -> dict[str, str]:
    """Return why each rung or part that is not run is not, by its name.

    Parameters
    ----------
    plan, size
        Of the run.
    wanted
        The rungs that the user named; None if all of the plan.
    has_encoders
        Whether a public encoder is on disk.
    """
    too_small = f"not part of a run of size {size.value}"
    reasons = {}
    for rung in Rung:
        if wanted is not None and rung not in wanted:
            reasons[rung.value] = "left out by --attacks"
        elif wanted is None and rung not in plan.rungs:
            reasons[rung.value] = too_small
        elif rung is Rung.AVERAGING and plan.test_versions < 2:
            reasons[rung.value] = f"{too_small}, which makes one copy of an image"
        elif rung is Rung.REDRAWN_GALLERY and not plan.gallery_versions:
            reasons[rung.value] = f"{too_small}, which redraws no gallery"
        elif rung is Rung.FROZEN_ENCODER and not has_encoders:
            reasons[rung.value] = (
                "no public encoder on disk was named: --attackers FILE with the key encoders"
            )
    if not plan.drawn:
        reasons["memorization"] = too_small
    if not plan.attributes:
        reasons["attributes"] = too_small
    return reasons
