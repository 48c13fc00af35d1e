"""How much burned-in text is found and removed, and how often what is none is taken for it."""

from __future__ import annotations

import csv
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from privdiff_infer.anonymizer import Anonymizer, AnonymizerOptions
from privdiff_infer.burned_in_text import (
    SEARCH_SIDE,
    RapidTextDetector,
    TextBox,
    remove_text,
)
from privdiff_infer.errors import ImageHeld
from privdiff_infer.file_formats import SourceFormat
from privdiff_infer.gates import Gate
from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.model_grid import to_model_grid
from privdiff_infer.radiograph import HeaderFacts, Radiograph, read_radiograph
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.lettering import Lettered, write_text
from privdiff_training.evaluation.statistics import Share, wilson

SIZES = (8, 10, 12, 16, 24, 32, 48, 64)
CONTRASTS = (40, 80, 160)  # of 255
SMALL_SIZES = (3, 4, 5, 6, 7)
LARGE_SIDE = 2048
LARGE_SIZES = (8, 12, 16, 24)
PLANTED, LARGE, REDRAWN = 30, 8, 24
"""Images of each part, each of another patient."""
CENTRE = (0.22, 0.78)
"""Part of rows and columns in which a frontal chest radiograph has no label."""
FOUND, COVERED = 0.5, 0.95
"""Parts of the strokes that lie in boxes where a text counts as found, and as covered."""


