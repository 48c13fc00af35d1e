"""What an evaluation of each size runs, and why it leaves the rest out.

Copies, readers and what is drawn for A10 are the same in the default and in the full size, so that
a full run in the folder of a default one goes on from it.

The operating point meets everything. Rivals meet every attacker. Further points of curves and
ablations get their place on the plane and no more: one copy of an image, and attackers in whom no
network is trained, so they are linked at least so well. Where attackers who learn from no copy link
all copies of a rival or a further point to the very image, none learns from its copies: there is
no more to find of that kind, and what is found of another image stays a lower bound.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

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

NOT_OF_THE_SIZE = "not part of a run of size"

MEMORIZATION = "memorization"
"""Name of A10, which attacks the generator and no image."""

LINKED = 0.99
"""Same-image AUC beyond which no attacker can tell more of the very image."""

GLANCE = frozenset({Rung.FIXED, Rung.READINGS, Rung.STARTING_POINTS, Rung.TOGETHER})
"""Attackers that need one copy of an image and no training."""

NOT_OF_A_GLANCE = "no part of what further points of a curve and ablations are measured by"


def of_rivals(plan: Plan) -> Plan:
    """Return what is done to a method that stands for its family beside the operating point."""
    return replace(plan, seeds=plan.baseline_seeds, enough=LINKED)


def of_further_points(plan: Plan) -> Plan:
    """Return what is done to the other points of curves, and to ablations."""
    return replace(
        plan,
        rungs=plan.rungs & GLANCE,
        seeds=1,
        versions=1,
        test_versions=1,
        attributes=False,
        reader_steps=0,
        gallery_versions=0,
        enough=LINKED,
    )


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
    too_small = f"{NOT_OF_THE_SIZE} {size.value}"
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
        reasons[MEMORIZATION] = too_small
    if not plan.attributes:
        reasons["attributes"] = too_small
    return reasons
