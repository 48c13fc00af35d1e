"""Several copies of every image by one method, made once and kept on disk in 8 bits."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.methods.method import Method
from privdiff_training.sampling import generator_for


def redrawn_copies(
    method: Method, cohort: Cohort, pixels: Tensor, versions: int, seed: int, cache_dir: Path
) -> Tensor:
    """Return copies of all images of a cohort.

    Each version is a file of its own, so a run that is killed loses one at most. The noise of a
    version depends on the images too: copies of two cohorts share none.

    Parameters
    ----------
    method
        What makes the copies.
    cohort
        Row i tells of image i.
    pixels
        Originals, shape (n, 1, s, s), uint8.
    versions
        Copies per image.
    seed
        Of everything random; equal seeds give equal copies.
    cache_dir
        Where they are kept.

    Returns
    -------
    Tensor
        Shape (versions, n, 1, s, s), uint8.
    """
    known = _digest(cohort, pixels)
    drawn = [
        _version(method, cohort, pixels, f"{known}:{version}", seed, cache_dir)
        for version in range(versions)
    ]
    return torch.stack(drawn)


def _version(
    method: Method, cohort: Cohort, pixels: Tensor, of: str, seed: int, cache_dir: Path
) -> Tensor:
    key = hashlib.sha256(f"{method.fingerprint}:{of}:{seed}".encode()).hexdigest()[:16]
    path = cache_dir / f"copies-{key}.safetensors"
    if not path.exists():
        noise = generator_for(seed, "copies", of).initial_seed() % 2**31
        copies = method.anonymize(cohort, pixels.float() / 255, noise)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({"images": (copies * 255).round().byte()}, partial)
        os.replace(partial, path)
    return load_file(path)["images"]


def _digest(cohort: Cohort, pixels: Tensor) -> str:
    """Return a hash of the images and of what a method may be told of them."""
    told = repr([(row.findings, row.sex, row.age_years) for row in cohort])
    digest = hashlib.sha256(told.encode())
    digest.update(pixels.contiguous().numpy().data)
    return digest.hexdigest()[:16]
