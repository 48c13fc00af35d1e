"""Letters that are burned into the pixels: found, filled from their surroundings, found again.

A detector of text lines (PP-OCR, through rapidocr, whose weights lie in its wheel) draws the boxes.
What counts is the box and not the word: letters of lead, tilted or blurred, are often boxed but
read wrongly. The recogniser tells two things only, and its words never leave this module, since
they can name the patient: whether a box can be read at all, and whether it is an L or an R.

A box is a guess. Text can be missed, so nothing here proves that an image has none.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from privdiff_infer.errors import ImageHeld, TextDetectorError
from privdiff_infer.image_files import to_8_bit
from privdiff_infer.radiograph import MAX_SIDE

if TYPE_CHECKING:
    from rapidocr import RapidOCR

SEARCH_SIDE = 640
"""Pixels of the long side at which a picture is searched; letters of 8 pixels are found there."""
LARGEST_SCALE = 2.5
"""Small images are enlarged no further: letters of 3 pixels and less cannot be read."""
TILE_OVERLAP = 64
"""Tiles of the search side have this many pixels in common, for letters on their border."""
GRID = 32
"""The detector takes sides that are multiples of this."""

STROKE_WIDTH = 9
STROKE_CONTRAST = 20
STROKE_PIXELS = 12
"""A tile is searched if a block of 32 pixels a side holds this many pixels of lines that are
thinner than the width and stand out by the contrast (of 255). Most anatomy is no thin line."""

BOX_SCORE = 0.3
"""Least mean probability of text in a box, low since it is low in boxes around tilted text; below
the next figure, or if the box is smaller than that, something must be recognised in it."""
SURE_BOX_SCORE = 0.5
SURE_BOX_PIXELS = 10
WORD_SCORE = 0.5
LARGEST_HEIGHT = 0.2
"""A box whose short side is a larger part of the searched picture is a chest, not a word."""

LEGIBLE_SCORE = 0.8
LEGIBLE_LETTERS = 2
MARKER_SCORE = 0.9
MARKER_ASPECT = 2.0

FILL_MARGIN = 0.25
FILL_MARGIN_PIXELS = 2
"""Boxes grow by this part of their short side, and by these pixels, before they are filled."""
FILL_RADIUS = 5
FILL_STEPS = 65535
MAX_ROUNDS = 3

MARKER_CELLS = 8
MARKER_HEIGHT = 1 / 16

UNAVAILABLE = (
    "burned-in text cannot be looked for: the text detector does not load",
    "install rapidocr and onnxruntime again, or give --accept-unchecked-text",
)
STAYED = (
    "burned-in text could not be removed",
    "remove it with the tool that exports the images",
)
LEFT_IN_RESULT = "text was found in the result; look at it, and try a higher strength"

Corner = tuple[float, float]
logger = logging.getLogger(__name__)


class TextState(str, Enum):
    """Whether burned-in text was looked for."""

    CHECKED = "checked"
    UNCHECKED = "not checked"


class Side(str, Enum):
    """The letter of a side marker."""

    LEFT = "L"
    RIGHT = "R"


@dataclass(frozen=True)
class _Candidate:
    """A box before it is read: corners (4, 2) as (column, row)."""

    corners: np.ndarray
    score: float
    is_sure: bool


@dataclass(frozen=True)
class TextBox:
    """A place where the detector sees text; what is written there is not kept.

    Attributes
    ----------
    corners
        Four (row, column) in pixels of the searched array, clockwise from the upper left of the
        line of text.
    score
        Mean probability of text in the box.
    side
        Of a side marker that stands alone and upright, else None.
    is_legible
        Whether at least two letters or digits can be read in it.
    """

    corners: tuple[Corner, Corner, Corner, Corner]
    score: float
    side: Side | None = None
    is_legible: bool = False

    @property
    def is_marker(self) -> bool:
        """Whether this is a side marker."""
        return self.side is not None


class TextDetector(Protocol):
    """Finds text."""

    def find(self, pixels: np.ndarray) -> list[TextBox]:
        """Return all boxes.

        Parameters
        ----------
        pixels
            Shape (rows, columns), float32 in [0, 1], 0 = black = air.
        """


@dataclass(frozen=True)
class TextStep:
    """What was done about the text of one image.

    Attributes
    ----------
    state
        Whether it was looked for.
    boxes
        What was found, and filled, in the source; in its pixels.
    redrawn
        Number of side markers that were drawn anew.
    """

    state: TextState
    boxes: tuple[TextBox, ...] = ()
    redrawn: int = 0

    @property
    def markers(self) -> tuple[TextBox, ...]:
        """The side markers among the boxes."""
        return tuple(box for box in self.boxes if box.is_marker)


class RapidTextDetector:
    """PP-OCR in onnxruntime, on the CPU, without network.

    Parameters
    ----------
    threads
        CPU threads.
    search_side
        Pixels of the long side at which the whole image is searched.
    fine
        Whether larger images are also searched tile by tile at their own resolution: for images
        that keep it.

    Raises
    ------
    TextDetectorError
        If the library or its weights are missing or do not load.
    """

    def __init__(
        self, threads: int = 1, *, search_side: int = SEARCH_SIDE, fine: bool = False
    ) -> None:
        self._search_side = search_side
        self._fine = fine
        try:
            self._engine = _load(threads, _weights("det"), _weights("rec"))
            self.find(np.zeros((GRID, GRID), np.float32))  # it loads on first use
        except Exception as error:  # whatever a broken installation raises
            logger.debug("the text detector does not load: %s", type(error).__name__)
            raise TextDetectorError(*UNAVAILABLE) from error

    def find(self, pixels: np.ndarray) -> list[TextBox]:
        """Return all boxes, larger ones first; one that lies in another is left out.

        Parameters
        ----------
        pixels
            Shape (rows, columns), float32 in [0, 1], 0 = black = air.
        """
        picture = to_8_bit(pixels)
        scale = min(LARGEST_SCALE, self._search_side / max(picture.shape))
        found = list(self._candidates(picture, scale))
        for top, left in _tiles_with_strokes(picture) if self._fine else ():
            tile = picture[top : top + SEARCH_SIDE, left : left + SEARCH_SIDE]
            found += [
                replace(candidate, corners=candidate.corners + np.array((left, top)))
                for candidate in self._candidates(tile, 1)
            ]
        boxes = (self._read(picture, candidate) for candidate in _outermost(found))
        return [box for box in boxes if box is not None]

    def _candidates(self, picture: np.ndarray, scale: float) -> Iterator[_Candidate]:
        """Yield what the detector sees in a picture that is scaled for the search."""
        import cv2

        rows, columns = (max(1, round(side * scale / GRID)) * GRID for side in picture.shape)
        shrinks = rows < picture.shape[0]
        searched = cv2.resize(
            picture,
            (columns, rows),
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC,
        )
        # A switch that a call leaves out stays as it was. What is returned depends on the switches.
        result: Any = self._engine(
            searched, use_det=True, use_cls=False, use_rec=False, box_thresh=BOX_SCORE
        )
        if result.boxes is None:
            return
        back = (picture.shape[1] / columns, picture.shape[0] / rows)
        for corners, score in zip(np.asarray(result.boxes, float), result.scores, strict=True):
            height = min(_sides(corners))
            if height <= LARGEST_HEIGHT * max(rows, columns):
                is_sure = score >= SURE_BOX_SCORE and height >= SURE_BOX_PIXELS
                yield _Candidate(corners * back, float(score), is_sure)

    def _read(self, picture: np.ndarray, candidate: _Candidate) -> TextBox | None:
        """Describe a box by what can be read in it; None if it is doubtful and nothing can."""
        word, certainty = self._word(_straightened(picture, candidate.corners))
        if not candidate.is_sure and certainty < WORD_SCORE:
            return None
        points = [(float(row), float(column)) for column, row in candidate.corners]
        return TextBox(
            corners=(points[0], points[1], points[2], points[3]),
            score=candidate.score,
            side=_side(word) if certainty >= MARKER_SCORE else None,
            is_legible=certainty >= LEGIBLE_SCORE
            and sum(letter.isalnum() for letter in word) >= LEGIBLE_LETTERS,
        )

    def _word(self, line: np.ndarray) -> tuple[str, float]:
        result: Any = self._engine(line, use_det=False, use_cls=False, use_rec=True)
        return (result.txts[0], float(result.scores[0])) if result.txts else ("", 0.0)


def remove_text(
    pixels: np.ndarray, detector: TextDetector
) -> tuple[np.ndarray, tuple[TextBox, ...]]:
    """Fill every box from its surroundings, and look again until there is none.

    Parameters
    ----------
    pixels
        Shape (rows, columns), float32 in [0, 1], 0 = black = air.
    detector
        Finds the boxes.

    Returns
    -------
    tuple
        The filled pixels, of the same shape, and all boxes that were found.

    Raises
    ------
    ImageHeld
        If text can still be read after the last round.
    """
    found: list[TextBox] = []
    for _ in range(MAX_ROUNDS):
        # A filled place can look like text to the detector; it is none unless it can be read.
        boxes = [
            box
            for box in detector.find(pixels)
            if box.is_legible or not any(_holds_middle(filled, box) for filled in found)
        ]
        if not boxes:
            return pixels, tuple(found)
        pixels = fill(pixels, boxes)
        found += boxes
    if any(box.is_legible for box in detector.find(pixels)):
        raise ImageHeld(*STAYED)
    return pixels, tuple(found)


def fill(pixels: np.ndarray, boxes: Sequence[TextBox]) -> np.ndarray:
    """Return pixels in which the boxes, somewhat enlarged, are continued from what is around them.

    Nothing inside any box is used, so nothing of a stroke can remain in it. The others keep their
    values to the bit.
    """
    import cv2

    mask = np.zeros(pixels.shape, np.uint8)
    for box in boxes:
        corners = np.round(np.array(box.corners)[:, ::-1]).astype(np.int32)
        one = cv2.fillPoly(np.zeros_like(mask), [corners], 1)
        size = 2 * math.ceil(_margin(box)) + 1
        mask = np.maximum(mask, cv2.dilate(one, np.ones((size, size), np.uint8)))
    # Of whole numbers: OpenCV 5 fills floating-point images in [0, 1] with stripes.
    steps = np.round(pixels * FILL_STEPS).astype(np.uint16)
    for box in boxes:
        window = _window(box, pixels.shape)
        steps[window] = cv2.inpaint(steps[window], mask[window], FILL_RADIUS, cv2.INPAINT_TELEA)
    return np.where(mask == 1, (steps / FILL_STEPS).astype(np.float32), pixels)


def draw_markers(
    pixels: np.ndarray, markers: Sequence[TextBox], source_shape: tuple[int, int]
) -> np.ndarray:
    """Return a result on which the side markers of its source are drawn anew.

    The letter is always the same, and its place is the middle of one of 8 x 8 cells: exact places
    would tell which original a result was made from.

    Parameters
    ----------
    pixels
        Shape (rows, columns), float32 in [0, 1], 0 = black = air: the result.
    markers
        In pixels of the source.
    source_shape
        (rows, columns) of the source.
    """
    if not markers:
        return pixels
    marked = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.float32))
    draw = ImageDraw.Draw(marked)
    rows, columns = pixels.shape
    height = max(rows, columns) * MARKER_HEIGHT
    font = ImageFont.load_default(height)
    for box in markers:
        if box.side is None:
            continue
        cells = np.mean(box.corners, axis=0) / source_shape * MARKER_CELLS
        row, column = np.clip(np.floor(cells), 0, MARKER_CELLS - 1) + 0.5
        place = (column / MARKER_CELLS * columns, row / MARKER_CELLS * rows)
        draw.text(
            place,
            box.side.value,
            fill=1.0,
            font=font,
            anchor="mm",
            stroke_width=max(1, round(height / 16)),
            stroke_fill=0.0,
        )
    return np.asarray(marked)


@cache
def _load(threads: int, detector: Path, recogniser: Path) -> RapidOCR:
    """Load the weights, once in a process."""
    from rapidocr import RapidOCR

    return RapidOCR(
        params={
            # It would log words and paths of files.
            "Global.log_level": "critical",
            "Global.use_preprocess_img": False,
            "Det.model_path": str(detector),
            "Det.limit_type": "max",
            "Det.limit_side_len": MAX_SIDE,  # none: pictures come in the size of the search
            "Rec.model_path": str(recogniser),
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


def _weights(task: str) -> Path:
    """Return the file in the wheel; left to itself, the library would load it from the network."""
    package = find_spec("rapidocr")
    if package is None or package.origin is None:
        raise FileNotFoundError("rapidocr")
    (weights,) = (Path(package.origin).parent / "models").glob(f"*_{task}_*.onnx")
    return weights


def _tiles_with_strokes(picture: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (top, left) of the tiles of a large picture that hold lines as thin as in letters."""
    import cv2

    if max(picture.shape) <= SEARCH_SIDE:
        return
    kernel = np.ones((STROKE_WIDTH, STROKE_WIDTH), np.uint8)
    bright = cv2.morphologyEx(picture, cv2.MORPH_TOPHAT, kernel)
    dark = cv2.morphologyEx(picture, cv2.MORPH_BLACKHAT, kernel)
    strokes = (np.maximum(bright, dark) >= STROKE_CONTRAST).astype(np.float32)
    blocks = cv2.boxFilter(strokes, -1, (GRID, GRID), normalize=False)
    for top in _starts(picture.shape[0]):
        for left in _starts(picture.shape[1]):
            tile = blocks[top : top + SEARCH_SIDE, left : left + SEARCH_SIDE]
            if tile.max() >= STROKE_PIXELS:
                yield top, left


