"""Derived objects under the eyes of others: dciodvfy, DCMTK, SimpleITK; and on real files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom import DataElement, Dataset
from pydicom.uid import (
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    SecondaryCaptureImageStorage,
)

from privdiff_infer.burned_in_text import TextState
from privdiff_infer.dicom.derived import encode_dicom, stored_values
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.image_files import encode_image
from privdiff_infer.radiograph import read_radiograph
from tests.conftest import SHARED, write_picture
from tests.unit.derived_factory import (
    captured,
    computed,
    derive,
    digital,
    read,
    result_of,
)
from tests.unit.dicom_factory import ramp


def needs(tool: str, package: str) -> pytest.MarkDecorator:
    """Skip a test where a program of another package is absent."""
    absent = shutil.which(tool) is None
    return pytest.mark.skipif(absent, reason=f"{tool} of Debian's {package} is not installed")


NEWER_THAN_THE_VALIDATOR = "not a recognized standard attribute - (0x0008,0x001c)"
"""SyntheticData is newer than Debian's dciodvfy of 2022."""

SOURCES = {
    "dx": digital,
    "dx-monochrome1": lambda: digital(
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE",
        PixelIntensityRelationshipSign=1,
    ),
    "dx-for-processing": lambda: digital(
        SOPClassUID=DigitalXRayImageStorageForProcessing,
        PresentationIntentType="FOR PROCESSING",
    ),
    "dx-calibrated": lambda: digital(
        PixelSpacing=[0.4, 0.4],
        PixelSpacingCalibrationType="GEOMETRY",
        PixelSpacingCalibrationDescription="by magnification",
    ),
    "dx-lossy": lambda: digital(
        LossyImageCompression="01",
        LossyImageCompressionRatio=12,
        LossyImageCompressionMethod="ISO_10918_1",
    ),
    "dx-without-spacing": lambda: digital(ImagerPixelSpacing=None),
    "dx-of-required-attributes-alone": lambda: digital(
        AnatomicRegionSequence=None,
        ViewCodeSequence=None,
        DetectorType=None,
        AcquisitionContextSequence=None,
        PixelIntensityRelationship=None,
        PixelIntensityRelationshipSign=None,
        ImageLaterality=None,
        BurnedInAnnotation=None,
    ),
    "cr": computed,
    "cr-10-bit": lambda: computed(BitsStored=10, HighBit=9, PixelData=ramp(10).tobytes()),
    "cr-without-spacing": lambda: computed(PixelSpacing=None),
    "cr-bare": lambda: computed(
        StudyInstanceUID=None,
        SeriesInstanceUID=None,
        StudyDate=None,
        StudyTime=None,
        PatientID=None,
        PatientName=None,
        PatientBirthDate=None,
        BodyPartExamined=None,
        ViewPosition=None,
        Manufacturer=None,
        ImageType=None,
        SeriesNumber=None,
    ),
    "sc": captured,
    "sc-without-body-part": lambda: captured(BodyPartExamined=None),
}


@pytest.fixture(params=[*SOURCES, "png"])
def source(request, tmp_path):
    if request.param == "png":
        write_picture(tmp_path / "a.png", seed=0)
        return read_radiograph(tmp_path / "a.png")
    return read(SOURCES[request.param](), tmp_path)


def errors_of_validator(path: Path) -> list[str]:
    """Return the lines that dciodvfy calls errors, but for the one that is of its own age."""
    run = subprocess.run(["dciodvfy", str(path)], check=False, capture_output=True, text=True)
    lines = (run.stdout + run.stderr).splitlines()
    assert any(re.fullmatch("(CR|DX|SC)Image(ForPresentation)?", line) for line in lines), lines
    return [
        line for line in lines if line.startswith("Error") and NEWER_THAN_THE_VALIDATOR not in line
    ]


def rendered_by_dcmtk(path: Path) -> np.ndarray:
    picture = path.with_suffix(".dcmtk.png")
    command = ["dcm2pnm", "--use-window", "1", "--write-png", str(path), str(picture)]
    subprocess.run(command, check=True, capture_output=True)
    return np.asarray(Image.open(picture).convert("L"), np.int16)


@needs("dciodvfy", "dicom3tools")
@pytest.mark.parametrize("state", TextState)
def test_validator_finds_no_error(tmp_path, source, state):
    path = tmp_path / "derived.dcm"
    path.write_bytes(encode_dicom(derive(source, result_of(source, text_state=state))))
    assert errors_of_validator(path) == []


@needs("dcm2pnm", "dcmtk")
def test_dcmtk_shows_what_the_preview_shows(tmp_path, source):
    result = result_of(source, (96, 70))
    path, preview = tmp_path / "derived.dcm", tmp_path / "preview.png"
    path.write_bytes(encode_dicom(derive(source, result)))
    preview.write_bytes(encode_image(result.pixels, None, OutputFormat.PNG))

    shown = np.asarray(Image.open(preview), np.int16)
    assert np.abs(rendered_by_dcmtk(path) - shown).max() <= 1


