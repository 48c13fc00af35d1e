"""Which methods an evaluation of each size compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from privdiff_infer.errors import BundleError
from privdiff_infer.model.bundle import BundleMetadata, read_bundle
from privdiff_infer.vocabulary import Profile
from privdiff_training.evaluation.methods.ablation import ablations
from privdiff_training.evaluation.methods.bundle import BundleMethod
from privdiff_training.evaluation.methods.flow_field import flow_fields
from privdiff_training.evaluation.methods.k_same import k_same_methods
from privdiff_training.evaluation.methods.method import Method
from privdiff_training.evaluation.methods.pixelwise import pixelwise_methods
from privdiff_training.evaluation.methods.reference import Reference
from privdiff_training.evaluation.record import Size
from privdiff_training.evaluation.redraw import Told, tellable
from privdiff_training.evaluation.roles import Roles
from privdiff_training.evaluation.sweep import STRENGTHS


def methods_for(size: Size, bundle: Path, roles: Roles, cache_dir: Path) -> tuple[Method, ...]:
    """Return what is compared, the operating point of the bundle first.

    The method that does nothing is not among them: an evaluation always runs it.

    Parameters
    ----------
    size
        ``QUICK``: the operating point. ``DEFAULT``: also plain diffusion at its strength, and
        labels to image. ``FULL``: also every profile at every strength, what a header or a report
        tells, and all baselines and ablations with their curves.
    bundle
        Folder of what is under test.
    roles
        `Roles.reference` is what baselines are made from.
    cache_dir
        Where redrawn images and trained baselines are kept.

    Raises
    ------
    BundleError
        If the bundle has no operating point.
    """
    metadata = read_bundle(bundle).metadata
    strength = operating_strength(metadata)
    reference = Reference(roles.reference, metadata.image_size, cache_dir)
    methods: list[Method] = [BundleMethod(bundle, Profile.STANDARD, strength, cache_dir)]
    if size is not Size.QUICK:
        methods += [
            BundleMethod(bundle, Profile.VANILLA, strength, cache_dir),
            BundleMethod(bundle, Profile.VANILLA, 1.0, cache_dir),
        ]
    if size is Size.FULL:
        methods += [
            *_told(bundle, strength, roles, cache_dir),
            *_profiles(bundle, cache_dir),
            *ablations(bundle, reference, strength),
            *pixelwise_methods(),
            *k_same_methods(bundle, reference, strength),
            *flow_fields(bundle, reference, cache_dir),
        ]
    return tuple(_different(methods))


def operating_strength(metadata: BundleMetadata) -> float:
    """Return the strength at which a bundle is run unless the user says otherwise."""
    if Profile.STANDARD not in metadata.operating_points:
        raise BundleError(
            f"bundle {metadata.name} has no operating point for {Profile.STANDARD.value}",
            "assemble it with one",
        )
    return metadata.operating_points[Profile.STANDARD].strength


def _told(bundle: Path, strength: float, roles: Roles, cache_dir: Path) -> Iterator[Method]:
    """Yield the operating point with what the manifest can tell of every image."""
    rows = [row for cohort in vars(roles).values() for row in cohort]
    knows_header = all(row.age_years is not None and row.sex is not None for row in rows)
    for told in tellable(bundle, Profile.STANDARD):
        if told is Told.REPORT or (told is Told.HEADER and knows_header):
            yield BundleMethod(bundle, Profile.STANDARD, strength, cache_dir, told)


def _profiles(bundle: Path, cache_dir: Path) -> Iterator[Method]:
    for profile in Profile:
        for strength in STRENGTHS:
            yield BundleMethod(bundle, profile, strength, cache_dir)


def _different(methods: Iterable[Method]) -> Iterator[Method]:
    """Yield each way of making copies once, under the first of its names."""
    seen = set()
    for method in methods:
        if method.fingerprint not in seen:
            seen.add(method.fingerprint)
            yield method
