"""What a DICOM header states of view, anatomy and age decides whether the image is held."""

from __future__ import annotations

import numpy as np
import pytest

from privdiff_infer.errors import ImageHeld
from privdiff_infer.radiograph import read_radiograph
from tests.conftest import SHARED
from tests.unit.dicom_factory import coded, dicom_bytes, radiograph_dataset, ramp

# Devices write such values all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")


@pytest.fixture
def read(tmp_path):
    def read_dataset(**attributes):
        stored = ramp(8).astype(np.uint8)
        dataset = radiograph_dataset(stored, 8, **attributes)
        (tmp_path / "file").write_bytes(dicom_bytes(dataset))
        return read_radiograph(tmp_path / "file")

    return read_dataset


class TestView:
    @pytest.mark.parametrize(
        "view",
        [
            *("AP", "PA", "pa", "P-A", "A.P.", "PA ", "FRONTAL"),
            *("AP SEMI-UPRIGHT", "AP PORTABLE", "PA CHEST", "AP_SUPINE", "PA VIEW 1"),
            *("POSTERO_ANTERIOR", "ANTERO_POSTERIOR", "Posteroanterior", "antero-posterior"),
            *("", "UNKNOWN", "N/A", "-"),
        ],
    )
    def test_frontal_or_not_stated(self, read, view):
        assert read(ViewPosition=view).pixels.shape

    @pytest.mark.parametrize(
        "view",
        [
            *("L", "LL", "RL", "LATERAL", "LATERAL LEFT", "LLO", "LLD", "OTHER", "ZZ"),
            *("OBLIQUE", "PA OBLIQUE", "RAO", "LPO", "AP LORDOTIC", "AP AXIAL", "AP DECUBITUS"),
            *("PA AND LATERAL", "PA\\LAT", "TANGENTIAL", "SAGITTAL"),
        ],
    )
    def test_any_other_stated_view_is_held(self, read, view):
        with pytest.raises(ImageHeld, match="not frontal") as caught:
            read(ViewPosition=view)
        assert view.split("\\")[0] in caught.value.detail
        assert caught.value.sop_instance_uid

    @pytest.mark.parametrize(
        ("code", "scheme", "meaning"),
        [
            ("272479007", "SCT", "postero-anterior"),
            ("399348003", "SCT", "antero-posterior"),
            ("R-10206", "SRT", ""),
            ("R-10214", "SNM3", "x"),
            ("V1", "99LOCAL", "Chest PA upright"),
        ],
    )
    def test_frontal_codes(self, read, code, scheme, meaning):
        assert read(ViewPosition=None, ViewCodeSequence=coded(code, scheme, meaning)).pixels.shape

    @pytest.mark.parametrize("position", [None, "", "PA"])
    @pytest.mark.parametrize(
        ("code", "scheme", "meaning"),
        [
            ("399173006", "SCT", "left lateral"),
            ("399173006", "SCT", ""),
            ("R-10236", "SRT", "left lateral"),
            ("399182000", "SCT", "oblique"),
            ("V2", "99LOCAL", "Chest lateral"),
        ],
    )
    def test_other_codes_are_held(self, read, position, code, scheme, meaning):
        with pytest.raises(ImageHeld, match="not frontal"):
            read(ViewPosition=position, ViewCodeSequence=coded(code, scheme, meaning))


