"""The test without which no bundle is exported: does it give training patients away?

Images are drawn from noise and compared with every training image, mirrored ones too. A drawn image
counts as a copy if it is nearer to one than all but a hundredth of images of other patients are.
The same is done with the base, which never saw the cohort: what it finds is chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privdiff_infer.errors import ExportRefused
from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_training.evaluation.attacks.attack import Originals
from privdiff_training.evaluation.memorization import copies_among, measure_memorization
from privdiff_training.evaluation.record import Memorization
from privdiff_training.evaluation.sample import drawn_images
from privdiff_training.evaluation.statistics import wilson
from privdiff_training.finetuning.config import GateConfig


@dataclass(frozen=True)
class MemorizationTest:
    """What was found.

    Attributes
    ----------
    passed
        Whether the bundle may be exported.
    new
        Of the new bundle.
    copies_of_base
        How many of as many images that the base drew count as copies: chance.
    """

    passed: bool
    new: Memorization
    copies_of_base: int


def memorization_test(
    base: Path,
    candidate: Path,
    training: Originals,
    strangers: Originals,
    verifier: IdentityEmbedder,
    config: GateConfig,
    seed: int,
) -> MemorizationTest:
    """Draw with both bundles and look for training images.

    Parameters
    ----------
    base, candidate
        Folders of bundles.
    training, strangers
        What was trained on, and images of other patients of the cohort.
    verifier
        An identity network that is no part of a bundle.
    config
        How many images, and how many copies are too many.
    seed
        Of drawing.
    """
    new = measure_memorization(
        candidate,
        training,
        strangers,
        verifier,
        drawn=config.drawn,
        members=config.members,
        seed=seed,
    )
    side = training.pixels.shape[-1]
    by_base = drawn_images(PrivDiffPipeline.from_pretrained(base), config.drawn, side, seed)
    of_base = copies_among(by_base, training, strangers, verifier)
    return MemorizationTest(
        passed=not too_many_copies(new.copies, config),
        new=new,
        copies_of_base=round(of_base.value * config.drawn),
    )


def too_many_copies(copies: int, config: GateConfig) -> bool:
    """Tell whether the part of copies is above the largest allowed one with certainty.

    A hundredth of the images of strangers counts as copies by definition, under each of two
    distances, so a few are no sign of memory.
    """
    found = wilson([number < copies for number in range(config.drawn)])
    return found.low > config.largest_share


def refuse_export(record: dict[str, Any], folder: Path) -> None:
    """Raise `ExportRefused` if the test of this run failed."""
    if record["passed"]:
        return
    new = record["new"]
    raise ExportRefused(
        f"{new['copies']} of {new['drawn']} images that the new model draws are copies of training "
        f"images ({record['copies_of_base']} by the base): it is not exported, and {folder} holds "
        "personal data",
        "train on more patients or for fewer steps, or with `private_training`; then name another "
        "--run-dir",
    )
