"""The pixels of a cohort on the model grid, read once and kept on disk."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from privdiff_infer.errors import CohortError, PrivDiffError
from privdiff_infer.model_grid import to_model_grid
from privdiff_infer.radiograph import read_radiograph
from privdiff_training.cohort import Cohort

PREPARATION = "letterbox-v1"
"""Changes whenever prepared pixels would change, so that stale caches are not used."""


def load_images(cohort: Cohort, size: int, cache_dir: Path) -> torch.Tensor:
    """Return all images of a cohort on the model grid.

    Parameters
    ----------
    cohort
        The rows to read.
    size
        Side of the model grid in pixels.
    cache_dir
        Folder in which the prepared pixels are kept.

    Returns
    -------
    torch.Tensor
        Shape (images, size, size), uint8, 0 = black = air; backed by the file in `cache_dir`.

    Raises
    ------
    CohortError
        If an image cannot be read.
    """
    path = cache_dir / f"images-{size}-{_key(cohort, size)}.npy"
    if not path.exists():
        _prepare(cohort, size, path)
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def read_grid(path: Path, size: int) -> np.ndarray:
    """Return one image on the model grid, shape (size, size), uint8.

    Raises
    ------
    ImageRejected, ImageHeld
        If it cannot be read as one frontal chest radiograph.
    """
    radiograph = read_radiograph(path)
    grid, _ = to_model_grid(radiograph.pixels, radiograph.spacing_mm, size)
    return np.round(grid * 255).astype(np.uint8)


def _key(cohort: Cohort, size: int) -> str:
    """Return a name for the prepared pixels that changes with every image file."""
    files = "\n".join(_stamp(cohort.root, row.image) for row in cohort)
    text = f"{PREPARATION}:{size}:{cohort.root}:{files}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stamp(root: Path, image: Path) -> str:
    # Size and time tell a changed file from the old one without reading the whole cohort.
    try:
        facts = (root / image).stat()
    except OSError as error:
        raise CohortError(
            f"image {image} cannot be read", "check the manifest's paths and permissions"
        ) from error
    return f"{image}:{facts.st_size}:{facts.st_mtime_ns}"


def _prepare(cohort: Cohort, size: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.empty((len(cohort), size, size), np.uint8)

    def read(index: int) -> None:
        row = cohort.rows[index]
        try:
            pixels[index] = read_grid(cohort.root / row.image, size)
        except PrivDiffError as error:
            raise CohortError(f"image {row.image}: {error.problem}", error.remedy) from error

    with ThreadPoolExecutor() as pool:
        for _ in track(pool.map(read, range(len(cohort))), "Preparing images", total=len(cohort)):
            pass
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.save(file, pixels)
    os.replace(partial, path)
