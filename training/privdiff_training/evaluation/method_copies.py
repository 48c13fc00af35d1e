"""The copies that a method makes of the images of an evaluation."""

from __future__ import annotations

from functools import cached_property

from privdiff_training.evaluation.attacks.attack import Copies, Known, Originals
from privdiff_training.evaluation.attacks.kept import Kept
from privdiff_training.evaluation.methods.method import Method, Starts
from privdiff_training.evaluation.record import Plan
from privdiff_training.evaluation.redrawn_copies import redrawn_copies
from privdiff_training.evaluation.setting import Setting

ATTACKERS_SEED = 1_000_003
"""How far the seeds of an attacker's own copies lie from those of the release."""


class MethodCopies:
    """Copies that are released, copies that attackers train on, and copies of their own.

    Parameters
    ----------
    setting
        Whose images are copied.
    method
        What makes the copies.
    plan
        How many.

    Attributes
    ----------
    known
        What attackers may use.
    decided_by
        What decides the copies beside the images and the seed.
    """

    def __init__(self, setting: Setting, method: Method, plan: Plan) -> None:
        self.setting = setting
        self.method = method
        self.plan = plan
        self._kept: Kept[Starts] = Kept()
        images, seed = setting.images, setting.options.seed
        self.decided_by = (
            method.fingerprint,
            plan.versions,
            plan.test_versions,
            plan.gallery_versions,
        )
        self.known = Known(
            images["reference"],
            images["attacker_train"],
            images["attacker_select"],
            copy=lambda originals: self._made(originals, plan.versions, seed),
            copy_anew=lambda originals: self._made(
                originals, plan.gallery_versions, seed + ATTACKERS_SEED
            ),
            starts=self._starts,
        )

    @cached_property
    def test(self) -> Copies:
        """What is released of the test images."""
        setting = self.setting
        return self._made(setting.test, self.plan.test_versions, setting.options.seed)

    def _starts(self, originals: Originals) -> Starts:
        return self._kept(originals.pixels, lambda pixels: self.method.starts(pixels.float() / 255))

    def _made(self, originals: Originals, versions: int, seed: int) -> Copies:
        pixels = redrawn_copies(
            self.method,
            originals.cohort,
            originals.pixels,
            versions,
            seed,
            self.setting.options.cache_dir,
        )
        return Copies(originals.cohort, pixels)