@dataclass(frozen=True)
class TextFigures:
    """Measured quality of the text step; keys of planted text are font sizes in pixels.

    Attributes
    ----------
    found
        Part of planted texts half of whose strokes lie in boxes, by size and contrast (of 255).
    covered
        Part of them 95 % of whose strokes were filled, or whose image was held.
    found_by_rotation
        The first of these by rotation in degrees.
    left_legible
        Part of planted texts after whose removal something can be read in their place, by contrast.
    held
        Part of images with planted text that are held since a text stays.
    false_boxes
        Part of text-free centres of real images in which a box is drawn, and boxes per image.
    false_area
        Part of the pixels of these centres that would be filled.
    small
        For text too small for the search: part that is found, and part in which anything can be
        read on the model's grid although nothing was removed.
    large
        Part found in images of 2048 pixels with the fine search, by size; contrast 80.
    labelled
        Part of labels of real images that are found, by kind and data set.
    labelled_false_boxes
        Boxes on these images that lie on no label, per image.
    sides_read, sides_wrong
        Of labelled side markers: read as the letter that they are, or as the other one.
    redrawn
        Images with text of 24 pixels, redrawn: part whose result was held for text that is legible,
        with the text step and without it.
    seconds
        Median seconds of processor time, one thread: of one search; of all searches and fillings of
        an image with text and the search of its result; of the fine search of a large image.
    """

    images: int
    found: dict[str, dict[str, Share]]
    covered: dict[str, dict[str, Share]]
    found_by_rotation: dict[str, Share]
    left_legible: dict[str, Share]
    held: Share
    false_boxes: Share
    false_boxes_per_image: float
    false_area: float
    small: dict[str, dict[str, Share]]
    large: dict[str, Share]
    labelled: dict[str, Share]
    labelled_false_boxes: float
    sides_read: Share
    sides_wrong: Share
    redrawn: dict[str, Share]
    seconds: dict[str, float]

    def to_record(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Planted:
    size: int
    contrast: int
    rotation: int
    found: bool
    covered: bool
    legible: bool
    held: bool


def measure_text(bundle: Path, cohort: Cohort, labels: Path, seed: int = 0) -> TextFigures:
    """Measure the text step on planted text, text-free centres and labelled real text.

    Parameters
    ----------
    bundle
        Whose results are searched.
    cohort
        Real images that no threshold was chosen on; one of each patient is used.
    labels
        CSV with columns ``image,kind,top,left,bottom,right`` in pixels, relative to the cohort's
        folder; kind is ``words``, ``L``, ``R`` or ``none``.
    seed
        Of the planted texts.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    detector = RapidTextDetector()
    paths = _one_of_each_patient(cohort, seed)
    seconds: dict[str, list[float]] = defaultdict(list)
    planted = list(_planted(paths[:PLANTED], detector, seed, seconds))
    centres = [_centre(read_radiograph(path).pixels) for path in paths]
    # A centre is searched at the scale at which the whole image is.
    centre_side = round(SEARCH_SIDE * (CENTRE[1] - CENTRE[0]))
    centre_detector = RapidTextDetector(search_side=centre_side)
    false = [centre_detector.find(centre) for centre in centres]
    labelled = _Labelled(labels, cohort.root, detector)
    return TextFigures(
        images=len(paths),
        found=_by_size_and_contrast(planted, "found"),
        covered=_by_size_and_contrast(planted, "covered"),
        found_by_rotation=_by(planted, "rotation", "found"),
        left_legible=_by([case for case in planted if not case.held], "contrast", "legible"),
        held=wilson([case.held for case in planted]),
        false_boxes=wilson([bool(boxes) for boxes in false]),
        false_boxes_per_image=float(np.mean([len(boxes) for boxes in false])),
        false_area=float(
            np.mean([_mask(b, c.shape).mean() for b, c in zip(false, centres, strict=True)])
        ),
        small=_small(paths[:PLANTED], detector, read_bundle(bundle).metadata.image_size, seed),
        large=_large(paths[:LARGE], seed, seconds),
        labelled=labelled.shares(),
        labelled_false_boxes=labelled.false_boxes,
        sides_read=wilson(labelled.right_sides),
        sides_wrong=wilson(labelled.wrong_sides),
        redrawn=_redrawn(bundle, paths[:REDRAWN], seed),
        seconds={name: float(np.median(times)) for name, times in seconds.items()},
    )


def _one_of_each_patient(cohort: Cohort, seed: int) -> list[Path]:
    rows = list(cohort)
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = {rows[index].unit: rows[index].image for index in order}
    return [cohort.root / image for image in chosen.values()]


def _planted(
    paths: Sequence[Path],
    detector: RapidTextDetector,
    seed: int,
    seconds: dict[str, list[float]],
) -> Iterator[_Planted]:
    for index, path in enumerate(paths):
        pixels = read_radiograph(path).pixels
        start = time.process_time()
        detector.find(pixels)
        seconds["one search"].append(time.process_time() - start)
        for size, contrast in product(SIZES, CONTRASTS):
            rng = np.random.default_rng((seed, index, size, contrast))
            text = write_text(pixels, size, contrast / 255, rng)
            if text is None:
                continue
            start = time.process_time()
            case = _removed(text, size, contrast, detector)
            seconds["removal and one more search"].append(time.process_time() - start)
            yield case


def _removed(text: Lettered, size: int, contrast: int, detector: RapidTextDetector) -> _Planted:
    try:
        cleaned, boxes = remove_text(text.pixels, detector)
    except ImageHeld:
        return _Planted(size, contrast, text.rotation, True, True, False, True)
    left = [box for box in detector.find(cleaned) if box.is_legible]
    return _Planted(
        size,
        contrast,
        text.rotation,
        found=_part(text.strokes, _mask(boxes, cleaned.shape)) >= FOUND,
        covered=_part(text.strokes, cleaned != text.pixels) >= COVERED,
        legible=_part(text.strokes, _mask(left, cleaned.shape)) > 0,
        held=False,
    )


def _small(
    paths: Sequence[Path], detector: RapidTextDetector, grid_size: int, seed: int
) -> dict[str, dict[str, Share]]:
    """Tell whether what is too small to be found can be read on the grid of the model."""
    found, legible = defaultdict(list), defaultdict(list)
    for (index, path), size in product(enumerate(paths), SMALL_SIZES):
        pixels = read_radiograph(path).pixels
        rng = np.random.default_rng((seed, index, size))
        text = write_text(pixels, size, CONTRASTS[-1] / 255, rng)
        if text is None:
            continue
        mask = _mask(detector.find(text.pixels), pixels.shape)
        found[str(size)].append(_part(text.strokes, mask) >= FOUND)
        grid, _ = to_model_grid(text.pixels, None, grid_size)
        strokes, _ = to_model_grid(text.strokes, None, grid_size)
        seen = [box for box in detector.find(grid) if box.is_legible]
        legible[str(size)].append(_part(strokes, _mask(seen, grid.shape)) >= FOUND)
    return {
        "found": {size: wilson(cases) for size, cases in found.items()},
        "legible_on_grid": {size: wilson(cases) for size, cases in legible.items()},
    }


def _large(paths: Sequence[Path], seed: int, seconds: dict[str, list[float]]) -> dict[str, Share]:
    detector = RapidTextDetector(fine=True)
    found = defaultdict(list)
    for (index, path), size in product(enumerate(paths), LARGE_SIZES):
        pixels = read_radiograph(path).pixels
        large = cv2.resize(pixels, (LARGE_SIDE, LARGE_SIDE), interpolation=cv2.INTER_CUBIC)
        rng = np.random.default_rng((seed, index, size))
        text = write_text(np.clip(large, 0, 1), size, CONTRASTS[1] / 255, rng)
        if text is None:
            continue
        start = time.process_time()
        boxes = detector.find(text.pixels)
        seconds["fine search of 2048 pixels"].append(time.process_time() - start)
        found[str(size)].append(_part(text.strokes, _mask(boxes, large.shape)) >= FOUND)
    return {size: wilson(cases) for size, cases in found.items()}


def _redrawn(bundle: Path, paths: Sequence[Path], seed: int) -> dict[str, Share]:
    """Redraw images with a name in them, with the text step, and as if there were none."""
    anonymizer = Anonymizer.from_bundle(bundle, AnonymizerOptions(device="cpu"))
    detector = RapidTextDetector()
    blind = Anonymizer(
        anonymizer.pipeline,
        anonymizer.bundle,
        AnonymizerOptions(device="cpu", accept_unchecked_text=True),
        None,
    )
    held, legible = [], []
    for index, path in enumerate(paths):
        rng = np.random.default_rng((seed, index))
        text = write_text(read_radiograph(path).pixels, 24, CONTRASTS[-1] / 255, rng)
        if text is None:
            continue
        image = Radiograph(text.pixels, None, "", SourceFormat.PNG, 8, None, HeaderFacts())
        try:
            checked = anonymizer.anonymize(image, index)
            boxes = detector.find(blind.anonymize(image, index).pixels)
        except ImageHeld:  # by another gate
            continue
        held.append(any(failure.gate is Gate.TEXT for failure in checked.failures))
        legible.append(any(box.is_legible for box in boxes))
    return {"held with the text step": wilson(held), "legible without it": wilson(legible)}


class _Labelled:
    """Real images whose text was marked by eye."""

    def __init__(self, labels: Path, root: Path, detector: RapidTextDetector) -> None:
        images: dict[str, list[dict[str, str]]] = defaultdict(list)
        with labels.open(newline="", encoding="utf-8") as file:
            for record in csv.DictReader(file):
                images[record["image"]].append(record)
        self._hits: dict[str, list[bool]] = defaultdict(list)
        self.right_sides: list[bool] = []
        self.wrong_sides: list[bool] = []
        false = 0
        for name, records in images.items():
            pixels = np.asarray(Image.open(root / name).convert("L"), np.float32) / 255
            boxes = detector.find(pixels)
            marked = [record for record in records if record["kind"] != "none"]
            for record in marked:
                self._add(record, boxes, pixels.shape)
            false += sum(not any(_touches(box, record) for record in marked) for box in boxes)
        self.false_boxes = false / len(images)

    def _add(
        self, record: dict[str, str], boxes: Sequence[TextBox], shape: tuple[int, ...]
    ) -> None:
        place = _rectangle(record)
        label = np.zeros(shape, np.float32)
        label[place] = 1
        is_found = _part(label, _mask(boxes, shape)) >= FOUND
        kind = "words" if record["kind"] == "words" else "markers"
        self._hits[f"{kind}, {record['image'].split('/')[0]}"].append(is_found)
        if kind == "markers":
            read = {box.side.value for box in boxes if box.side and _touches(box, record)}
            self.right_sides.append(record["kind"] in read)
            self.wrong_sides.append(bool(read - {record["kind"]}))

    def shares(self) -> dict[str, Share]:
        return {kind: wilson(hits) for kind, hits in sorted(self._hits.items())}


def _rectangle(record: dict[str, str]) -> tuple[slice, slice]:
    top, left, bottom, right = (int(record[side]) for side in ("top", "left", "bottom", "right"))
    return slice(top, bottom), slice(left, right)


def _touches(box: TextBox, record: dict[str, str]) -> bool:
    rows, columns = _rectangle(record)
    corners = np.array(box.corners)
    first, last = corners.min(0), corners.max(0)
    return bool(
        first[0] < rows.stop
        and last[0] > rows.start
        and first[1] < columns.stop
        and last[1] > columns.start
    )


def _centre(pixels: np.ndarray) -> np.ndarray:
    rows, columns = (
        slice(round(CENTRE[0] * side), round(CENTRE[1] * side)) for side in pixels.shape
    )
    return np.ascontiguousarray(pixels[rows, columns])


def _mask(boxes: Sequence[TextBox], shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for box in boxes:
        corners = np.round(np.array(box.corners)[:, ::-1]).astype(np.int32)
        cv2.fillPoly(mask, [corners], 1)
    return mask


def _part(strokes: np.ndarray, mask: np.ndarray) -> float:
    return float((strokes * mask).sum() / strokes.sum())


def _by(cases: Sequence[_Planted], key: str, outcome: str) -> dict[str, Share]:
    groups = defaultdict(list)
    for case in cases:
        groups[getattr(case, key)].append(getattr(case, outcome))
    return {str(value): wilson(groups[value]) for value in sorted(groups)}


def _by_size_and_contrast(cases: Sequence[_Planted], outcome: str) -> dict[str, dict[str, Share]]:
    return {
        str(size): _by([case for case in cases if case.size == size], "contrast", outcome)
        for size in SIZES
    }
