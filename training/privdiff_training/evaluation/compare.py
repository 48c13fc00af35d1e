"""`compare_bundles`: linkage and kept findings of two bundles on one cohort, side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from privdiff_infer.errors import BundleError, CohortError, OptionError
from privdiff_infer.model.bundle import BundleInfo, read_bundle
from privdiff_infer.vocabulary import Profile
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.measurement import Figures, Measurement
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.evaluation.redraw import redraw
from privdiff_training.evaluation.statistics import Estimate
from privdiff_training.images import load_images

EVALUATORS = Path(__file__).resolve().parents[2] / "evaluators"
CACHE_DIR = Path("runs/cache")


@dataclass(frozen=True)
class Comparison:
    """Two bundles on one cohort.

    Attributes
    ----------
    old, new
        Figures of each bundle.
    originals
        The same networks on the originals: what an attacker gets and what findings allow when
        nothing is done. The same-image figure is 1 by definition.
    labels_only
        Follow-up AUC of an attacker who knows the kept labels alone: the floor.
    new_minus_old
        Paired differences, by name of the figure.
    findings_counted
        The findings of the macro AUC.
    images, patients
        Size of the cohort.
    """

    old: Figures
    new: Figures
    originals: Figures
    labels_only: Estimate
    new_minus_old: dict[str, Estimate]
    findings_counted: tuple[str, ...]
    images: int
    patients: int

    def to_record(self) -> dict[str, Any]:
        """Return the comparison for JSON."""
        return asdict(self)


def compare_bundles(
    old: Path,
    new: Path,
    cohort: Cohort,
    *,
    evaluators: Evaluators | None = None,
    cache_dir: Path = CACHE_DIR,
    profiles: tuple[Profile, Profile] = (Profile.STANDARD, Profile.STANDARD),
    strengths: tuple[float | None, float | None] = (None, None),
    seed: int = 0,
) -> Comparison:
    """Measure linkage and findings of two bundles with the project's own evaluators.

    The evaluators are fixed and saw originals only. An attacker who owns the tool and trains on
    redrawn images is stronger, so these figures rank bundles; they do not bound the risk.

    Parameters
    ----------
    old, new
        Folders of bundles with the same image size.
    cohort
        Images that neither bundle nor evaluators were trained on, of one data set.
    evaluators
        Verifier and classifier; those of the checkout (``training/evaluators``) if None.
    cache_dir
        Where prepared and redrawn images are kept.
    profiles, strengths
        How the old and the new bundle sample; strength None takes the bundle's operating point.
        Two profiles of one bundle are compared by naming it twice.
    seed
        Of sampling and bootstraps.

    Raises
    ------
    CohortError
        If the cohort is empty or mixes data sets.
    OptionError
        If the bundles differ in image size, or no evaluators are given and none are there.
    """
    _check(cohort)
    evaluators = evaluators or _evaluators_of_the_checkout()
    infos = (read_bundle(old), read_bundle(new))
    if infos[0].metadata.image_size != infos[1].metadata.image_size:
        raise OptionError("the bundles differ in image size", "compare bundles of one size")
    originals = (
        load_images(cohort, infos[0].metadata.image_size, cache_dir).unsqueeze(1).float() / 255
    )
    measure = Measurement(cohort, originals, evaluators, seed)
    drawn = [
        redraw(
            info.path,
            cohort,
            originals,
            profile,
            _strength(info, profile, strength),
            seed,
            cache_dir,
        )
        for info, profile, strength in zip(infos, profiles, strengths, strict=True)
    ]
    return Comparison(
        old=measure.figures(drawn[0]),
        new=measure.figures(drawn[1]),
        originals=measure.figures(originals),
        labels_only=measure.labels_only(),
        new_minus_old=measure.differences(drawn[0], drawn[1]),
        findings_counted=measure.trial_of_findings.counted,
        images=len(cohort),
        patients=measure.trial_of_findings.patients,
    )


def _evaluators_of_the_checkout() -> Evaluators:
    if not EVALUATORS.is_dir():
        raise OptionError(
            f"there are no evaluators in {EVALUATORS}, which is part of a checkout only",
            "pass `evaluators`, loaded from a folder with `Evaluators.load`",
        )
    return Evaluators.load(EVALUATORS)


def _check(cohort: Cohort) -> None:
    datasets = {row.dataset for row in cohort}
    if len(datasets) != 1:
        raise CohortError(
            f"the cohort has {len(cohort)} images of {len(datasets)} data sets",
            "compare on the images of one data set",
        )


def _strength(info: BundleInfo, profile: Profile, strength: float | None) -> float:
    if strength is not None:
        return strength
    if profile not in info.metadata.operating_points:
        raise BundleError(
            f"bundle {info.name} has no operating point for {profile.value}", "name a strength"
        )
    return info.metadata.operating_points[profile].strength
