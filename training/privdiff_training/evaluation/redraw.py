"""A cohort redrawn by a bundle, from pixels alone, kept on disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.vocabulary import Profile
from privdiff_training.cohort import Cohort
from privdiff_training.sampling import generator_for

BATCH = 8


def redraw(
    bundle: Path,
    cohort: Cohort,
    originals: Tensor,
    profile: Profile,
    strength: float,
    seed: int,
    cache_dir: Path,
) -> Tensor:
    """Return every image of a cohort redrawn once, without gates and repeated attempts.

    Parameters
    ----------
    bundle
        Folder of the bundle.
    cohort
        Names the images, for the cache.
    originals
        Shape (n, 1, s, s), float32 in [0, 1], on the model grid.
    profile, strength
        How to sample.
    seed
        Of all noise.
    cache_dir
        Where results are kept.

    Returns
    -------
    Tensor
        Shape of `originals`, float32 in [0, 1].
    """
    names = "\n".join(str(row.image) for row in cohort)
    what = f"{read_bundle(bundle).sha256}:{profile.value}:{strength}:{seed}:{names}"
    path = cache_dir / f"redrawn-{hashlib.sha256(what.encode()).hexdigest()[:16]}.safetensors"
    if not path.exists():
        pipeline = PrivDiffPipeline.from_pretrained(bundle)
        drawn = []
        parts = list(torch.arange(len(originals)).split(BATCH))
        for rows in track(parts, f"Redrawing, {profile.value} at {strength:.2f}"):
            generators = [generator_for(seed, "redraw", int(row)) for row in rows]
            output = pipeline(
                originals[rows], profile=profile, strength=strength, generators=generators
            )
            drawn.append((output.images * 255).round().byte())
        partial = path.with_suffix(f".{os.getpid()}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"images": torch.cat(drawn)}, partial)
        os.replace(partial, path)
    return load_file(path)["images"].float() / 255
