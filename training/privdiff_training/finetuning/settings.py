"""What a fine-tuning takes over from the bundle that it starts from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from privdiff_infer.model.bundle import BundleInfo
from privdiff_infer.model.denoiser import read_adapter
from privdiff_infer.pipeline import ADAPTERS
from privdiff_training.assemble import BundleConfig
from privdiff_training.cohort import Cohort
from privdiff_training.stages.diffusion import ScheduleConfig
from privdiff_training.whole_folder import copy_folder

MODEL_CARD = "README.md"


def data_keys(
    manifest: Path, training: Cohort, base: BundleInfo, cache_dir: Path, folds: list[str] | None
) -> dict[str, Any]:
    """Return the keys `data` of a stage: every data set has the part of a batch that it has of all.

    Parameters
    ----------
    manifest
        That the stage reads.
    training
        Its rows that train.
    base
        The bundle that is tuned.
    cache_dir
        For prepared pixels and latents.
    folds
        Splits of the manifest that train; None for all.
    """
    sources = [
        {"dataset": name, "share": len(part) / len(training), "folds": folds}
        for name, part in training.by_dataset().items()
    ]
    return {
        "manifest": str(manifest),
        "sources": sources,
        "image_size": base.metadata.image_size,
        "cache_dir": str(cache_dir),
    }


def schedule_keys(base: BundleInfo) -> dict[str, Any]:
    """Return the keys `schedule`: the forward process that the denoiser was trained with."""
    scheduler = json.loads((base.path / "scheduler" / "scheduler_config.json").read_bytes())
    return {key: scheduler[key] for key in ScheduleConfig.model_fields}


def adapter_rank(base: BundleInfo, adapter: str, otherwise: int) -> int:
    """Return the rank of an adapter of the bundle, or another one where it has none."""
    own = base.path / ADAPTERS / adapter
    return int(read_adapter(own)[1]["r"]) if own.is_dir() else otherwise


def add_components_of_base(base: BundleInfo, components: Path) -> None:
    """Put what was not trained beside what was."""
    own = [path for path in base.path.iterdir() if path.is_dir() and path.name != ADAPTERS]
    for source in (*own, *(base.path / ADAPTERS).glob("*")):
        target = components / source.relative_to(base.path)
        if not target.is_dir():
            copy_folder(source, target)


def tuned_bundle_config(
    base: BundleInfo,
    *,
    name: str,
    version: str,
    origin: str,
    data: str,
    card: Path,
    **changes: Any,
) -> BundleConfig:
    """Return what a bundle says of itself that was tuned from another.

    Parameters
    ----------
    base
        The other.
    name, version
        Of the new one.
    origin, data
        How it was made of the other, and from what; without a name of a patient or file.
    card
        Where the model card is.
    changes
        Fields that are not those of the base. What was measured of the base is never taken over.
    """
    own = base.metadata
    return BundleConfig(
        **{
            "name": name,
            "version": version,
            "licence": own.licence,
            "summary": f"{origin}. {own.summary}",
            "training_data": f"{data}; before that: {own.training_data}",
            "trained_on": own.trained_on,
            "intended_use": own.intended_use,
            "image_size": own.image_size,
            "model_card": card,
            "operating_points": own.operating_points,
            "gates": own.gates,
            "evaluated_under_18": False,
            **changes,
        }
    )


def card_with_base(base: BundleInfo, text: str) -> str:
    """Return a model card: what is new, then what was written of the base."""
    card = (base.path / MODEL_CARD).read_text(encoding="utf-8")
    return (
        f"{text}\n\nWhat follows was written of {base.name} {base.version}, and its figures are "
        f"not this one's.\n\n{card}"
    )
