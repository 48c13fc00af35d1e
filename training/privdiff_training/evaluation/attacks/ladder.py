"""All attackers, by rung."""

from __future__ import annotations

from pathlib import Path

from privdiff_training.evaluation.attacks.attack import Attack
from privdiff_training.evaluation.attacks.averaging import AveragedScores, Averaging, Space
from privdiff_training.evaluation.attacks.config import AttackersConfig
from privdiff_training.evaluation.attacks.embedding import FixedVerifier
from privdiff_training.evaluation.attacks.frozen_encoder import FrozenEncoder
from privdiff_training.evaluation.attacks.group_reading import GroupReading
from privdiff_training.evaluation.attacks.inversion import Inversion
from privdiff_training.evaluation.attacks.metric_learning import MetricLearning
from privdiff_training.evaluation.attacks.readings import ByReadings
from privdiff_training.evaluation.attacks.redrawn_gallery import RedrawnGallery
from privdiff_training.evaluation.attacks.shape import ShapeAttack
from privdiff_training.evaluation.attacks.siamese import Partner, SiameseAttack
from privdiff_training.evaluation.attacks.starting_points import StartingPoints
from privdiff_training.evaluation.attacks.together import Together
from privdiff_training.evaluation.linkage import Linkage


def ladder(evaluators: Path, bundle: Path, config: AttackersConfig) -> tuple[Attack, ...]:
    """Return the attackers of images; the floors of A6 are `metadata.floors`.

    Parameters
    ----------
    evaluators
        Folder of the verifier and the classifier that were trained on originals.
    bundle
        Folder of the tool, whose own reader an attacker has too.
    config
        How they are trained, and which public encoders there are.
    """
    fixed = FixedVerifier(evaluators / "identity")
    readings = (
        ByReadings(evaluators / "reader", "the project's classifier"),
        ByReadings(bundle / "reader", "the bundle's own reader"),
    )
    strong = MetricLearning(fixed, config.metric)
    starting_points = StartingPoints(bundle / "autoencoder")
    together = tuple(
        Together((fixed, *readings, starting_points), looks_for) for looks_for in Linkage
    )
    lookers: tuple[StartingPoints | Together, ...] = (starting_points, *together)
    return (
        fixed,
        SiameseAttack(Partner.COPY, config.siamese),
        SiameseAttack(Partner.ORIGINAL, config.siamese),
        strong,
        *(FrozenEncoder(encoder) for encoder in config.encoders),
        ShapeAttack(),
        Inversion(fixed, config.inverter),
        Inversion(strong, config.inverter),
        *(Averaging(fixed, space) for space in Space),
        Averaging(strong, Space.EMBEDDINGS),
        *(AveragedScores(then) for then in lookers),
        *(RedrawnGallery(then) for then in (fixed, strong, *readings)),
        *readings,
        starting_points,
        GroupReading(fixed, starting_points),
        *together,
    )
