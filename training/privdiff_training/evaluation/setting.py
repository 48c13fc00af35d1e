"""What all methods of one evaluation share: options, images by role, networks, steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from math import inf
from pathlib import Path

import numpy as np

from privdiff_infer.model.bundle import BundleInfo, verify_bundle
from privdiff_training.cohort import read_manifest
from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import Attack, Copies, Known, Originals
from privdiff_training.evaluation.attacks.config import AttackersConfig
from privdiff_training.evaluation.attacks.embedding import FixedVerifier, weights_fingerprint
from privdiff_training.evaluation.attacks.ladder import ladder
from privdiff_training.evaluation.attacks.metadata import Fact, floors
from privdiff_training.evaluation.cohort_limits import FLOORS, floor_name, not_measurable
from privdiff_training.evaluation.lung_fields import lung_fields
from privdiff_training.evaluation.methods.method import Starts, hash_of
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.evaluation.plan import MEMORIZATION, PLANS, reasons_not_to_run
from privdiff_training.evaluation.record import Size
from privdiff_training.evaluation.roles import Roles
from privdiff_training.evaluation.steps import Steps
from privdiff_training.images import load_images

PROTOCOL = 3
"""Raised whenever attackers or figures change: steps under another number are done again."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What is evaluated, on what, and how thoroughly.

    Attributes
    ----------
    bundle
        Folder of what is under test.
    manifest, dataset, folds
        The cohort; `folds` name the test patients, see `Roles.of`.
    size
        How much of the ladder is run.
    rungs
        Only these attackers; None for those of the size.
    seed
        Of everything random; attackers count on from it.
    evaluators
        Folder of verifier and classifier.
    attackers
        How attackers are trained, and which public encoders there are.
    cache_dir
        Where prepared images and copies are kept.
    hours
        After which no further step begins; None for no limit.
    """

    bundle: Path
    manifest: Path
    dataset: str
    folds: tuple[str, ...]
    size: Size
    rungs: frozenset[Rung] | None
    seed: int
    evaluators: Path
    attackers: AttackersConfig
    cache_dir: Path
    hours: float | None = None

    @property
    def command(self) -> str:
        """What runs this again, without the paths of this machine."""
        size = {Size.QUICK: ["--quick"], Size.DEFAULT: [], Size.FULL: ["--full"]}[self.size]
        rungs = sorted(rung.value for rung in self.rungs or ())
        parts = [
            f"privdiff evaluate --dataset {self.dataset}",
            *(f"--fold {fold}" for fold in self.folds),
            *size,
            *([f"--attacks {','.join(rungs)}"] if rungs else []),
            *(["--attackers FILE"] if self.attackers != AttackersConfig() else []),
            f"--seed {self.seed} -o OUT",
        ]
        return " ".join(parts)


class Setting:
    """Images in memory, results on disk.

    The files of the bundle are compared with their hashes: results are kept by these.

    Parameters
    ----------
    options
        Of the run.
    output
        Its folder.

    Attributes
    ----------
    plan
        What the size of the run asks for.
    roles, images
        Rows and pixels by role.
    attacks
        The attackers that are run.
    not_run
        Which are not, and why.
    not_measurable
        What the cohort cannot show, and why.
    fixed
        The verifier that saw no copy, which trained attackers are compared with.
    """

    def __init__(self, options: EvaluationOptions, output: Path) -> None:
        self.options = options
        self.output = output
        self.plan = PLANS[options.size]
        self.bundle: BundleInfo = verify_bundle(options.bundle)
        cohort = read_manifest(options.manifest).where(lambda row: row.dataset == options.dataset)
        self.roles = _limited(Roles.of(cohort, options.folds), self.plan.test_images)
        size, cache_dir = self.bundle.metadata.image_size, options.cache_dir
        self.images = {
            name: Originals(part, load_images(part, size, cache_dir).unsqueeze(1))
            for name, part in vars(self.roles).items()
        }
        self.test = self.images["test"]
        self.not_measurable = not_measurable(self.roles)
        self.evaluators = Evaluators.load(options.evaluators)
        self.steps = Steps(
            output / "steps",
            PROTOCOL,
            options.seed,
            weights_fingerprint(options.evaluators),
            _digest(self.images),
            until=inf if options.hours is None else time.monotonic() + 3600 * options.hours,
        )
        self.not_run = reasons_not_to_run(
            self.plan, options.size, options.rungs, bool(options.attackers.encoders)
        )
        self.not_run |= self._no_training_images()
        every = ladder(options.evaluators, options.bundle, options.attackers)
        wanted = options.rungs if options.rungs is not None else self.plan.rungs
        self.plan = replace(self.plan, rungs=wanted)
        self.fixed = FixedVerifier(options.evaluators / "identity")
        self.attacks: tuple[Attack, ...] = tuple(
            attack for attack in every if attack.rung.value not in self.not_run
        )

    def _no_training_images(self) -> dict[str, str]:
        """Return why memorization cannot be looked for on this data set; empty if it can."""
        if MEMORIZATION in self.not_run or self.options.dataset in self.bundle.metadata.trained_on:
            return {}
        name = self.bundle.name
        return {MEMORIZATION: f"{name} does not say that it learned of {self.options.dataset}"}

    @cached_property
    def floor_scores(self) -> dict[str, np.ndarray]:
        """Scores (test, test) of attackers who see no pixel, by what they are told."""
        if Rung.METADATA.value in self.not_run or FLOORS in self.not_measurable:
            return {}
        facts = [fact for fact in Fact if floor_name(fact) not in self.not_measurable]
        return self.steps.arrays("floors", lambda: self._floor_scores(facts))

    def _floor_scores(self, facts: Sequence[Fact]) -> dict[str, np.ndarray]:
        known = Known(
            self.images["reference"],
            self.images["attacker_train"],
            self.images["attacker_select"],
            copy=_no_copies,
            copy_anew=_no_copies,
            starts=_no_starts,
        )
        queries = Copies(self.test.cohort, self.test.pixels[None])
        return {
            attack.name: attack.train(known, self.options.seed)(queries, self.test)
            for attack in floors(facts)
        }

    @cached_property
    def lung_fields(self) -> list[np.ndarray | None]:
        """Masks of the test originals, None where none is found."""
        return [lung_fields(image) for image in self.test.pixels[:, 0].numpy() / np.float32(255)]

    @cached_property
    def others(self) -> Originals | None:
        """Originals of all other patients, for the large gallery; none in a run that is limited."""
        if self.plan.test_images is not None:
            return None
        first, *rest = (images for name, images in self.images.items() if name != "test")
        for images in rest:
            first = first.joined(images)
        return first


def _no_copies(originals: Originals) -> Copies:
    raise AssertionError("who sees no pixel needs no copy")


def _no_starts(originals: Originals) -> Starts:
    raise AssertionError("who sees no pixel does not look into the tool")


def _limited(roles: Roles, images: int | None) -> Roles:
    """Return the roles with so many test images at most, of whole patients, several first."""
    if images is None or len(roles.test) <= images:
        return roles
    units = [row.unit for row in roles.test]
    kept: set[str] = set()
    room = images
    for unit in sorted(set(units), key=lambda unit: (-units.count(unit), hash_of(unit))):
        if units.count(unit) <= room:
            kept.add(unit)
            room -= units.count(unit)
    return replace(roles, test=roles.test.where(lambda row: row.unit in kept))


def _digest(images: dict[str, Originals]) -> str:
    """Return a hash of all images, their roles and what is known of them."""
    parts = [
        (name, part.cohort.rows, sha256(part.pixels.numpy().tobytes()).hexdigest())
        for name, part in images.items()
    ]
    return hash_of(*parts)
