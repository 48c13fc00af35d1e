"""Burned-in text on the real detector: found, removed, redrawn, and never told."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from privdiff_infer.anonymizer import Anonymizer, AnonymizerOptions
from privdiff_infer.burned_in_text import (
    LEFT_IN_RESULT,
    STAYED,
    RapidTextDetector,
    Side,
    TextBox,
    TextState,
    draw_markers,
    fill,
    remove_text,
)
from privdiff_infer.cli import app
from privdiff_infer.errors import ImageHeld
from privdiff_infer.file_formats import SourceFormat
from privdiff_infer.image_files import to_8_bit
from privdiff_infer.radiograph import HeaderFacts, Radiograph, read_radiograph
from privdiff_infer.review_pictures import write_review_pictures
from privdiff_infer.vocabulary import SideMarkers
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset
from tests.unit.lettering import WORDS, lettered, smooth_picture
from tests.unit.outputs import read_crosswalk

BOX = TextBox(((40.0, 60.0), (40.0, 200.0), (70.0, 200.0), (70.0, 60.0)), 0.9, None, True)


@pytest.fixture(scope="module")
def detector() -> RapidTextDetector:
    return RapidTextDetector()


def agreement(pixels: np.ndarray, strokes: np.ndarray) -> float:
    """Return how much pixels look like the strokes around them, from -1 to 1."""
    rows, columns = np.nonzero(strokes)
    around = slice(rows.min() - 3, rows.max() + 4), slice(columns.min() - 3, columns.max() + 4)
    return float(np.corrcoef(pixels[around].ravel(), strokes[around].ravel())[0, 1])


@pytest.mark.parametrize("size", [10, 24, 48])
@pytest.mark.parametrize("contrast", [0.4, -0.4])
def test_no_stroke_of_planted_text_remains(detector, size, contrast):
    plain = smooth_picture()
    picture, strokes = lettered(plain, size=size, contrast=contrast)
    cleaned, boxes = remove_text(picture, detector)

    assert any(box.is_legible for box in boxes)
    assert abs(agreement(picture - plain, strokes)) > 0.9
    assert abs(agreement(cleaned - plain, strokes)) < 0.1
    assert not any(box.is_legible for box in detector.find(cleaned))


def test_pixels_away_from_the_text_are_not_touched(detector):
    picture, _ = lettered(smooth_picture())
    cleaned, _ = remove_text(picture, detector)

    assert np.array_equal(cleaned[120:], picture[120:])
    assert cleaned.dtype == np.float32


def test_picture_without_text_is_not_touched(detector):
    picture = smooth_picture()
    cleaned, boxes = remove_text(picture, detector)

    assert boxes == ()
    assert cleaned is picture


def test_small_letters_of_a_large_picture_need_the_fine_search(detector):
    picture, strokes = lettered(smooth_picture((2048, 1792)), size=10, place=(1500, 1200))
    (box,) = RapidTextDetector(fine=True).find(picture)
    rows, columns = np.nonzero(strokes)

    assert detector.find(picture) == []
    assert np.mean(box.corners, 0) == pytest.approx((rows.mean(), columns.mean()), abs=6)


@pytest.mark.parametrize(
    ("interpretation", "bits"),
    [("MONOCHROME1", 12), ("MONOCHROME2", 16)],
)
def test_text_in_dicom_pixels_is_found(detector, tmp_path, interpretation, bits):
    picture, _ = lettered(smooth_picture())
    shown = 1 - picture if interpretation == "MONOCHROME1" else picture
    stored = np.round(shown * (2**bits - 1)).astype(np.uint16)
    dataset = radiograph_dataset(stored, bits, PhotometricInterpretation=interpretation)
    path = tmp_path / "image.dcm"
    path.write_bytes(dicom_bytes(dataset))

    assert any(box.is_legible for box in detector.find(read_radiograph(path).pixels))


@pytest.mark.parametrize("side", list(Side))
def test_lone_letter_is_a_side_marker(detector, side):
    picture, _ = lettered(smooth_picture(), side.value, size=40, place=(50, 440))
    (box,) = detector.find(picture)

    assert box.side is side
    assert box.is_marker
    assert not box.is_legible


def test_marker_is_drawn_anew_in_the_middle_of_its_cell():
    marker = replace(BOX, side=Side.LEFT)
    blank = np.full((256, 200), 0.5, np.float32)
    marked = draw_markers(blank, [marker], source_shape=(512, 400))
    moved = draw_markers(blank, [marker], source_shape=(511, 405))
    rows, columns = np.nonzero(marked != blank)

    assert (marked.min(), marked.max()) == (0, 1)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(16, abs=1.5)  # cell 0 of 8 in 256
    assert (columns.min() + columns.max()) / 2 == pytest.approx(62.5, abs=1.5)  # cell 2 in 200
    assert np.array_equal(marked, moved)


def test_filling_uses_nothing_of_what_is_in_the_box():
    picture = smooth_picture()
    inside = picture.copy()
    inside[40:71, 60:201] = np.random.default_rng(0).random((31, 141))

    assert np.array_equal(fill(picture, [BOX]), fill(inside, [BOX]))


def test_filling_continues_the_surroundings():
    """Protects from stripes: OpenCV 5 draws them into floating-point images."""
    rows, columns = np.mgrid[0:300, 0:300].astype(np.float32) / 300
    picture = 0.3 + 0.2 * rows + 0.1 * columns
    struck = picture.copy()
    struck[45:65, 65:195] = 1
    below = replace(BOX, corners=tuple((row + 34, column) for row, column in BOX.corners))
    struck[80:100, 65:195] = 0

    assert np.abs(fill(struck, [BOX, below]) - picture).max() < 0.05


class Stubborn:
    """Sees one legible word in whatever it is shown from the given call on."""

    def __init__(self, first: int) -> None:
        self.calls, self.first = 0, first

    def find(self, pixels: np.ndarray) -> list[TextBox]:
        self.calls += 1
        return [BOX] if self.calls > self.first else []


def test_text_that_stays_is_held():
    with pytest.raises(ImageHeld, match=STAYED[0]):
        remove_text(smooth_picture(), Stubborn(0))


def radiograph(pixels: np.ndarray) -> Radiograph:
    return Radiograph(pixels, None, "0" * 64, SourceFormat.PNG, 8, None, HeaderFacts())


@pytest.fixture
def anonymizer(tiny_bundle: Path) -> Anonymizer:
    return Anonymizer.from_bundle(tiny_bundle, AnonymizerOptions(device="cpu"))


def test_text_in_a_result_is_held(anonymizer):
    anonymizer.text_detector = Stubborn(1)
    result = anonymizer.anonymize(radiograph(smooth_picture()), image_seed=1)

    assert result.held_reason == LEFT_IN_RESULT


def test_letters_of_the_source_change_no_result_beyond_their_place(anonymizer):
    """What is drawn depends on the place that is filled, and not on the words."""
    plain = smooth_picture()
    first, second = (lettered(plain, words)[0] for words in ("DOE JANE", "ROE JOHN"))
    boxes = anonymizer.text_detector.find(first)

    class Known:
        """Sees both texts in the same place."""

        def __init__(self) -> None:
            self.calls = 0

        def find(self, pixels: np.ndarray) -> list[TextBox]:
            self.calls += 1
            return boxes if self.calls == 1 else []

    results = []
    for picture in (first, second):
        anonymizer.text_detector = Known()
        results.append(anonymizer.anonymize(radiograph(picture), image_seed=1).pixels)
    assert np.array_equal(*results)


@pytest.mark.parametrize("choice", list(SideMarkers))
def test_markers_are_removed_or_redrawn_by_choice(tiny_bundle, choice):
    options = AnonymizerOptions(device="cpu", side_markers=choice)
    picture, _ = lettered(smooth_picture(), "L", size=40, place=(50, 440))
    result = Anonymizer.from_bundle(tiny_bundle, options).anonymize(radiograph(picture), 1)

    assert result.text.state is TextState.CHECKED
    assert len(result.text.markers) == 1
    assert result.text.redrawn == (choice is SideMarkers.REDRAW)


def test_words_are_told_nowhere(detector, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    picture, _ = lettered(smooth_picture())
    boxes = detector.find(picture)
    out, err = capfd.readouterr()

    told = repr(boxes) + caplog.text + out + err
    assert boxes
    assert not [word for word in WORDS.split() if word in told]


def test_boxes_are_drawn_on_the_original_alone(tmp_path):
    picture = smooth_picture()
    write_review_pictures(tmp_path, "a", picture, picture, [BOX])
    write_review_pictures(tmp_path, "b", picture, picture)

    def content(name: str) -> np.ndarray:
        return np.asarray(Image.open(tmp_path / name).convert("RGB"))

    assert not np.array_equal(content("a-original.png"), content("b-original.png"))
    for kind in ("anonymized", "difference"):
        assert np.array_equal(content(f"a-{kind}.png"), content(f"b-{kind}.png"))


def anonymize_one(out: Path, bundle: Path, *flags: str) -> Result:
    """Run the command on one picture with words."""
    source = out.with_name("Doe_Jane.png")
    Image.fromarray(to_8_bit(lettered(smooth_picture())[0])).save(source)
    command = ["anonymize", str(source), "-o", str(out), "--model", str(bundle), *flags]
    return CliRunner().invoke(app, command)


@pytest.mark.parametrize(
    ("flags", "status", "code"),
    [([], "held", 1), (["--accept-unchecked-text"], "released", 0)],
)
def test_missing_detector_holds_every_image_unless_that_is_accepted(
    tmp_path, tiny_bundle, monkeypatch, flags, status, code
):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    out = tmp_path / "out"
    done = anonymize_one(out, tiny_bundle, *flags)
    (row,) = read_crosswalk(out / "private" / "crosswalk.csv")
    report = json.loads((out / "release" / "report.json").read_text())
    recorded = json.loads((out / "private" / "run.json").read_text())

    assert done.exit_code == code
    assert row["status"] == status
    assert ("the text detector does not load" in row["reason"]) == (status == "held")
    assert (
        recorded["accept_unchecked_text"] == report["run"]["accept_unchecked_text"] == bool(flags)
    )
    assert [told["text"] for told in report["images"] + report["not_released"]] == ["not checked"]


def test_release_tells_of_text_by_counts_alone(tmp_path, tiny_bundle):
    out = tmp_path / "out"
    done = anonymize_one(out, tiny_bundle)
    (image,) = json.loads((out / "release" / "report.json").read_text())["images"]
    review = (out / "private" / "review.html").read_text()

    assert (image["text"], image["text_boxes"], image["markers_redrawn"]) == ("checked", 1, 0)
    assert "places filled: 1" in review
    written = [p.read_bytes() for p in out.rglob("*") if p.suffix in {".json", ".jsonl", ".html"}]
    assert not any(b"DOE" in content for content in [*written, done.output.encode()])