@needs("dcmdump", "dcmtk")
def test_dcmtk_reads_every_element(tmp_path, source):
    path = tmp_path / "derived.dcm"
    path.write_bytes(encode_dicom(derive(source)))
    run = subprocess.run(
        ["dcmdump", "-q", "+L", str(path)], check=True, capture_output=True, text=True
    )
    assert run.stderr == ""
    assert "=LittleEndianExplicit" in run.stdout


def test_simpleitk_reads_the_stored_values_the_right_way_up(tmp_path, source):
    result = result_of(source, (96, 70))
    path = tmp_path / "derived.dcm"
    path.write_bytes(encode_dicom(derive(source, result)))

    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image)[0], stored_values(result.pixels))
    dataset = pydicom.dcmread(path)
    # GDCM takes the spacing at the detector for CR and DX, and for nothing else.
    is_captured = dataset.SOPClassUID == SecondaryCaptureImageStorage
    keyword = "PixelSpacing" if is_captured else "ImagerPixelSpacing"
    row, column = dataset.get(keyword) or (1, 1)
    assert image.GetSpacing()[:2] == pytest.approx((column, row), rel=1e-6)


def test_big_endian_source(tmp_path):
    source = computed(ExposureIndex=7, SingleCollimationWidth=1.5)
    source.PixelData = ramp().byteswap().tobytes()
    source.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / "source.dcm"
    pydicom.dcmwrite(path, source, implicit_vr=False, little_endian=False)
    radiograph = read_radiograph(path)

    dataset = derive(radiograph)
    path.write_bytes(encode_dicom(dataset))
    again = pydicom.dcmread(path)
    assert again.ExposureIndex == 7
    assert again.SingleCollimationWidth == 1.5
    np.testing.assert_array_equal(again.pixel_array, stored_values(result_of(radiograph).pixels))


CODED_OR_TECHNICAL = {
    # what the image is
    "SOPClassUID",
    "ImageType",
    "PhotometricInterpretation",
    "Modality",
    "ConversionType",
    "BodyPartExamined",
    "ViewPosition",
    "PatientOrientation",
    "LossyImageCompressionMethod",
    "DerivationCodeSequence",
    "CodeValue",
    "CodeMeaning",
    # the make of the device, and the exposure: Table E.1-1 does not list them
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "PlateType",
    "FilterType",
    "CollimatorGridName",
    "CassetteOrientation",
    "CassetteSize",
    "DistanceSourceToDetector",
    "ImageAndFluoroscopyAreaDoseProduct",
}


def texts(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Yield keyword and value of every text, at any depth."""
    for element in dataset.iterall():
        if isinstance(element, DataElement) and element.VR not in ("SQ", "OB", "OW", "UN"):
            values = element.value if element.VM > 1 else [element.value]
            yield from ((element.keyword, str(value).strip()) for value in values)


@pytest.mark.shared
@pytest.mark.slow
class TestRealFiles:
    @pytest.fixture(scope="class")
    def out(self, tmp_path_factory) -> Path:
        out = tmp_path_factory.mktemp("run") / "out"
        command = [sys.executable, "-m", "privdiff_infer", "anonymize", str(SHARED / "dicom")]
        command += [str(SHARED / "data" / "nih" / "00001280_004.jpg"), "--format", "dicom"]
        command += ["--profile", "fast", "--seed", "1", "-o", str(out)]
        subprocess.run(command, check=False, capture_output=True)
        return out

    @pytest.fixture(scope="class")
    def pairs(self, out: Path) -> list[tuple[Path, Path]]:
        lines = (out / "private" / "journal.jsonl").read_text().splitlines()
        rows = [json.loads(line)["row"] for line in lines]
        pairs = [(Path(row["source"]), out / row["output"]) for row in rows if row["output"]]
        assert len(pairs) >= 3
        return pairs

    def test_no_value_of_a_source_survives(self, pairs):
        for source, output in pairs:
            if source.suffix != ".dcm":
                continue
            before = pydicom.dcmread(source, stop_before_pixels=True)
            after = list(texts(pydicom.dcmread(output, stop_before_pixels=True)))
            for keyword, value in texts(before):
                if len(value) > 3 and keyword not in CODED_OR_TECHNICAL:
                    found = [name for name, text in after if value in text]
                    assert set(found) <= CODED_OR_TECHNICAL, (keyword, found)

    def test_names_of_files_do_not_survive(self, pairs):
        for source, output in pairs:
            assert source.stem.encode() not in output.read_bytes()

    @needs("dciodvfy", "dicom3tools")
    def test_validator_finds_no_error(self, pairs):
        assert [errors_of_validator(output) for _, output in pairs] == [[]] * len(pairs)

    @needs("dcm2pnm", "dcmtk")
    def test_dcmtk_shows_what_the_preview_shows(self, out, pairs, tmp_path):
        for _, output in pairs:
            preview = out / "release" / "previews" / f"{output.stem}.png"
            if preview.exists():
                copy = shutil.copy(output, tmp_path)
                shown = np.asarray(Image.open(preview), np.int16)
                assert np.abs(rendered_by_dcmtk(Path(copy)) - shown).max() <= 1

    def test_run_records_the_fingerprint_of_the_key(self, out):
        recorded = json.loads((out / "private" / "run.json").read_text())
        assert recorded["key_fingerprint"] == Pseudonyms.load().fingerprint
