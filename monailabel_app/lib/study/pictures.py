"""The two pictures of a pair, made so that nothing but the anatomy tells which is the original.

Both get the matrix of the redrawn image, or the sharper one would be the original. Outlines of text
that was found, which the review picture of an original has, are put on both. Both are grey PNG
files without anything else in them.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from monailabel_app.lib.errors import Conflict
from monailabel_app.lib.jobs.job import Job
from privdiff_infer.release import OutputFolders


def pair(folders: OutputFolders, job: Job) -> tuple[bytes, bytes]:
    """Return PNG files of the original and of the redrawn image.

    Raises
    ------
    Conflict
        If the pictures are gone.
    """
    name = Path(job.output).stem
    shown = folders.preview(job.output) or folders.root / job.output
    try:
        original = Image.open(folders.review / f"{name}-original.png").convert("RGB")
        redrawn = Image.open(folders.review / f"{name}-anonymized.png").convert("RGB")
        with Image.open(shown) as picture:
            matrix = picture.size
    except OSError as error:
        raise Conflict(
            "the pictures of this pair are gone", "plan studies before pictures are deleted"
        ) from error
    marked = _with_outlines_of(original, redrawn)
    return _png(original, matrix), _png(marked, matrix)


def _with_outlines_of(original: Image.Image, redrawn: Image.Image) -> Image.Image:
    """Copy what is coloured on the original, which is grey but for outlines."""
    source = np.asarray(original)
    coloured = (source.max(axis=2) != source.min(axis=2))[..., None]
    return Image.fromarray(np.where(coloured, source, np.asarray(redrawn)))


def _png(picture: Image.Image, matrix: tuple[int, int]) -> bytes:
    smaller = (min(picture.width, matrix[0]), min(picture.height, matrix[1]))
    buffer = BytesIO()
    picture.convert("L").resize(smaller, Image.Resampling.LANCZOS).save(buffer, "PNG")
    return buffer.getvalue()
