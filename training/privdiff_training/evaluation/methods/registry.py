"""Which methods an evaluation of each size compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from privdiff_infer.errors import BundleError
from privdiff_infer.model.bundle import BundleMetadata, read_bundle
from privdiff_infer.vocabulary import Profile
from privdiff_training.evaluation.methods.ablation import ablations, ablations_without_data
from privdiff_training.evaluation.methods.bundle import BundleMethod
from privdiff_training.evaluation.methods.flow_field import flow_fields
from privdiff_training.evaluation.methods.k_same import k_same_methods, k_same_without_patients
from privdiff_training.evaluation.methods.method import Method
from privdiff_training.evaluation.methods.pixelwise import pixelwise_methods
from privdiff_training.evaluation.methods.reference import Reference
from privdiff_training.evaluation.plan import NOT_OF_THE_SIZE
from privdiff_training.evaluation.record import Size
from privdiff_training.evaluation.redraw import Told, tellable
from privdiff_training.evaluation.roles import Roles
from privdiff_training.evaluation.sweep import STRENGTHS

ALMOST_NOISE = 0.8
"""Strength of plain diffusion, between its control and noise alone, that leaves about as little of
the source as a group of patients does: its strongest setting on the plane."""


@dataclass(frozen=True)
class Lineup:
    """What an evaluation compares, each way of making copies once.

    The method that does nothing is not in it: an evaluation always runs it.

    Attributes
    ----------
    point
        The operating point of the bundle.
    rivals
        What stands beside it and meets the same attackers: a baseline is its strongest setting,
        which is where the operating point stands; plain diffusion is also the operating point's.
    further
        The operating point told more, other points of the curves, ablations.
    """

    point: Method
    rivals: tuple[Method, ...] = ()
    further: tuple[Method, ...] = ()

    @property
    def methods(self) -> tuple[Method, ...]:
        """All of it."""
        return (self.point, *self.rivals, *self.further)


def lineup_for(size: Size, bundle: Path, roles: Roles, cache_dir: Path) -> Lineup:
    """Return what is compared.

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
        Where prepared images and trained baselines are kept.

    Raises
    ------
    BundleError
        If the bundle has no operating point.
    """
    candidates = _candidates(size, bundle, roles, cache_dir)
    first = {method.fingerprint: method for method in reversed(candidates.methods)}
    return Lineup(
        candidates.point,
        tuple(method for method in candidates.rivals if first[method.fingerprint] is method),
        tuple(method for method in candidates.further if first[method.fingerprint] is method),
    )


def methods_left_out(
    size: Size, methods: Sequence[Method], bundle: Path, roles: Roles, cache_dir: Path
) -> dict[str, str]:
    """Return the methods of the full size that an evaluation does not run, with the reason.

    Parameters
    ----------
    size, bundle, roles, cache_dir
        See `lineup_for`.
    methods
        All that it returned.
    """
    run = {method.name for method in methods}
    reasons = {
        method.name: f"{NOT_OF_THE_SIZE} {size.value}"
        for method in _candidates(Size.FULL, bundle, roles, cache_dir).methods
        if method.name not in run
    }
    names = {method.fingerprint: method.name for method in methods}
    for method in _candidates(size, bundle, roles, cache_dir).methods:
        if method.name not in run:
            reasons[method.name] = f"makes the same copies as {names[method.fingerprint]}"
    return reasons | dict(_impossible(bundle, roles))


def _candidates(size: Size, bundle: Path, roles: Roles, cache_dir: Path) -> Lineup:
    """Return what a size compares, equal ways of making copies included."""
    metadata = read_bundle(bundle).metadata
    strength = operating_strength(metadata)
    reference = Reference(roles.reference, metadata.image_size, cache_dir)
    point = BundleMethod(bundle, Profile.STANDARD, strength)
    if size is Size.QUICK:
        return Lineup(point)
    controls = (
        BundleMethod(bundle, Profile.VANILLA, strength),
        BundleMethod(bundle, Profile.VANILLA, 1.0),
    )
    if size is Size.DEFAULT:
        return Lineup(point, controls)
    baselines = [
        *k_same_methods(bundle, reference, strength),
        *flow_fields(bundle, reference, cache_dir),
        *pixelwise_methods(),
    ]
    almost_noise = BundleMethod(bundle, Profile.VANILLA, ALMOST_NOISE)
    strongest, *weaker = _strongest_first(baselines)
    at_strengths = _strongest_first([*ablations(bundle, reference, strength), *_profiles(bundle)])
    return Lineup(
        point,
        (*controls, almost_noise, *strongest),
        (*_told(bundle, strength, roles), *chain(*weaker, *at_strengths)),
    )


def _strongest_first(methods: Sequence[Method]) -> list[list[Method]]:
    """Return the last point of every curve, then the points before: a leg reaches all curves."""
    curves: dict[str, list[Method]] = {}
    for method in methods:
        curves.setdefault(method.family, []).append(method)
    rounds = zip_longest(*(reversed(curve) for curve in curves.values()))
    return [[method for method in each if method is not None] for each in rounds]


def operating_strength(metadata: BundleMetadata) -> float:
    """Return the strength at which a bundle is run unless the user says otherwise."""
    if Profile.STANDARD not in metadata.operating_points:
        raise BundleError(
            f"bundle {metadata.name} has no operating point for {Profile.STANDARD.value}",
            "assemble it with one",
        )
    return metadata.operating_points[Profile.STANDARD].strength


def _told(bundle: Path, strength: float, roles: Roles) -> Iterator[Method]:
    """Yield the operating point with what the manifest can tell of every image."""
    for told in tellable(bundle, Profile.STANDARD):
        if told is Told.REPORT or (told is Told.HEADER and _has_headers(roles)):
            yield BundleMethod(bundle, Profile.STANDARD, strength, told)


def _has_headers(roles: Roles) -> bool:
    rows = [row for cohort in vars(roles).values() for row in cohort]
    return all(row.age_years is not None and row.sex is not None for row in rows)


def _impossible(bundle: Path, roles: Roles) -> Iterator[tuple[str, str]]:
    """Yield what no size can run with a bundle on a cohort, with the reason."""
    told_header = f"{Profile.STANDARD.value}, told the header"
    if Told.HEADER not in tellable(bundle, Profile.STANDARD):
        yield told_header, "a result that starts from a group of patients is not told the header"
    elif not _has_headers(roles):
        yield told_header, "age and sex of some image are unknown"
    yield from ablations_without_data(roles.reference)
    yield from k_same_without_patients(roles.reference)


def _profiles(bundle: Path) -> Iterator[Method]:
    for profile in Profile:
        for strength in STRENGTHS:
            yield BundleMethod(bundle, profile, strength)
