"""A gallery: images of other people that an attacker could hold, kept as vectors alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from privdiff_infer.errors import OptionError
from privdiff_infer.gates import GalleryRank
from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_infer.model_grid import to_model_grid
from privdiff_infer.radiograph import Radiograph, read_radiograph
from privdiff_infer.sources import find_files

SMALLEST = 20
"""With fewer images, the nearest twentieth is less than one of them."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """What a bundle's identity network sees in images of other people; no name, no pixel.

    Attributes
    ----------
    vectors
        Shape (n, embedding), float32, of length 1.
    """

    vectors: np.ndarray = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the vectors, hexadecimal; it does not depend on their order."""
        rows = sorted(vector.tobytes() for vector in self.vectors)
        return hashlib.sha256(b"".join(rows)).hexdigest()

    def rank(self, result: np.ndarray, similarity: float) -> GalleryRank:
        """Return the place of the original among gallery and original, nearest to a result first.

        Parameters
        ----------
        result
            Embedding of the result, shape (embedding,), of length 1.
        similarity
            Cosine of result and original. Ties, and NaN, count for the original.
        """
        nearer = int((self.vectors @ result > similarity).sum())
        return GalleryRank(rank=1 + nearer, size=len(self.vectors))


@torch.no_grad()
def read_gallery(
    folder: Path, bundle: Path, progress: Callable[[int, int], None] | None = None
) -> Gallery:
    """Embed every frontal chest radiograph below a folder by a bundle's identity network.

    What cannot be read, what the bundle's gate takes for something else, and copies of a file are
    left out.

    Parameters
    ----------
    folder
        With images of other people than those who are redrawn.
    bundle
        Folder.
    progress
        Called with (files done, files in all).

    Raises
    ------
    OptionError
        If the folder does not exist, or has fewer than `SMALLEST` such images.
    BundleError
        If the folder of the bundle is none.
    """
    metadata = read_bundle(bundle).metadata
    identity = IdentityEmbedder.from_pretrained(bundle / "identity").eval()
    reader = RadiographReader.from_pretrained(bundle / "reader").eval()
    vectors: dict[str, np.ndarray] = {}
    files = find_files(str(folder))
    for number, path in enumerate(files, start=1):
        radiograph = _read(path)
        if radiograph is not None:
            image = _on_grid(radiograph, metadata.image_size)
            if float(reader(image).frontal) >= metadata.gates.frontal_logit:
                vectors[radiograph.digest] = identity(image)[0].float().numpy()
        if progress:
            progress(number, len(files))
    if len(vectors) < SMALLEST:
        raise OptionError(
            f"the gallery has {len(vectors)} frontal chest radiographs that can be read, at least "
            f"{SMALLEST} are needed",
            "name a folder with more images of other people",
        )
    return Gallery(np.stack(list(vectors.values())))


def _read(path: Path) -> Radiograph | None:
    try:
        return read_radiograph(path)
    except Exception:  # one bad file never stops a run
        return None


def _on_grid(radiograph: Radiograph, size: int) -> Tensor:
    grid, _ = to_model_grid(radiograph.pixels, radiograph.spacing_mm, size)
    return torch.from_numpy(np.ascontiguousarray(grid))[None, None]
