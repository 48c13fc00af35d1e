"""Derived objects: what is written, what of the source stays, and what never does."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from privdiff_infer.burned_in_text import TextState
from privdiff_infer.dicom.confidentiality import Option
from privdiff_infer.dicom.derived import (
    LARGEST,
    encode_dicom,
    stored_values,
    without_burned_in_text,
)
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.radiograph import Radiograph, read_radiograph
from tests.conftest import write_picture
from tests.unit.derived_factory import (
    PSEUDONYMS,
    SOURCES,
    captured,
    computed,
    derive,
    digital,
    read,
    result_of,
)
from tests.unit.dicom_factory import encapsulated, lookup_table, radiograph_dataset, ramp


@pytest.fixture
def source(tmp_path: Path) -> Radiograph:
    return read(computed(), tmp_path)


@pytest.fixture
def picture(tmp_path: Path) -> Radiograph:
    write_picture(tmp_path / "Doe_Jane.png", seed=0)
    return read_radiograph(tmp_path / "Doe_Jane.png")


def read_back(dataset: Dataset, folder: Path) -> Radiograph:
    (folder / "derived.dcm").write_bytes(encode_dicom(dataset))
    return read_radiograph(folder / "derived.dcm")


class TestKind:
    @pytest.mark.parametrize("kind", SOURCES)
    def test_sop_class_stays(self, tmp_path, kind):
        dataset = derive(read(SOURCES[kind](), tmp_path))
        assert dataset.SOPClassUID == kind
        assert dataset.file_meta.MediaStorageSOPClassUID == kind
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID

    def test_dx_for_processing_becomes_for_presentation(self, tmp_path):
        raw = digital(
            SOPClassUID=DigitalXRayImageStorageForProcessing,
            PresentationIntentType="FOR PROCESSING",
        )
        dataset = derive(read(raw, tmp_path))
        assert dataset.SOPClassUID == DigitalXRayImageStorageForPresentation
        assert dataset.PresentationIntentType == "FOR PRESENTATION"

    @pytest.mark.parametrize("spacing", [None, [0, 0]])
    def test_dx_without_detector_spacing_becomes_secondary_capture(self, tmp_path, spacing):
        dataset = derive(read(digital(ImagerPixelSpacing=spacing), tmp_path))
        assert dataset.SOPClassUID == SecondaryCaptureImageStorage
        assert dataset.Modality == "DX"
        assert "PresentationIntentType" not in dataset

    def test_secondary_capture_keeps_its_modality_and_conversion(self, tmp_path):
        dataset = derive(read(captured(), tmp_path))
        assert (dataset.Modality, dataset.ConversionType) == ("CR", "WSD")

    def test_picture_becomes_secondary_capture(self, picture):
        dataset = derive(picture)
        assert dataset.SOPClassUID == SecondaryCaptureImageStorage
        assert (dataset.Modality, dataset.ConversionType) == ("OT", "SYN")
        assert dataset.PatientID == dataset.PatientName != ""
        assert (dataset["PatientBirthDate"].VM, dataset["PatientSex"].VM) == (0, 0)

    def test_geometry_and_view_stay(self, tmp_path):
        dataset = derive(read(digital(), tmp_path))
        assert dataset.PatientOrientation == ["L", "F"]
        assert dataset.ImageLaterality == "U"
        assert dataset.ViewPosition == "PA"
        assert dataset.BodyPartExamined == "CHEST"
        assert dataset.AnatomicRegionSequence[0].CodeValue == "51185008"
        assert dataset.ViewCodeSequence[0].CodeValue == "399348003"

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (["ORIGINAL", "PRIMARY"], ["DERIVED", "PRIMARY"]),
            (["DERIVED", "SECONDARY", "Doe"], ["DERIVED", "SECONDARY"]),
            ("ORIGINAL PRIMARY", ["DERIVED", "PRIMARY"]),
            (None, ["DERIVED", "PRIMARY"]),
        ],
    )
    def test_image_type(self, tmp_path, before, after):
        assert derive(read(computed(ImageType=before), tmp_path)).ImageType == after


class TestPixels:
    @pytest.mark.parametrize("shape", [(64, 64), (96, 70), (70, 133)])
    def test_file_shows_the_pixels_of_the_result(self, tmp_path, source, shape):
        result = result_of(source, shape)
        shown = read_back(derive(source, result), tmp_path)
        expected = np.round(result.pixels * np.float32(LARGEST))
        np.testing.assert_array_equal(shown.pixels, np.float32(expected / np.float64(LARGEST)))
        assert shown.spacing_mm == pytest.approx(result.spacing_mm)

    def test_stored_values_are_bit_for_bit_those_of_the_result(self, source):
        result = result_of(source)
        dataset = derive(source, result)
        np.testing.assert_array_equal(dataset.pixel_array, stored_values(result.pixels))
        assert (dataset.pixel_array.min(), dataset.pixel_array.max()) == (0, 4095)

    @given(st.floats(0, 1, width=32))
    def test_quantization_is_nearest(self, value):
        (stored,) = stored_values(np.array([value], np.float32))
        assert abs(int(stored) - value * LARGEST) <= 0.5 + 1e-3

    @pytest.mark.parametrize("bits", [8, 10, 15])
    def test_depth_of_the_source_does_not_matter(self, tmp_path, bits):
        stored = ramp(bits) if bits > 8 else ramp(bits).astype(np.uint8)
        dataset = derive(read(radiograph_dataset(stored, bits), tmp_path))
        depth = (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit)
        assert depth == (16, 12, 11)
        assert dataset.PixelRepresentation == 0

    def test_monochrome1_source_becomes_monochrome2(self, tmp_path):
        inverse = digital(
            PhotometricInterpretation="MONOCHROME1",
            PresentationLUTShape="INVERSE",
            PixelIntensityRelationship="LIN",
            PixelIntensityRelationshipSign=1,
        )
        dataset = derive(read(inverse, tmp_path))
        assert dataset.PhotometricInterpretation == "MONOCHROME2"
        assert dataset.PresentationLUTShape == "IDENTITY"
        assert dataset.PixelIntensityRelationship == "LIN"
        assert dataset.PixelIntensityRelationshipSign == -1

    def test_nothing_that_described_the_stored_values_of_the_source_stays(self, tmp_path):
        dataset = digital(
            VOILUTSequence=lookup_table(0, 16, np.arange(4096, dtype=np.uint16), 4096),
            WindowCenterWidthExplanation="DOE",
            VOILUTFunction="SIGMOID",
            PixelPaddingValue=0,
            PixelPaddingRangeLimit=3,
            SmallestImagePixelValue=7,
            LargestImagePixelValue=4000,
            ShutterShape="RECTANGULAR",
            ShutterLeftVerticalEdge=10,
            CollimatorShape="RECTANGULAR",
            CollimatorLeftVerticalEdge=11,
            HistogramSequence=[Dataset()],
            IconImageSequence=[Dataset()],
            PresentationLUTSequence=[Dataset()],
            AcquisitionDeviceProcessingCode="DOE",
            ProcessingFunction="DOE",
            InstanceCreationDate="20200101",
        )
        dataset.WindowCenter, dataset.WindowWidth = [1000, 500], [10, 20]
        dataset.add_new(0x60003000, "OW", b"\1" * 960)
        dataset.add_new(0x60000022, "LO", "DOE")
        derived = derive(read(dataset, tmp_path))

        gone = set(dataset.keys()) - set(derived.keys())
        names = {pydicom.datadict.keyword_for_tag(tag) for tag in gone}
        assert names >= {
            "VOILUTSequence",
            "WindowCenterWidthExplanation",
            "VOILUTFunction",
            "PixelPaddingValue",
            "PixelPaddingRangeLimit",
            "SmallestImagePixelValue",
            "LargestImagePixelValue",
            "ShutterShape",
            "ShutterLeftVerticalEdge",
            "CollimatorShape",
            "CollimatorLeftVerticalEdge",
            "HistogramSequence",
            "IconImageSequence",
            "PresentationLUTSequence",
            "AcquisitionDeviceProcessingCode",
            "ProcessingFunction",
            "InstanceCreationDate",
            "OverlayData",
            "OverlayDescription",
        }
        assert (derived.WindowCenter, derived.WindowWidth) == (2048, 4096)
        assert (derived.RescaleIntercept, derived.RescaleSlope, derived.RescaleType) == (0, 1, "US")

    @pytest.mark.parametrize(("stated", "kept"), [("00", "00"), ("01", "01"), (None, "00")])
    def test_lossy_compression_that_the_source_states_stays(self, tmp_path, stated, kept):
        lossy = computed()
        if stated:
            lossy.LossyImageCompression = stated
            lossy.LossyImageCompressionRatio = 12
        dataset = derive(read(lossy, tmp_path))
        assert dataset.LossyImageCompression == kept
        assert dataset.get("LossyImageCompressionRatio") == (12 if stated else None)

    def test_lossy_transfer_syntax_is_stated(self, tmp_path):
        stored = ramp(8).astype(np.uint8)
        buffer = BytesIO()
        Image.fromarray(stored).save(buffer, "JPEG")
        compressed = encapsulated(
            radiograph_dataset(stored, 8), buffer.getvalue(), JPEGBaseline8Bit
        )
        dataset = derive(read(compressed, tmp_path))
        assert dataset.LossyImageCompression == "01"
        assert dataset.LossyImageCompressionMethod == "ISO_10918_1"

    def test_jpeg_file_is_lossy_and_png_is_not(self, tmp_path, picture):
        Image.open(tmp_path / "Doe_Jane.png").save(tmp_path / "a.jpg")
        assert derive(read_radiograph(tmp_path / "a.jpg")).LossyImageCompression == "01"
        assert derive(picture).LossyImageCompression == "00"


class TestSpacing:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
    @given(
        st.tuples(st.integers(64, 300), st.integers(64, 300)),
        st.tuples(st.floats(0.05, 5), st.floats(0.05, 5)),
    )
    def test_physical_extent_stays(self, tmp_path, shape, spacing):
        row, column = (round(value, 6) for value in spacing)
        dataset = derived = digital(ImagerPixelSpacing=[row, column])
        source = read(dataset, tmp_path)
        derived = derive(source, result_of(source, shape))
        extent = [n * mm for n, mm in zip(shape, derived.ImagerPixelSpacing, strict=True)]
        assert extent == pytest.approx([96 * row, 80 * column], rel=1e-9)

    def test_every_spacing_keeps_its_meaning(self, tmp_path):
        calibrated = digital(
            PixelSpacing=[0.4, 0.4],
            PixelSpacingCalibrationType="GEOMETRY",
            PixelSpacingCalibrationDescription="by magnification",
            EstimatedRadiographicMagnificationFactor=1.25,
        )
        dataset = derive(read(calibrated, tmp_path))
        assert dataset.ImagerPixelSpacing == [1, 1]
        assert dataset.PixelSpacing == [0.8, 0.8]
        assert dataset.PixelSpacingCalibrationType == "GEOMETRY"
        assert dataset.EstimatedRadiographicMagnificationFactor == 1.25

    def test_spacing_of_zero_is_none(self, tmp_path):
        zero = computed(PixelSpacing=[0, 0], PixelSpacingCalibrationType="GEOMETRY")
        dataset = derive(read(zero, tmp_path))
        assert "PixelSpacing" not in dataset
        assert "PixelSpacingCalibrationType" not in dataset

    def test_no_spacing_is_invented(self, tmp_path):
        dataset = derive(read(computed(PixelSpacing=None), tmp_path))
        assert not {"PixelSpacing", "ImagerPixelSpacing"} & set(dataset.dir())


class TestIdentity:
    def test_equal_input_gives_equal_bytes(self, source):
        assert encode_dicom(derive(source)) == encode_dicom(derive(source))

    def test_other_pixels_never_share_a_uid(self, tmp_path, source):
        other_source = read(computed(SOPInstanceUID="1.2.3.4"), tmp_path)
        objects = [
            derive(source),
            derive(source, result_of(source, seed=1)),
            derive(source, result_of(source, (96, 80))),
            derive(source, image_seed=2),
            derive(source, strength=0.8),
            derive(source, num_inference_steps=50),
            derive(source, sha256="cd" * 32),
            derive(source, result_of(source, text_state=TextState.CHECKED)),
            derive(source, options=frozenset({Option.RETAIN_DEVICE_IDENTITY})),
            derive(source, pseudonyms=Pseudonyms(b"another key of tests, no secret.")),
            derive(other_source, result_of(source)),
        ]
        assert len({dataset.SOPInstanceUID for dataset in objects}) == len(objects)

    def test_one_series_of_the_source_and_one_set_of_parameters_make_one_series(
        self, tmp_path, source
    ):
        sibling = read(computed(SOPInstanceUID="1.2.3.4"), tmp_path)
        stranger = read(computed(SeriesInstanceUID="1.2.3.5"), tmp_path)
        series = derive(source).SeriesInstanceUID
        assert derive(sibling, image_seed=9).SeriesInstanceUID == series
        assert derive(stranger).SeriesInstanceUID != series
        assert derive(source, strength=0.8).SeriesInstanceUID != series
        assert series != PSEUDONYMS.uid("1.2.826.0.1.3680043.2")

    def test_study_and_patient_are_those_of_the_pseudonyms(self, source):
        dataset = derive(source)
        assert dataset.StudyInstanceUID == PSEUDONYMS.uid("1.2.826.0.1.3680043.1")
        assert dataset.PatientID == PSEUDONYMS.patient_id("PHI-4711")

    def test_sources_without_patient_or_study_are_not_all_one(self, tmp_path):
        bare = {"PatientID": None, "PatientName": None, "StudyInstanceUID": None}
        first, second = (
            derive(read(computed(SOPInstanceUID=uid, **bare), tmp_path)) for uid in ("1.2", "1.3")
        )
        assert first.PatientID != second.PatientID
        assert first.StudyInstanceUID != second.StudyInstanceUID

    def test_picture_is_its_own_patient_study_and_series(self, tmp_path, picture):
        write_picture(tmp_path / "other.png", seed=1)
        other = derive(read_radiograph(tmp_path / "other.png"))
        this = derive(picture)
        for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            assert this[keyword].value != other[keyword].value

    def test_hash_of_a_picture_does_not_leave_even_with_its_uids_retained(self, picture):
        content = encode_dicom(derive(picture, options=frozenset({Option.RETAIN_UIDS})))
        assert picture.digest.encode() not in content
        assert str(int(picture.digest[:32], 16)).encode() not in content

    def test_nothing_of_the_person_is_left(self, tmp_path):
        nested = Dataset()
        nested.PatientName = "Doe^Nested"
        named = computed(
            DerivationDescription="Doe",
            SeriesDescription="Doe",
            ImageComments="Doe",
            SourceImageSequence=[Dataset()],
            OtherPatientIDsSequence=Sequence([nested]),
        )
        named.private_block(0x0019, "ACME", create=True).add_new(1, "LO", "Doe")
        content = encode_dicom(derive(read(named, tmp_path)))
        for secret in (b"Doe", b"4711", b"House", b"1957", b"2020", b"1.2.826", b"ACME"):
            assert secret not in content

    def test_source_is_named_only_with_its_uids_retained(self, source):
        assert "SourceImageSequence" not in derive(source)
        dataset = derive(source, options=frozenset({Option.RETAIN_UIDS}))
        (item,) = dataset.SourceImageSequence
        assert item.ReferencedSOPInstanceUID == source.sop_instance_uid
        assert item.ReferencedSOPClassUID == ComputedRadiographyImageStorage
        assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert dataset.SOPInstanceUID != source.sop_instance_uid

    def test_a_radiograph_does_not_show_its_header(self, source):
        assert "Doe" not in repr(source)
        assert source.sop_instance_uid not in repr(source)
        assert "PixelData" not in source.dataset


class TestStatements:
    def test_derivation_names_the_model_and_how_it_was_run(self, source):
        result = replace(result_of(source), strength=0.9)
        dataset = derive(source, result)
        assert dataset.DerivationDescription == (
            "Redrawn by a latent diffusion model that suppresses what identifies: tiny 1.0, "
            "weights abababababababab, profile standard, strength 0.9, 20 steps"
        )
        assert dataset.SyntheticData == "YES"
        equipment = dataset.ContributingEquipmentSequence[-1]
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109104"
        assert equipment.ManufacturerModelName == "tiny"

    @pytest.mark.parametrize(
        ("state", "removed"), [(TextState.CHECKED, "YES"), (TextState.UNCHECKED, "NO")]
    )
    def test_identity_is_removed_only_if_text_was_looked_for(self, source, state, removed):
        dataset = derive(source, result_of(source, text_state=state))
        assert dataset.PatientIdentityRemoved == removed
        assert dataset.BurnedInAnnotation == "YES"

    def test_visual_features_are_claimed_by_choice_alone(self, tmp_path):
        source = read(computed(RecognizableVisualFeatures="NO"), tmp_path)
        assert "RecognizableVisualFeatures" not in derive(source)
        option = Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES
        claimed = derive(source, options=frozenset({option}))
        assert claimed.RecognizableVisualFeatures == "NO"
        codes = [item.CodeValue for item in claimed.DeidentificationMethodCodeSequence]
        assert "113102" in codes

    @pytest.mark.parametrize("kind", SOURCES)
    def test_persons_word_on_text_changes_one_element(self, tmp_path, kind):
        shown = encode_dicom(derive(read(SOURCES[kind](), tmp_path)))
        approved = without_burned_in_text(shown)

        before, after = (pydicom.dcmread(BytesIO(content)) for content in (shown, approved))
        changed = {
            tag
            for tag in before.keys() | after.keys()
            if before.get_item(tag).value != after.get_item(tag).value
        }
        assert [pydicom.datadict.keyword_for_tag(tag) for tag in changed] == ["BurnedInAnnotation"]
        assert (before.BurnedInAnnotation, after.BurnedInAnnotation) == ("YES", "NO")
        assert before.file_meta == after.file_meta
        assert before.PixelData == after.PixelData
        assert without_burned_in_text(approved) == approved