class TestAnatomy:
    @pytest.mark.parametrize(
        "part",
        [
            *("CHEST", "Chest", "THORAX", "TORAX", "T\N{LATIN CAPITAL LETTER O WITH ACUTE}RAX"),
            *("LUNG", "RIB", "RIBS", "CHEST PA", "CHEST_PORTABLE", "Brustkorb/Thorax"),
            *("", "UNKNOWN", "N/A"),
        ],
    )
    def test_chest_or_not_stated(self, read, part):
        dataset = {"BodyPartExamined": part, "SpecificCharacterSet": "ISO_IR 192"}
        assert read(**dataset).pixels.shape

    @pytest.mark.parametrize(
        "part",
        [
            *("KNEE", "ABDOMEN", "SKULL", "HAND", "TSPINE", "THORACIC SPINE", "CHESTABDPELVIS"),
            *("NECKCHEST", "WHOLEBODY", "TRIBUNE", "OTHER"),
        ],
    )
    def test_other_parts_are_held(self, read, part):
        with pytest.raises(ImageHeld, match="other than the chest") as caught:
            read(BodyPartExamined=part)
        assert part in caught.value.detail
        assert part not in caught.value.problem

    @pytest.mark.parametrize(
        ("code", "scheme", "meaning"),
        [
            ("816094009", "SCT", "Chest"),
            ("51185008", "SCT", "Chest"),
            ("T-D3000", "SRT", ""),
            ("T-D3300", "SRT", "Mediastinum"),
            ("A1", "99LOCAL", "Thorax"),
        ],
    )
    def test_chest_codes(self, read, code, scheme, meaning):
        region = coded(code, scheme, meaning)
        assert read(BodyPartExamined=None, AnatomicRegionSequence=region).pixels.shape

    @pytest.mark.parametrize("part", [None, "CHEST"])
    @pytest.mark.parametrize(
        ("code", "scheme", "meaning"),
        [
            ("72696002", "SCT", "Knee"),
            ("72696002", "SCT", ""),
            ("T-D9200", "SRT", "Knee"),
            ("416550000", "SCT", "Chest and Abdomen"),
            ("122495006", "SCT", "Thoracic spine"),
        ],
    )
    def test_other_codes_are_held(self, read, part, code, scheme, meaning):
        with pytest.raises(ImageHeld, match="other than the chest"):
            read(BodyPartExamined=part, AnatomicRegionSequence=coded(code, scheme, meaning))


class TestAge:
    @pytest.mark.parametrize(
        ("stated", "years"),
        [
            *(("068Y", 68), ("68", 68), ("9", 9), ("12y", 12), (" 12 Y", 12), ("007Y", 7)),
            *(("018M", 1.5), ("6m", 0.5), ("026W", 26 / 52.18), ("100D", 100 / 365.25), ("0", 0)),
        ],
    )
    def test_stated(self, read, stated, years):
        assert read(PatientAge=stated).header.age_years == pytest.approx(years)

    @pytest.mark.parametrize(
        "dates",
        [
            {"StudyDate": "20200629"},
            {"StudyDate": "", "AcquisitionDate": "20200629", "SeriesDate": "20300101"},
            {"SeriesDate": "20200629", "ContentDate": "20300101"},
            {"ContentDate": "20200629"},
            {"StudyDate": "00010101", "ContentDate": "20200629"},
            {"StudyDate": "2020.06.29"},
        ],
    )
    @pytest.mark.parametrize("age", [None, "", "999Y", "??"])
    def test_between_birth_and_examination(self, read, dates, age):
        stated = {} if age is None else {"PatientAge": age}
        facts = read(PatientBirthDate="20100630", **dates, **stated).header
        assert facts.age_years == 9

    def test_stated_age_wins(self, read):
        facts = read(PatientAge="068Y", PatientBirthDate="19500101", StudyDate="19010101").header
        assert facts.age_years == 68

    @pytest.mark.parametrize(
        "attributes",
        [
            {},
            {"PatientAge": "", "PatientBirthDate": ""},
            {"PatientAge": "UNK", "PatientBirthDate": "00010101", "StudyDate": "00010101"},
            {"StudyDate": "20200629"},
        ],
    )
    def test_not_stated(self, read, attributes):
        assert read(**attributes).header.age_years is None

    @pytest.mark.parametrize(
        "attributes",
        [
            {"PatientAge": "9 J"},
            {"PatientAge": "999Y"},
            {"PatientAge": "abc", "PatientBirthDate": "00010101"},
            {"PatientBirthDate": "20100630"},
            {"PatientBirthDate": "20100630", "StudyDate": "20000101"},
            {"PatientBirthDate": "2010", "StudyDate": "20200101"},
        ],
    )
    def test_stated_and_not_understood_is_held(self, read, attributes):
        with pytest.raises(ImageHeld, match="cannot be understood") as caught:
            read(**attributes)
        assert all(value not in caught.value.problem for value in attributes.values())
        assert caught.value.sop_instance_uid


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "years"),
    [
        ("rsna_pneumonia_sample_ap_jpeg.dcm", 68),  # PatientAge without a unit
        ("nema_wg04_RG1_chest_pa_j2k.dcm", 64),
        ("gdcm_CR-MONO1-10-chest_explicit.dcm", None),
    ],
)
def test_real_headers(name, years):
    assert read_radiograph(SHARED / "dicom" / name).header.age_years == years
