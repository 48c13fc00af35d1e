"""LoRA weights as the one thing that a stage trains in a denoiser."""

from __future__ import annotations

from pathlib import Path

from privdiff_infer.errors import ConfigError
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.pipeline import ADAPTERS
from privdiff_training.whole_folder import whole_folder


def attach_adapter(denoiser: PrivDiffDenoiser, name: str, rank: int, initial: Path | None) -> None:
    """Freeze a denoiser under LoRA weights that train: fresh ones, or those of an earlier leg.

    Parameters
    ----------
    denoiser
        The base.
    name, rank
        Of the LoRA weights.
    initial
        Folder of the weights to start from, which has the name `name`; None for fresh ones.

    Raises
    ------
    ConfigError
        If the weights to start from have another rank.
    BundleError
        If they do not fit the denoiser.
    """
    if initial is None:
        denoiser.add_adapter(name, rank)
    else:
        denoiser.load_adapter(initial)
        if denoiser.adapter_rank(name) != rank:
            raise ConfigError(
                f"rank: {rank}, but the adapter {name} to start from has the rank "
                f"{denoiser.adapter_rank(name)}",
                "give the rank that it has",
            )
    denoiser.requires_grad_(False)
    denoiser.activate_adapter(name)  # which lets its weights, and no others, train


def export_adapter(denoiser: PrivDiffDenoiser, name: str, bundle: Path) -> None:
    """Write the LoRA weights into the bundle that is being built."""
    with whole_folder(bundle / ADAPTERS / name) as partial:
        denoiser.save_adapter(name, partial)
