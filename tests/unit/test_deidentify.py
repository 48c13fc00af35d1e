"""`privdiff deidentify`: any DICOM file becomes a clean one or a row with a reason."""

from __future__ import annotations

import csv
import json
import random
import zipfile
from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.uid import JPEGBaseline8Bit
from typer.testing import CliRunner

from privdiff_infer.cli import app
from privdiff_infer.commands.options import EXIT_DONE, EXIT_INCOMPLETE
from privdiff_infer.deidentify import Deidentifier
from privdiff_infer.dicom.burned_in import has_pixels
from privdiff_infer.dicom.confidentiality import ConfidentialityProfile
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import ImageError, ImageHeld, ImageRejected, OptionError
from tests.unit.dicom_factory import dicom_bytes, encapsulated, radiograph_dataset, ramp
from tests.unit.marked_header import MARKER, file_of, marked_dataset

PROFILE = ConfidentialityProfile(Pseudonyms(b"a key for tests, which is no secret"))
UNSEARCHED = Deidentifier(PROFILE, None, accept_unchecked_text=True)

SR = "1.2.840.10008.5.1.4.1.1.88.11"
MUTATIONS = 1000


def report_bytes() -> bytes:
    """Return an object without pixels."""
    dataset = marked_dataset(SR)
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(dataset, keyword)
    return file_of(dataset)


def everything_below(folder):
    return b"".join(
        str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    )


def test_command_cleans_files_and_gives_every_one_a_row(tmp_path):
    source, out = tmp_path / "Doe_Jane", tmp_path / "out"
    source.mkdir()
    (source / "Doe_1.dcm").write_bytes(report_bytes())
    (source / "Doe_2.dcm").write_bytes(dicom_bytes(radiograph_dataset(ramp())))
    (source / "Doe.txt").write_text("Doe^Jane")
    command = ["deidentify", str(source), "-o", str(out), "--accept-unchecked-text", "--json"]

    result = CliRunner().invoke(app, command)

    assert result.exit_code == EXIT_INCOMPLETE, result.output
    assert json.loads(result.stdout)["counts"] == {"released": 2, "held": 0, "failed": 1}
    with (out / "private" / "crosswalk.csv").open(newline="") as file:
        rows = {row["source"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    assert rows["Doe.txt"]["reason"] == "this is no DICOM file; name DICOM files only"
    released = everything_below(out / "release")
    for telling in (
        b"Doe",
        b"PHI-4711",
        MARKER.encode(),
        rows["Doe_1.dcm"]["sop_instance_uid"].encode(),
    ):
        assert telling not in released
    assert pydicom.dcmread(out / rows["Doe_1.dcm"]["output"]).PatientIdentityRemoved == "YES"
    assert CliRunner().invoke(app, ["verify", str(out)]).exit_code == EXIT_DONE

    again = CliRunner().invoke(app, [*command, "--resume"])
    assert json.loads(again.stdout)["counts"] == {"released": 2, "held": 0, "failed": 1}
    other = CliRunner().invoke(app, [*command, "--resume", "--retain", "uids"])
    assert other.exit_code != EXIT_DONE


@pytest.mark.parametrize(
    "options",
    [
        ["--retain", "full-dates", "--retain", "modified-dates"],
        ["--clean", "recognizable-visual-features"],
    ],
)
def test_options_that_cannot_be_kept_make_no_folder(tmp_path, options):
    source, out = tmp_path / "1.dcm", tmp_path / "out"
    source.write_bytes(report_bytes())
    result = CliRunner().invoke(app, ["deidentify", str(source), "-o", str(out), *options])
    assert isinstance(result.exception, OptionError) and not out.exists()


def test_images_are_held_where_text_cannot_be_looked_for():
    content = dicom_bytes(radiograph_dataset(ramp()))
    with pytest.raises(ImageHeld, match="detector does not load"):
        Deidentifier(PROFILE, None).deidentify(content)

    result = UNSEARCHED.deidentify(content)
    assert not result.text_checked
    assert pydicom.dcmread(BytesIO(result.content)).PatientIdentityRemoved == "NO"


def test_pixels_without_text_step_are_the_same_bytes():
    picture = BytesIO()
    Image.fromarray((ramp(8)).astype(np.uint8)).save(picture, "JPEG")
    dataset = radiograph_dataset(ramp(8).astype(np.uint8), 8)
    content = dicom_bytes(encapsulated(dataset, picture.getvalue(), JPEGBaseline8Bit))

    result = pydicom.dcmread(BytesIO(UNSEARCHED.deidentify(content).content))

    assert result.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert result.PixelData == pydicom.dcmread(BytesIO(content)).PixelData


@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2", "RGB"])
def test_burned_in_text_is_filled(interpretation):
    burned_in_text = pytest.importorskip("privdiff_infer.burned_in_text")
    letters = Image.new("L", (480, 512))
    font = ImageFont.load_default(24)
    ImageDraw.Draw(letters).text((60, 60), "DOE JANE 12.03.1957", fill=255, font=font)
    strokes = np.asarray(letters) > 128
    plain = ramp(8, (512, 480)).astype(np.uint8)
    stored = plain.copy()
    stored[strokes] = 0 if interpretation == "MONOCHROME1" else 255
    extra = {"PhotometricInterpretation": interpretation}
    if interpretation == "RGB":
        plain, stored = (np.repeat(part[..., None], 3, axis=2) for part in (plain, stored))
        extra |= {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
    content = dicom_bytes(radiograph_dataset(stored, 8, **extra))

    result = Deidentifier(PROFILE, burned_in_text.RapidTextDetector()).deidentify(content)

    dataset = pydicom.dcmread(BytesIO(result.content))
    pixels = dataset.pixel_array
    assert result.text_checked and dataset.PatientIdentityRemoved == "YES"
    assert np.abs(pixels[strokes].astype(int) - plain[strokes]).mean() < 10
    assert np.array_equal(pixels[200:], stored[200:])
    assert dataset.PhotometricInterpretation == interpretation


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"SOPClassUID": None}, "names no SOP class"),
        ({"SOPInstanceUID": ""}, "names no SOP class"),
        ({"PixelData": None}, "pixels are missing"),
    ],
)
def test_what_is_no_whole_object_is_refused(attributes, reason):
    content = dicom_bytes(radiograph_dataset(ramp(), **attributes))
    with pytest.raises(ImageRejected, match=reason):
        UNSEARCHED.deidentify(content)


