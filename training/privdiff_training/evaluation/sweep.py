"""The table of a bundle: linkage and kept findings of every profile at every strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from privdiff_infer.model.bundle import Measured, read_bundle
from privdiff_infer.vocabulary import Profile
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.attacks.starting_points import StartingPoints
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.measurement import Figures, Measurement
from privdiff_training.evaluation.methods.bundle import BundleMethod
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.evaluation.redraw import Told, redraw, tellable, weights_hash
from privdiff_training.evaluation.statistics import Estimate
from privdiff_training.evaluation.verification_metrics import verification
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
        Linkage under the verifier, findings, distance and likeness.
    starting_points
        Same-image linkage AUC of who has the tool and its weights (A13 of `evaluate`).
    minus_vanilla
        Paired differences to plain diffusion at the same strength, by name of the figure; empty
        for plain diffusion itself.
    """

    profile: Profile
    strength: float
    told: Told
    figures: Figures
    starting_points: Estimate
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
            "| profile | strength | told | same-image linkage AUC | the same, of who has the tool "
            f"| follow-up linkage AUC ({self.originals.follow_up.patients} patients) "
            "| findings AUC | KID x 1000 |",
            "|---|---|---|---|---|---|---|---|",
            _line("originals, nothing done", "-", "-", self.originals, "-"),
        ]
        lines += [
            _line(
                f"`{row.profile.value}`",
                f"{row.strength:g}",
                row.told.value,
                row.figures,
                str(row.starting_points),
            )
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
    owner = StartingPoints(bundle / "autoencoder")

    def row(profile: Profile, strength: float, told: Told = Told.NOTHING) -> Row:
        drawn, plain = (
            redraw(bundle, cohort, originals, way, strength, seed, cache_dir, told)
            for way in (profile, Profile.VANILLA)
        )
        differences = {} if profile is Profile.VANILLA else measurement.differences(plain, drawn)
        method = BundleMethod(bundle, profile, strength, told)
        scores = owner.scores(drawn, method.starts(originals))
        linked = verification(cohort, [scores], Linkage.SAME_IMAGE, seed).auc
        return Row(profile, strength, told, measurement.figures(drawn), linked, differences)

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

    The linkage is that of the verifier, or of who has the tool where that is higher. Below chance
    it is no less of a risk: an attacker turns the score, so max(AUC, 1 - AUC) is told.
    """
    found: dict[Profile, dict[str, Measured]] = {}
    for row in (row for record in records for row in record["rows"]):
        if row["told"] != Told.NOTHING.value:
            continue
        attacked = [row["figures"]["same_image"], row.get("starting_points")]
        ends = max(_turned(linkage) for linkage in attacked if linkage)
        area, low, high = (round(end, 3) for end in ends)
        found.setdefault(Profile(row["profile"]), {})[f"{row['strength']:.1f}"] = Measured(
            linkage_auc=area,
            interval=(low, high),
            findings_auc=round(row["figures"]["findings"]["value"], 3),
            n=row["figures"]["same_image"]["patients"],
        )
    return found


def _turned(linkage: dict[str, Any]) -> tuple[float, float, float]:
    """Return an AUC and its interval, of the scores that are turned if it is below chance."""
    if linkage["value"] < 0.5:
        return 1 - linkage["value"], 1 - linkage["high"], 1 - linkage["low"]
    return linkage["value"], linkage["low"], linkage["high"]


def _line(profile: str, strength: str, told: str, figures: Figures, of_owner: str) -> str:
    return (
        f"| {profile} | {strength} | {told} | {figures.same_image} | {of_owner} "
        f"| {figures.follow_up} "
        f"| {figures.findings} | {1000 * figures.kernel_distance:.0f} |"
    )
