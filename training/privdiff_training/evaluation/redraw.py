"""A cohort redrawn by a bundle, from pixels alone, kept on disk."""

from __future__ import annotations

import hashlib
import os
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from privdiff_infer.errors import CohortError
from privdiff_infer.model.bundle import EVIDENCE, BundleInfo, read_bundle
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.profiles import PROFILES, ProfileSettings, Start
from privdiff_infer.vocabulary import Profile, age_bin
from privdiff_training.cohort import Cohort
from privdiff_training.sampling import generator_for

BATCH = 8

SAMPLING = {Start.SOURCE: 1, Start.CLUSTER: 2}
"""Raised whenever the same weights and settings redraw otherwise: what is kept is not read then."""


class Told(str, Enum):
    """What the bundle is told beside the pixels.

    ``NOTHING``: it reads findings, age and sex itself. ``HEADER``: age and sex as a DICOM header
    gives them. ``REPORT``: the findings as labels give them.
    """

    NOTHING = "nothing"
    HEADER = "header"
    REPORT = "report"


def tellable(bundle: Path, profile: Profile) -> tuple[Told, ...]:
    """Return what a profile of a bundle may be told beside the pixels, as the product tells it.

    A result that starts from a group of patients is not told age and sex of the header.
    """
    if PROFILES[profile].start is Start.CLUSTER and (bundle / "clusters").is_dir():
        return (Told.NOTHING, Told.REPORT)
    return (Told.NOTHING, Told.HEADER, Told.REPORT)


def redraw(
    bundle: Path,
    cohort: Cohort,
    originals: Tensor,
    profile: Profile,
    strength: float,
    seed: int,
    cache_dir: Path,
    told: Told = Told.NOTHING,
) -> Tensor:
    """Return every image of a cohort redrawn once, without gates and repeated attempts.

    Parameters
    ----------
    bundle
        Folder of the bundle.
    cohort
        Holds what the bundle may be told.
    originals
        Shape (n, 1, s, s), float32 in [0, 1], on the model grid.
    profile, strength
        How to sample.
    seed
        Of all noise.
    cache_dir
        Where results are kept.
    told
        What the bundle is told beside the pixels.

    Returns
    -------
    Tensor
        Shape of `originals`, float32 in [0, 1].
    """
    conditions = conditions_of(cohort, told)
    weights, settings = weights_hash(read_bundle(bundle)), PROFILES[profile]
    what = f"{SAMPLING[settings.start]}:{weights}:{profile.value}:{settings}:{strength}:{seed}"
    path = cache_dir / f"redrawn-{_key(what, originals, *conditions.values())}.safetensors"
    if not path.exists():
        pipeline = PrivDiffPipeline.from_pretrained(bundle)
        drawn = redraw_with(pipeline, originals, profile, strength, seed, **conditions)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"images": (drawn * 255).round().byte()}, partial)
        os.replace(partial, path)
    return load_file(path)["images"].float() / 255


def redraw_with(
    pipeline: PrivDiffPipeline,
    originals: Tensor,
    profile: Profile | ProfileSettings,
    strength: float,
    seed: int,
    num_inference_steps: int | None = None,
    **per_image: Tensor,
) -> Tensor:
    """Return every image redrawn once by a pipeline; nothing is kept on disk.

    Parameters
    ----------
    pipeline
        Of a bundle.
    originals
        Shape (n, 1, s, s), float32 in [0, 1], on the model grid.
    profile, strength
        How to sample.
    seed
        Of all noise; image i has noise of its own.
    num_inference_steps
        Over the whole schedule; the profile's own number if None.
    per_image
        Further arguments of the pipeline with one row per image.

    Returns
    -------
    Tensor
        Shape of `originals`, float32 in [0, 1].
    """
    drawn = []
    parts = list(torch.arange(len(originals)).split(BATCH))
    for rows in track(parts, f"Redrawing at {strength:.2f}"):
        arguments: dict[str, Any] = {name: values[rows] for name, values in per_image.items()}
        output = pipeline(
            originals[rows],
            profile=profile,
            strength=strength,
            num_inference_steps=num_inference_steps,
            generators=[generator_for(seed, "redraw", int(row)) for row in rows],
            **arguments,
        )
        drawn.append(output.images)
    return torch.cat(drawn)


def weights_hash(info: BundleInfo) -> str:
    """Return a hash of all weights and configurations of a bundle, whatever was measured on it."""
    files = info.metadata.files
    named = [
        f"{name}:{files[name]}"
        for name in sorted(files)
        if not name.endswith(".md") and name not in EVIDENCE
    ]
    return hashlib.sha256("\n".join(named).encode()).hexdigest()


def _key(what: str, *tensors: Tensor) -> str:
    digest = hashlib.sha256(what.encode())
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def conditions_of(cohort: Cohort, told: Told) -> dict[str, Any]:
    """Return what a bundle is told as arguments of the pipeline, one row per image.

    Raises
    ------
    CohortError
        If an image has no age or sex that the bundle could be told.
    """
    if told is Told.NOTHING:
        return {}
    if told is Told.REPORT:
        return {"findings": torch.tensor([[int(s) for s in row.findings] for row in cohort])}
    ages = [row.age_years for row in cohort if row.age_years is not None]
    sexes = [int(row.sex) for row in cohort if row.sex is not None]
    if len(ages) < len(cohort) or len(sexes) < len(cohort):
        raise CohortError(
            "some images have no age or sex to tell", "measure without, or complete the manifest"
        )
    return {"age": torch.tensor([age_bin(years) for years in ages]), "sex": torch.tensor(sexes)}