def test_directories_are_refused():
    dataset = radiograph_dataset(ramp())
    dataset.DirectoryRecordSequence = [Dataset()]
    with pytest.raises(ImageRejected, match="DICOMDIR"):
        UNSEARCHED.deidentify(dicom_bytes(dataset))


def deeply_nested(depth: int) -> bytes:
    """Return a file of sequences of undefined length in each other."""
    tag = b"\x08\x00\x18\x22"
    opening = tag + b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    whole = dicom_bytes(radiograph_dataset(ramp()))
    place = whole.index(b"\x10\x00\x10\x00PN")
    return whole[:place] + opening * depth + closing * depth + whole[place:]


@pytest.mark.parametrize("depth", [33, 100, 10_000])
def test_nesting_without_end_is_refused(depth):
    with pytest.raises(ImageRejected, match="nested"):
        UNSEARCHED.deidentify(deeply_nested(depth))


def test_nesting_as_in_reports_is_fine():
    assert UNSEARCHED.deidentify(deeply_nested(20)).content


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return a file with bytes changed, cut, doubled or made up."""
    kind = chance.randrange(5)
    if kind == 0:
        return chance.randbytes(chance.randrange(2000))
    if kind == 1:
        return content[: chance.randrange(len(content))]
    if kind == 2:
        return content[:132] + chance.randbytes(chance.randrange(500))
    changed = bytearray(content)
    start = chance.randrange(128, len(changed))
    if kind == 3:
        changed[start:start] = changed[start : start + chance.randrange(200)]
    for _ in range(chance.choice((1, 5, 50))):
        changed[chance.randrange(128, min(len(changed), 4000))] = chance.randrange(256)
    return bytes(changed)


def test_a_thousand_damaged_files_are_cleaned_or_refused():
    chance = random.Random(20261124)
    sources = [
        dicom_bytes(radiograph_dataset(ramp(shape=(16, 16)), StudyInstanceUID="1.2.3")),
        dicom_bytes(radiograph_dataset(ramp(shape=(16, 16))), preamble=False),
        file_of(marked_dataset("1.2.840.10008.5.1.4.1.1.7"))[:6000],
    ]
    cleaned, refused = 0, set()
    for _ in range(MUTATIONS):
        content = damaged(chance.choice(sources), chance)
        try:
            result = UNSEARCHED.deidentify(content)
        except ImageError as error:
            refused.add(error.problem)
        else:
            again = pydicom.dcmread(BytesIO(result.content))
            assert (again.PatientIdentityRemoved == "NO") == has_pixels(again)
            assert "PatientBirthDate" not in again or not again.PatientBirthDate
            cleaned += 1
    assert cleaned > 100 and len(refused) >= 3


def test_a_zip_file_is_no_dicom_file(tmp_path):
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ImageRejected, match="no DICOM file"):
        UNSEARCHED.deidentify(buffer.getvalue())