def _starts(length: int) -> list[int]:
    """Return where tiles begin, evenly spread over `length` pixels."""
    count = max(1, math.ceil((length - TILE_OVERLAP) / (SEARCH_SIDE - TILE_OVERLAP)))
    return np.linspace(0, max(0, length - SEARCH_SIDE), count).astype(int).tolist()


def _outermost(found: Sequence[_Candidate]) -> list[_Candidate]:
    """Leave out boxes whose middle lies in a larger one, as two searches see one text."""
    kept: list[_Candidate] = []
    for candidate in sorted(found, key=lambda box: -math.prod(_sides(box.corners))):
        if not any(_holds(larger.corners, candidate.corners.mean(0)) for larger in kept):
            kept.append(candidate)
    return kept


def _holds_middle(outer: TextBox, inner: TextBox) -> bool:
    return _holds(np.array(outer.corners), np.mean(inner.corners, axis=0))


def _holds(corners: np.ndarray, point: np.ndarray) -> bool:
    import cv2

    inside: float = cv2.pointPolygonTest(corners.astype(np.float32), tuple(point.tolist()), False)
    return inside >= 0


def _straightened(picture: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the content of a box as an upright picture; a line that stands is laid down."""
    import cv2

    width, height = (max(1, round(side)) for side in _sides(corners))
    target = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    turn = cv2.getPerspectiveTransform(corners.astype(np.float32), target)
    line = cv2.warpPerspective(picture, turn, (width, height), flags=cv2.INTER_CUBIC)
    return np.ascontiguousarray(np.rot90(line)) if height > MARKER_ASPECT * width else line


def _sides(corners: np.ndarray) -> tuple[float, float]:
    """Return the lengths of the first two sides of a box: along the line, and across."""
    return math.dist(corners[0], corners[1]), math.dist(corners[1], corners[2])


def _side(word: str) -> Side | None:
    letter = word.strip().upper()
    return Side(letter) if letter in {side.value for side in Side} else None


def _margin(box: TextBox) -> float:
    return FILL_MARGIN_PIXELS + FILL_MARGIN * min(_sides(np.array(box.corners)))


def _window(box: TextBox, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return where an enlarged box and what it is filled from lie."""
    corners, margin = np.array(box.corners), 2 * _margin(box) + FILL_RADIUS
    first = np.clip(np.floor(corners.min(0) - margin), 0, None).astype(int)
    last = np.minimum(np.ceil(corners.max(0) + margin), shape).astype(int)
    return slice(first[0], last[0]), slice(first[1], last[1])
