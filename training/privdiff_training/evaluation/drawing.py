"""How close drawn images come to real ones, as a model sees more and more samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.vocabulary import Profile
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.evaluation.redraw import redraw
from privdiff_training.images import load_images


@dataclass(frozen=True)
class DrawingFigures:
    """Kernel distance (KID) to the real images by strength, for plain diffusion.

    Attributes
    ----------
    kernel_distance
        By strength; at 1 the images owe their source nothing but the conditions read from it.
    floor
        Of one half of the real images to the other: what a perfect model of this many images has.
    images
        Number of real, and of drawn images.
    """

    kernel_distance: dict[str, float]
    floor: float
    images: int

    def to_record(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


def measure_drawing(
    bundle: Path,
    cohort: Cohort,
    evaluators: Evaluators,
    cache_dir: Path,
    strengths: Sequence[float] = (0.6, 1.0),
    seed: int = 0,
) -> DrawingFigures:
    """Redraw a cohort by plain diffusion and compare with its originals as a set.

    Parameters
    ----------
    bundle
        Folder.
    cohort
        Real images that the bundle was not trained on.
    evaluators
        Their classifier supplies the features of the distance.
    cache_dir
        Where prepared and redrawn images are kept.
    strengths
        What to measure.
    seed
        Of sampling and of the subsets of the distance.
    """
    size = read_bundle(bundle).metadata.image_size
    real = load_images(cohort, size, cache_dir).unsqueeze(1).float() / 255
    distances = {}
    for strength in strengths:
        drawn = redraw(bundle, cohort, real, Profile.VANILLA, strength, seed, cache_dir)
        distances[f"{strength:.1f}"] = evaluators.kernel_distance(real, drawn, seed)
    return DrawingFigures(
        kernel_distance=distances,
        floor=evaluators.kernel_distance(real[::2], real[1::2], seed),
        images=len(cohort),
    )
