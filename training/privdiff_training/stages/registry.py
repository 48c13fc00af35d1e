"""The stages by name: their configuration and what they need of the bundle that is being built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from privdiff_infer.errors import BundleError, ConfigError
from privdiff_infer.model.autoencoder import RadiographAutoencoder
from privdiff_infer.model.bundle import bundle_files, file_sha256
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.model.stable_diffusion import (
    KLAutoencoder,
    is_stable_diffusion,
    load_autoencoder,
    load_stable_diffusion,
)
from privdiff_infer.model.strict_model import StrictModel
from privdiff_infer.pipeline import ADAPTERS
from privdiff_training.config import StageConfig, load_config
from privdiff_training.loop import Stage
from privdiff_training.stages.autoencoder import AutoencoderConfig, AutoencoderStage
from privdiff_training.stages.diffusion import DiffusionConfig, DiffusionStage
from privdiff_training.stages.distillation import DistillationConfig, DistillationStage
from privdiff_training.stages.identity import IdentityConfig, IdentityStage
from privdiff_training.stages.reader import ReaderConfig, ReaderStage
from privdiff_training.stages.suppression import SuppressionConfig, SuppressionStage

ModelT = TypeVar("ModelT", bound=StrictModel)


class Sources:
    """Components that earlier stages wrote, and those that a leg starts from.

    Parameters
    ----------
    bundle
        The bundle that is being built; components of earlier stages are read from it.
    init_from
        A bundle whose weights a stage starts from, and whose components fill the gaps of `bundle`.

    Attributes
    ----------
    started_from
        SHA-256 of the weights that the stage starts from; None as long as it starts afresh.
    """

    def __init__(self, bundle: Path, init_from: Path | None) -> None:
        self.bundle = bundle
        self.init_from = init_from
        self.started_from: str | None = None

    def need(self, name: str, model: type[ModelT]) -> ModelT:
        """Load a component of an earlier stage, in evaluation mode.

        Raises
        ------
        BundleError
            If neither bundle has it.
        """
        found = self.find(name, model)
        if found is None:
            raise BundleError(
                f"component {name} is missing in {self.bundle}",
                f"train the stage that makes {name} first, or name a bundle with --init-from",
            )
        return found

    def find(self, name: str, model: type[ModelT]) -> ModelT | None:
        """Load a component in evaluation mode, or return None if neither bundle has it."""
        for folder in (self.bundle, self.init_from):
            if folder is not None and (folder / name).is_dir():
                return model.from_pretrained(folder / name).eval()
        return None

    def autoencoder(self) -> RadiographAutoencoder | KLAutoencoder:
        """Load the autoencoder, which may be that of a Stable-Diffusion-shaped base."""
        for folder in (self.bundle, self.init_from):
            if folder is not None and (folder / "autoencoder").is_dir():
                return load_autoencoder(folder / "autoencoder").eval()
        if self.init_from is not None and is_stable_diffusion(self.init_from):
            autoencoder, _, _ = load_stable_diffusion(self.init_from)
            return autoencoder.eval()
        return self.need("autoencoder", RadiographAutoencoder)

    def first_denoiser(self) -> PrivDiffDenoiser | None:
        """Load the denoiser that the diffusion stage starts from, or None to start afresh."""
        if self.init_from is not None and is_stable_diffusion(self.init_from):
            self._first_weights("unet")
            return load_stable_diffusion(self.init_from)[1].train()
        return self.start("denoiser", PrivDiffDenoiser)

    def first_adapter(self, name: str) -> Path | None:
        """Return the folder of the LoRA weights that this leg starts from, or None."""
        return self._first_weights(f"{ADAPTERS}/{name}")

    def start(self, name: str, model: type[ModelT]) -> ModelT | None:
        """Load the weights that this leg starts from, or None to start afresh."""
        folder = self._first_weights(name)
        return None if folder is None else model.from_pretrained(folder).train()

    def _first_weights(self, name: str) -> Path | None:
        if self.init_from is None or not (self.init_from / name).is_dir():
            return None
        folder = self.init_from / name
        hashes = [f"{file}:{file_sha256(path)}" for file, path in bundle_files(folder).items()]
        self.started_from = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        return folder


def _autoencoder(path: Path, sources: Sources) -> Stage[Any]:
    config = load_config(path, AutoencoderConfig)
    return AutoencoderStage(config, sources.start("autoencoder", RadiographAutoencoder))


def _identity(path: Path, sources: Sources) -> Stage[Any]:
    config = load_config(path, IdentityConfig)
    return IdentityStage(config, sources.start("identity", IdentityEmbedder))


def _reader(path: Path, sources: Sources) -> Stage[Any]:
    config = load_config(path, ReaderConfig)
    return ReaderStage(config, sources.start("reader", RadiographReader))


def _diffusion(path: Path, sources: Sources) -> Stage[Any]:
    return DiffusionStage(
        load_config(path, DiffusionConfig),
        sources.autoencoder(),
        sources.need("identity", IdentityEmbedder),
        sources.first_denoiser(),
    )


def _suppression(path: Path, sources: Sources) -> Stage[Any]:
    config = load_config(path, SuppressionConfig)
    return SuppressionStage(
        config,
        sources.autoencoder(),
        sources.need("identity", IdentityEmbedder),
        sources.need("reader", RadiographReader),
        sources.need("denoiser", PrivDiffDenoiser),
        sources.first_adapter(config.adapter),
    )


def _distillation(path: Path, sources: Sources) -> Stage[Any]:
    config = load_config(path, DistillationConfig)
    return DistillationStage(
        config,
        sources.autoencoder(),
        sources.need("identity", IdentityEmbedder),
        sources.need("denoiser", PrivDiffDenoiser),
        sources.first_adapter(config.adapter),
    )


STAGES: dict[str, Callable[[Path, Sources], Stage[Any]]] = {
    "autoencoder": _autoencoder,
    "identity": _identity,
    "reader": _reader,
    "diffusion": _diffusion,
    "suppression": _suppression,
    "distillation": _distillation,
}


CONFIGS: dict[str, type[StageConfig]] = {
    "autoencoder": AutoencoderConfig,
    "identity": IdentityConfig,
    "reader": ReaderConfig,
    "diffusion": DiffusionConfig,
    "suppression": SuppressionConfig,
    "distillation": DistillationConfig,
}


def build_stage(name: str, config: Path, bundle: Path, init_from: Path | None) -> Stage[Any]:
    """Build a stage from its YAML file.

    Raises
    ------
    ConfigError
        If there is no such stage or the configuration is wrong.
    """
    if name not in STAGES:
        raise ConfigError(f"there is no stage {name!r}", f"choose one of {', '.join(STAGES)}")
    sources = Sources(bundle, init_from)
    stage = STAGES[name](config, sources)
    stage.started_from = sources.started_from
    return stage
