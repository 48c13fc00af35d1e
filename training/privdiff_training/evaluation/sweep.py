"""The table of a bundle: linkage and kept findings of every profile at every strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from privdiff_infer.model.bundle import Measured, read_bundle
from privdiff_infer.vocabulary import Profile
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.measurement import Figures, Measurement
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.evaluation.redraw import Told, redraw, tellable, weights_hash
from privdiff_training.evaluation.statistics import Estimate
from privdiff_training.images import load_images

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Row:
    """One way of redrawing.

    Attributes
    ----------
    profile, strength, told
        How the cohort was redrawn.
    figures
        Linkage, findings, distance and likeness.
    minus_vanilla
        Paired differences to plain diffusion at the same strength, by name of the figure; empty
        for plain diffusion itself.
    """

    profile: Profile
    strength: float
    told: Told
    figures: Figures
    minus_vanilla: dict[str, Estimate]


@dataclass(frozen=True)
class Sweep:
    """All rows of one bundle on one cohort.

    Attributes
    ----------
    bundle, weights_sha256
        Name and hash of its weights and configurations (`redraw.weights_hash`).
    images, patients
        Size of the cohort.
    findings_counted
        The findings of the macro AUC.
    originals
        The same networks on the originals, nothing done.
    labels_only
        Follow-up AUC of an attacker who knows the kept labels alone.
    rows
        One per way of redrawing.
    """

    bundle: str
    weights_sha256: str
    images: int
    patients: int
    findings_counted: tuple[str, ...]
    originals: Figures
    labels_only: Estimate
    rows: tuple[Row, ...]

    def to_record(self) -> dict[str, Any]:
        """Return the table for JSON."""
        return asdict(self)

    def to_markdown(self) -> str:
        """Return the table for people, one line per row."""
        lines = [
            "| profile | strength | told | same-image linkage AUC | follow-up linkage AUC "
            f"({self.originals.follow_up.patients} patients) | findings AUC | KID x 1000 |",
            "|---|---|---|---|---|---|---|",
            _line("originals, nothing done", "-", "-", self.originals),
        ]
        lines += [
            _line(f"`{row.profile.value}`", f"{row.strength:g}", row.told.value, row.figures)
            for row in self.rows
        ]
        return "\n".join(lines) + "\n"


def sweep_bundle(
    bundle: Path,
    cohort: Cohort,
    *,
    evaluators: Evaluators,
    cache_dir: Path,
    profiles: Sequence[Profile] = tuple(Profile),
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> Sweep:
    """Measure every profile at every strength, each against plain diffusion at that strength.

    The bundle sees pixels alone. Further rows, of the default profile at its operating point,
    tell it what a header or a report would (`tellable`). At strength 1 an image depends on its
    source through the conditions that were read from it, and in profile `vanilla` through the
    findings alone: that row is the control.

    Parameters
    ----------
    bundle
        Folder.
    cohort
        Images of one data set that neither bundle nor evaluators were trained on.
    evaluators
        Verifier and classifier.
    cache_dir
        Where prepared and redrawn images are kept.
    profiles, strengths
        What to measure.
    seed
        Of sampling and bootstraps.
    """
    info = read_bundle(bundle)
    originals = load_images(cohort, info.metadata.image_size, cache_dir).unsqueeze(1).float() / 255
    measurement = Measurement(cohort, originals, evaluators, seed)

    def row(profile: Profile, strength: float, told: Told = Told.NOTHING) -> Row:
        drawn, plain = (
            redraw(bundle, cohort, originals, way, strength, seed, cache_dir, told)
            for way in (profile, Profile.VANILLA)
        )
        differences = {} if profile is Profile.VANILLA else measurement.differences(plain, drawn)
        return Row(profile, strength, told, measurement.figures(drawn), differences)

    rows = [row(profile, strength) for profile in profiles for strength in strengths]
    default = info.metadata.operating_points.get(Profile.STANDARD)
    if default and Profile.STANDARD in profiles:
        rows += [
            row(Profile.STANDARD, default.strength, told)
            for told in tellable(bundle, Profile.STANDARD)
            if told is not Told.NOTHING
        ]
    return Sweep(
        bundle=info.name,
        weights_sha256=weights_hash(info),
        images=len(cohort),
        patients=measurement.trial_of_findings.patients,
        findings_counted=measurement.trial_of_findings.counted,
        originals=measurement.figures(originals),
        labels_only=measurement.labels_only(),
        rows=tuple(rows),
    )


def measured_points(records: Sequence[dict[str, Any]]) -> dict[Profile, dict[str, Measured]]:
    """Return what a bundle's metadata says of its risk, from the records of sweeps.

    A linkage below chance is no less of a risk: an attacker turns the score, so max(AUC, 1 - AUC)
    is told.
    """
    found: dict[Profile, dict[str, Measured]] = {}
    for row in (row for record in records for row in record["rows"]):
        if row["told"] != Told.NOTHING.value:
            continue
        linkage = row["figures"]["same_image"]
        ends = [linkage["value"], linkage["low"], linkage["high"]]
        if linkage["value"] < 0.5:
            ends = [1 - linkage["value"], 1 - linkage["high"], 1 - linkage["low"]]
        area, low, high = (round(end, 3) for end in ends)
        found.setdefault(Profile(row["profile"]), {})[f"{row['strength']:.1f}"] = Measured(
            linkage_auc=area,
            interval=(low, high),
            findings_auc=round(row["figures"]["findings"]["value"], 3),
            n=linkage["patients"],
        )
    return found


def _line(profile: str, strength: str, told: str, figures: Figures) -> str:
    return (
        f"| {profile} | {strength} | {told} | {figures.same_image} | {figures.follow_up} "
        f"| {figures.findings} | {1000 * figures.kernel_distance:.0f} |"
    )
