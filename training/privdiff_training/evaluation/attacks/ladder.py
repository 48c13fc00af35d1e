"""All attackers, by rung."""

from __future__ import annotations

from pathlib import Path

from privdiff_training.evaluation.attacks.attack import Attack
from privdiff_training.evaluation.attacks.config import AttackersConfig
from privdiff_training.evaluation.attacks.embedding import Averaging, FixedVerifier, Space
from privdiff_training.evaluation.attacks.frozen_encoder import FrozenEncoder
from privdiff_training.evaluation.attacks.inversion import Inversion
from privdiff_training.evaluation.attacks.metric_learning import MetricLearning
from privdiff_training.evaluation.attacks.shape import ShapeAttack
from privdiff_training.evaluation.attacks.siamese import Partner, SiameseAttack


def ladder(verifier: Path, config: AttackersConfig) -> tuple[Attack, ...]:
    """Return the attackers of images; the floors of A6 are `metadata.floors`.

    Parameters
    ----------
    verifier
        Folder of the verifier that was trained on originals.
    config
        How they are trained, and which public encoders there are.
    """
    fixed = FixedVerifier(verifier)
    strong = MetricLearning(fixed, config.metric)
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
    )
