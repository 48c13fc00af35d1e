"""From the components that the stages wrote to a bundle that can be shipped."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler
from pydantic import Field

from privdiff_infer.errors import BundleError
from privdiff_infer.model.bundle import (
    METADATA,
    BundleMetadata,
    GateThresholds,
    OperatingPoint,
    bundle_files,
    file_sha256,
)
from privdiff_infer.model.clusters import PatientClusters
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_infer.model.denoiser import PrivDiffDenoiser, read_adapter, write_adapter
from privdiff_infer.model.stable_diffusion import load_autoencoder
from privdiff_infer.pipeline import ADAPTERS, PrivDiffPipeline
from privdiff_infer.vocabulary import Profile
from privdiff_training.config import Strict
from privdiff_training.evaluation.quote import quoted
from privdiff_training.evaluation.report.reading import read_evaluation
from privdiff_training.evaluation.sweep import measured_points
from privdiff_training.whole_folder import whole_folder


class BundleConfig(Strict):
    """What the weights do not say of themselves; the keys of ``bundle.yaml``."""

    name: str
    version: str
    licence: str
    summary: str
    training_data: str
    trained_on: tuple[str, ...] = Field(
        (), description="Data sets, by their name in the manifest, of whose folds 0-2 it learned."
    )
    intended_use: str
    image_size: int = 256
    model_card: Path = Field(description="Markdown file that becomes README.md of the bundle.")
    operating_points: dict[Profile, OperatingPoint]
    gates: GateThresholds = GateThresholds()
    evaluated_under_18: bool = False
    measured: tuple[Path, ...] = Field(
        (), description="JSON files of `privdiff sweep` with the measured risk and utility."
    )
    evaluation: Path | None = Field(
        None, description="The report.json of `privdiff evaluate`, which metadata.json quotes."
    )

    def metadata(self) -> dict[str, Any]:
        """Return the fields of ``metadata.json`` that the weights do not decide."""
        fields = self.model_dump(exclude={"model_card", "measured", "evaluation"})
        records = [json.loads(path.read_text(encoding="utf-8")) for path in self.measured]
        evaluation = None if self.evaluation is None else read_evaluation(self.evaluation)
        return fields | {
            "measured": measured_points(records),
            "evaluation": None if evaluation is None else quoted(evaluation),
        }


def assemble_bundle(components: Path, config: BundleConfig, output: Path) -> BundleMetadata:
    """Write a bundle with float16 weights, hashes and a model card; equal input gives equal bytes.

    Parameters
    ----------
    components
        Folder that the stages exported to.
    config
        Name, licence, operating points and thresholds.
    output
        Folder of the bundle; an existing one is replaced as a whole.

    Raises
    ------
    BundleError
        If a component is missing or its weights do not fit.
    """
    with whole_folder(output) as partial:
        _pipeline(components).to(torch.float16).save_pretrained(partial)
        for component in partial.glob("*/config.json"):
            _forget_origin(component)
        for adapter in sorted((components / ADAPTERS).glob("[!.]*")):
            _halve_adapter(adapter, partial / ADAPTERS / adapter.name)
        shutil.copy(config.model_card, partial / "README.md")
        return write_metadata(partial, config.metadata())


def write_metadata(bundle: Path, fields: dict[str, Any]) -> BundleMetadata:
    """Write ``metadata.json`` with the hashes of all other files of the bundle."""
    files = {
        name: file_sha256(path) for name, path in bundle_files(bundle).items() if name != METADATA
    }
    metadata = BundleMetadata.model_validate({**fields, "files": files})
    partial = bundle / f".{METADATA}.partial"
    text = json.dumps(metadata.model_dump(mode="json"), indent=2, sort_keys=True)
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, bundle / METADATA)
    return metadata


def _pipeline(components: Path) -> PrivDiffPipeline:
    for name in ("autoencoder", "denoiser", "scheduler", "identity", "reader"):
        if not (components / name).is_dir():
            raise BundleError(
                f"component {name} is missing in {components}", "train its stage first"
            )
    return PrivDiffPipeline(
        autoencoder=load_autoencoder(components / "autoencoder"),
        denoiser=PrivDiffDenoiser.from_pretrained(components / "denoiser"),
        scheduler=DDPMScheduler.from_pretrained(components / "scheduler", local_files_only=True),
        identity=IdentityEmbedder.from_pretrained(components / "identity"),
        reader=RadiographReader.from_pretrained(components / "reader"),
        clusters=_clusters(components / "clusters"),
    )


def _clusters(folder: Path) -> PatientClusters | None:
    return PatientClusters.from_pretrained(folder) if folder.is_dir() else None


def _forget_origin(config: Path) -> None:
    """Remove the folder that a component was loaded from, which diffusers writes down."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content.pop("_name_or_path", None)
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _halve_adapter(source: Path, target: Path) -> None:
    weights, config = read_adapter(source)
    write_adapter({name: weight.half() for name, weight in weights.items()}, config, target)
