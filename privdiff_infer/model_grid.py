"""From any radiograph to the square grid of a model and exactly back: letterbox, never squash."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from privdiff_infer.vocabulary import OutputSize


@dataclass(frozen=True)
class GridGeometry:
    """Where the content of a source lies on the model grid.

    Attributes
    ----------
    source_shape
        (rows, columns) of the source.
    source_spacing_mm
        (row, column) spacing of the source, or None.
    top, left, rows, columns
        The rectangle of the content on the grid, in grid pixels.
    """

    source_shape: tuple[int, int]
    source_spacing_mm: tuple[float, float] | None
    top: int
    left: int
    rows: int
    columns: int

    def restore(
        self, grid: np.ndarray, output_size: OutputSize
    ) -> tuple[np.ndarray, tuple[float, float] | None]:
        """Cut the padding off and give the content the wanted matrix.

        Parameters
        ----------
        grid
            Shape (size, size), float32 in [0, 1].
        output_size
            `MODEL` keeps the resolution of the grid and corrects the spacing; `ORIGINAL` resamples
            to the matrix of the source.

        Returns
        -------
        tuple
            Pixels (rows, columns), float32 in [0, 1], and their spacing in mm; the physical extent,
            rows * spacing and columns * spacing, equals the source's.
        """
        content = grid[self.top : self.top + self.rows, self.left : self.left + self.columns]
        if output_size is OutputSize.ORIGINAL:
            return _resample(content, self.source_shape), self.source_spacing_mm
        if self.source_spacing_mm is None:
            return np.ascontiguousarray(content, dtype=np.float32), None
        spacing = (
            self.source_spacing_mm[0] * self.source_shape[0] / self.rows,
            self.source_spacing_mm[1] * self.source_shape[1] / self.columns,
        )
        return np.ascontiguousarray(content, dtype=np.float32), spacing


def to_model_grid(
    pixels: np.ndarray, spacing_mm: tuple[float, float] | None, size: int
) -> tuple[np.ndarray, GridGeometry]:
    """Place a radiograph on a square grid, padded with black.

    Parameters
    ----------
    pixels
        Shape (rows, columns), float32 in [0, 1], 0 = black = air.
    spacing_mm
        (row, column) spacing; where the two differ, the content is resampled to square pixels. None
        takes pixels as square.
    size
        Side of the grid in pixels.

    Returns
    -------
    tuple
        The grid, shape (size, size), float32 in [0, 1], and the geometry of the way back.

    Examples
    --------
    >>> grid, geometry = to_model_grid(np.ones((200, 100), np.float32), (0.5, 0.5), 64)
    >>> grid.shape, (geometry.rows, geometry.columns), geometry.left
    ((64, 64), (64, 32), 16)
    >>> geometry.restore(grid, OutputSize.MODEL)[1]
    (1.5625, 1.5625)
    """
    shape = (pixels.shape[0], pixels.shape[1])
    row_mm, column_mm = spacing_mm or (1.0, 1.0)
    height, width = shape[0] * row_mm, shape[1] * column_mm
    scale = size / max(height, width)
    rows = min(size, max(1, round(height * scale)))
    columns = min(size, max(1, round(width * scale)))
    top, left = (size - rows) // 2, (size - columns) // 2
    grid = np.zeros((size, size), np.float32)
    grid[top : top + rows, left : left + columns] = _resample(pixels, (rows, columns))
    return grid, GridGeometry(shape, spacing_mm, top, left, rows, columns)


def _resample(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resample with Pillow's anti-aliased Lanczos filter; its overshoot is clipped."""
    if pixels.shape == shape:
        return np.ascontiguousarray(pixels, dtype=np.float32)
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    resized = image.resize((shape[1], shape[0]), Image.Resampling.LANCZOS)
    return np.clip(np.asarray(resized, dtype=np.float32), 0.0, 1.0)
