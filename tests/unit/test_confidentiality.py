"""The Basic Profile over the whole of Table E.1-1, and what each option keeps."""

from __future__ import annotations

import functools
import importlib
import json
from collections import Counter
from datetime import date, timedelta
from io import BytesIO

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from privdiff_infer.dicom.confidentiality import ConfidentialityProfile, Option
from privdiff_infer.dicom.profile_table import (
    BASIC_PROFILE,
    MEANINGS,
    Action,
    attribute_types,
    table_rows,
)
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import ImageRejected, OptionError
from tests.conftest import SHARED
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp
from tests.unit.marked_header import (
    MARKER,
    file_of,
    marked_dataset,
    markers,
    nested,
    planted,
    survivors,
)

KEY = b"a key for tests, which is no secret"
PSEUDONYMS = Pseudonyms(KEY)
BASIC = ConfidentialityProfile(PSEUDONYMS)

CR = "1.2.840.10008.5.1.4.1.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
SC = "1.2.840.10008.5.1.4.1.1.7"
CT = "1.2.840.10008.5.1.4.1.1.2"

SIMPLE_ROWS = {int(row.tag, 16): row for row in table_rows() if not row.is_pattern}


def read(content: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(content))


def header(**attributes: object) -> Dataset:
    return radiograph_dataset(ramp(shape=(16, 16)), **attributes)


def deidentified(dataset: Dataset, *options: Option) -> Dataset:
    profile = ConfidentialityProfile(PSEUDONYMS, options)
    return profile.deidentify(dataset, pixels_checked=True)


def survivors_alone(row_markers, depth):
    """Return the rows whose marker survives as the only one of a file."""
    found = []
    for marker in row_markers:
        dataset = header()
        dataset.update(nested(planted([marker]), depth))
        content = file_of(BASIC.deidentify(dataset, pixels_checked=True))
        if (marker.token is not None and marker.token in content) or MARKER.encode() in content:
            found.append(marker.row)
    return found


# The table


def test_table_has_the_rows_of_the_2026c_edition():
    counts = Counter(row.action.value for row in table_rows())
    assert counts == {
        "X": 416, "D": 93, "U": 55, "Z": 42, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "Z/D": 6,
        "X/Z/U*": 2,
    }  # fmt: skip
    assert len(table_rows()) == len({row.tag for row in table_rows()}) == 656


def test_option_columns_have_their_entries():
    counts = Counter(
        (option.name, does.value) for row in table_rows() for option, does in row.options.items()
    )
    assert counts == {
        ("RETAIN_FULL_DATES", "K"): 165,
        ("RETAIN_MODIFIED_DATES", "C"): 165,
        ("RETAIN_UIDS", "K"): 59,
        ("RETAIN_DEVICE_IDENTITY", "K"): 46,
        ("RETAIN_DEVICE_IDENTITY", "C"): 11,
        ("RETAIN_PATIENT_CHARACTERISTICS", "K"): 9,
        ("RETAIN_PATIENT_CHARACTERISTICS", "C"): 4,
        ("RETAIN_INSTITUTION_IDENTITY", "K"): 10,
        ("CLEAN_DESCRIPTORS", "C"): 125,
        ("CLEAN_STRUCTURED_CONTENT", "C"): 3,
        ("CLEAN_GRAPHICS", "C"): 4,
        ("RETAIN_SAFE_PRIVATE", "C"): 1,
    }


@pytest.mark.shared
def test_table_agrees_with_the_published_edition():
    published = json.loads(
        (SHARED / "standard" / "confidentiality_profile_attributes.json").read_text()
    )
    columns = {
        "rtnSafePrivOpt": "113111", "rtnUIDsOpt": "113110", "rtnDevIdOpt": "113109",
        "rtnInstIdOpt": "113112", "rtnPatCharsOpt": "113108", "rtnLongFullDatesOpt": "113106",
        "rtnLongModifDatesOpt": "113107", "cleanDescOpt": "113105",
        "cleanStructContOpt": "113104", "cleanGraphOpt": "113103",
    }  # fmt: skip
    ours = {
        row.tag: (row.action.value, {o.value: a.value for o, a in row.options.items()})
        for row in table_rows()
    }
    assert len(published) == 621
    for record in published:
        tag = "private" if "odd" in record["id"] else record["id"]
        tag = tag if "x" in tag or tag == "private" else tag.upper()
        options = {code: record[name] for name, code in columns.items() if name in record}
        assert ours[tag] == (record["basicProfile"], options)


def test_rows_agree_with_the_lists_of_dicom_anonymizer():
    lists = importlib.import_module(
        "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"
    )
    theirs = {
        (tag[0] << 16) + tag[1]: name.removesuffix("_TAGS")
        for name in dir(lists)
        if name.endswith("_TAGS") and name != "ALL_TAGS"
        for tag in getattr(lists, name)
        if len(tag) == 2
    }
    ours = {
        tag: row.action.value.replace("*", "_STAR").replace("/", "_")
        for tag, row in SIMPLE_ROWS.items()
    }
    assert ours == theirs


def test_codes_are_those_of_the_standard():
    theirs = {code.value: code.meaning for code in codes.cid7050.concepts.values()}
    assert theirs == MEANINGS
    assert {option.value for option in Option} | {BASIC_PROFILE} == set(MEANINGS)


# The Basic Profile


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize("sop_class", [CR, DX, SC, CT])
def test_no_marker_survives_anywhere(sop_class, syntax):
    content = file_of(marked_dataset(sop_class, syntax))

    result = BASIC.deidentify(read(content), pixels_checked=True)
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian

    assert survivors(file_of(result)) == []
    assert MARKER not in str(result)


def test_markers_are_in_the_file_before():
    content = file_of(marked_dataset(CR))
    expected = sum(marker.token is not None for depth in range(4) for marker in markers(depth))
    assert len(survivors(content)) == expected > 2500


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_no_row_alone_survives(depth):
    found = markers(depth)
    rows = {marker.row for marker in found}
    absent = {row.tag for row in table_rows()} - rows
    assert absent == {"00001000", "00001001", "00020003", "FFFAFFFA"}

    assert survivors_alone(found, depth) == []


@pytest.mark.parametrize("tag", [0x00001000, 0x00001001, 0x00020003, 0xFFFAFFFA, 0x00080000])
def test_commands_and_delimiters_are_not_kept_from_memory(tag):
    dataset, item = Dataset(), Dataset()
    dataset[tag] = item[tag] = DataElement(tag, "LO", MARKER)
    dataset.AnatomicRegionSequence = [item]

    assert MARKER not in str(BASIC.deidentify(dataset, pixels_checked=True))


def test_short_numbers_do_not_survive():
    dataset = header()
    for marker in markers(0):
        if marker.token is None:
            dataset[marker.element.tag] = marker.element

    result = BASIC.deidentify(dataset, pixels_checked=True)

    numbers = [m.element for m in markers(0) if m.token is None]
    assert numbers
    assert [e.tag for e in numbers if e.tag in result and result[e.tag].value == e.value] == []


def test_file_meta_information_and_preamble_are_our_own():
    result = BASIC.deidentify(read(file_of(marked_dataset(DX))), pixels_checked=True)
    content = file_of(result)

    meta = read(content).file_meta
    assert content[:128] == bytes(128)
    assert meta.MediaStorageSOPInstanceUID == result.SOPInstanceUID
    assert meta.MediaStorageSOPClassUID == DX
    assert set(meta.keys()) == {
        0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013,
    }  # fmt: skip


def test_the_source_is_left_as_it_was():
    dataset = marked_dataset(CR)
    before = file_of(dataset)

    result = BASIC.deidentify(dataset, pixels_checked=True)
    result.PixelSpacing[0] = 9
    result.Rows = 3

    assert file_of(dataset) == before


@pytest.mark.parametrize("sop_class", [CR, DX, SC])
def test_attributes_of_type_1_and_2_are_still_there(sop_class):
    dataset = marked_dataset(sop_class)
    result = read(file_of(BASIC.deidentify(dataset, pixels_checked=True)))

    for place, kind in attribute_types(sop_class).items():
        if len(place) > 1:
            continue
        if kind in ("1", "1C"):
            assert result[place[0]].value, place
        elif kind in ("2", "2C"):
            assert place[0] in result
        else:
            assert place[0] not in result or SIMPLE_ROWS[place[0]].action.value[0] != "X"


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_unknown_iods_get_what_fits_every_type(depth):
    result = BASIC.deidentify(marked_dataset(CT), pixels_checked=True)
    item = result if depth == 0 else _item_at(result, depth)
    marked = {marker.element.tag for marker in markers(depth)}
    for tag, row in SIMPLE_ROWS.items():
        if tag not in marked or not dictionary_has_tag(tag):
            continue
        if row.action is Action.REMOVE:
            assert tag not in item
        elif "D" in row.action.value or row.action is Action.NEW_UID:
            assert item[tag].value not in (None, "", [])
        else:
            assert tag in item


def _item_at(dataset: Dataset, depth: int) -> Dataset:
    outermost = (0x00082218, 0x00540220, 0x00082228)[depth - 1]
    item = dataset[outermost].value[0]
    for tag in (0x00082218, 0x00540220)[: depth - 1][::-1]:
        item = item[tag].value[0]
    return item


def test_dummies_have_the_vr_of_the_attribute():
    result = BASIC.deidentify(marked_dataset(CT), pixels_checked=True)
    again = read(file_of(result))
    for element in again:
        allowed = dictionary_VR(element.tag).split(" or ")
        assert element.VR in allowed


def test_deidentifying_twice_keeps_the_shape():
    once = BASIC.deidentify(marked_dataset(DX), pixels_checked=True)
    twice = BASIC.deidentify(read(file_of(once)), pixels_checked=True)

    assert sorted(twice.keys()) == sorted(once.keys())
    assert twice.SOPInstanceUID != once.SOPInstanceUID


def test_dicom_anonymizer_agrees_on_every_action_without_choice():
    from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions

    theirs, source = marked_dataset(CT), marked_dataset(CT)
    rules = functools.partial(initialize_actions, "dicomfields_2026c")
    anonymize_dataset(theirs, base_rules_gen=rules)
    ours = BASIC.deidentify(source, pixels_checked=True)

    for tag, row in SIMPLE_ROWS.items():
        if tag not in source or (tag not in theirs and row.action is not Action.REMOVE):
            continue
        if row.action is Action.REMOVE:
            assert tag not in ours
            assert tag not in theirs or theirs[tag].value != source[tag].value  # dates of year 1
        elif row.action in (Action.DUMMY, Action.NEW_UID):
            assert ours[tag].VR == theirs[tag].VR
            assert ours[tag].value != source[tag].value


# What is written of what was done


def test_the_method_says_what_was_done():
    options = (Option.RETAIN_DEVICE_IDENTITY, Option.CLEAN_PIXEL_DATA)
    result = deidentified(header(), *options)

    assert result.PatientIdentityRemoved == "YES"
    assert result.LongitudinalTemporalInformationModified == "REMOVED"
    method = [item.CodeValue for item in result.DeidentificationMethodCodeSequence]
    assert method == ["113100", "113101", "113109"]
    assert "RecognizableVisualFeatures" not in result
    assert "BurnedInAnnotation" not in result


def test_unchecked_pixels_are_not_called_clean():
    profile = ConfidentialityProfile(PSEUDONYMS, [Option.CLEAN_PIXEL_DATA])
    result = profile.deidentify(header(BurnedInAnnotation="YES"), pixels_checked=False)

    assert result.PatientIdentityRemoved == "NO"
    assert [item.CodeValue for item in result.DeidentificationMethodCodeSequence] == ["113100"]
    assert result.BurnedInAnnotation == "YES"


def test_visual_features_are_stated_only_if_asked_for():
    result = deidentified(header(), Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES)
    assert result.RecognizableVisualFeatures == "NO"


# Options


def shown(dataset: Dataset) -> dict[int, str]:
    """Return attributes but those that tell of the method."""
    method = (0x00120062, 0x00120063, 0x00120064, 0x00280303, 0x00280302)
    return {int(e.tag): str(e.value) for e in dataset if e.tag not in method}


@pytest.mark.parametrize(
    "option", [option for option in Option if option.name.startswith("RETAIN")]
)
@pytest.mark.parametrize("sop_class", [CR, CT])
def test_retaining_keeps_exactly_what_its_column_says(option, sop_class):
    source = marked_dataset(sop_class)
    basic = shown(BASIC.deidentify(source, pixels_checked=True))
    result = deidentified(source, option)

    retained = shown(result)
    changed = {tag for tag in SIMPLE_ROWS if basic.get(tag) != retained.get(tag)}
    kept = {tag for tag, row in SIMPLE_ROWS.items() if option in row.options and tag in source}
    # What the dictionary does not know has no VR in the file, AE titles and words are free text.
    kept = {
        tag for tag in kept
        if option not in (Option.RETAIN_DEVICE_IDENTITY, Option.RETAIN_PATIENT_CHARACTERISTICS)
        or SIMPLE_ROWS[tag].options[option] is Action.KEEP
    }  # fmt: skip
    if option is Option.RETAIN_MODIFIED_DATES:
        kept = {tag for tag in kept if source[tag].VR in ("DA", "DT", "TM")}
    assert changed == kept
    for tag in kept:
        if SIMPLE_ROWS[tag].options[option] is Action.KEEP and source[tag].VR != "SQ":
            assert result[tag].value == source[tag].value


@pytest.mark.parametrize("depth", [1, 3])
def test_retained_attributes_are_retained_in_sequences(depth):
    item = Dataset()
    item.ManufacturerModelName = "Model 7"
    item.DeviceSerialNumber = "4711"
    dataset = header()
    dataset.update(nested(item, depth))

    result = deidentified(dataset, Option.RETAIN_DEVICE_IDENTITY)

    assert _item_at(result, depth).DeviceSerialNumber == "4711"
    assert _item_at(result, depth).ManufacturerModelName == "Model 7"


def test_sequences_that_are_kept_are_cleaned_inside():
    item = Dataset()
    item.InstitutionName, item.PatientName = "General", "Doe^Jane"
    item.CodeMeaning = "Radiology"
    dataset = header(InstitutionalDepartmentTypeCodeSequence=Sequence([item]))

    kept = deidentified(dataset, Option.RETAIN_INSTITUTION_IDENTITY)

    kept_item = kept.InstitutionalDepartmentTypeCodeSequence[0]
    assert kept_item.CodeMeaning == "Radiology"
    assert kept_item.InstitutionName == "General"
    assert "Doe" not in str(kept)


def test_both_options_for_dates_cannot_be_had():
    with pytest.raises(OptionError, match="exclude each other"):
        ConfidentialityProfile(PSEUDONYMS, [Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES])


@given(
    st.dates(date(1920, 1, 1), date(2100, 1, 1)),
    st.dates(date(1920, 1, 1), date(2100, 1, 1)),
    st.sampled_from(["", "+0100", "-1130"]),
)
def test_intervals_between_dates_are_kept(first, second, zone):
    item = Dataset()
    item.DateTime = f"{second:%Y%m%d}235959.999999{zone}"
    dataset = header(StudyDate=f"{first:%Y%m%d}", StudyTime="120000.5")
    dataset.AnatomicRegionSequence = [item]

    result = deidentified(dataset, Option.RETAIN_MODIFIED_DATES)

    study = date.fromisoformat(_dashed(result.StudyDate))
    moved = result.AnatomicRegionSequence[0].DateTime
    assert date.fromisoformat(_dashed(moved)) - study == second - first
    assert moved[8:] == f"235959.999999{zone}"
    assert timedelta(days=1) <= first - study <= timedelta(days=3650)
    assert result.StudyTime == "120000.5"
    assert result.LongitudinalTemporalInformationModified == "MODIFIED"


def _dashed(value: str) -> str:
    return f"{value[:4]}-{value[4:6]}-{value[6:8]}"


@pytest.mark.parametrize(
    "bad", ["20241301", "2024", "DOE JANE", "20240101-20240301", "2024.01.01", "00010101"]
)
def test_malformed_dates_go(bad):
    dataset = header()
    with pydicom.config.disable_value_validation():
        dataset.add_new(0x00080020, "DA", bad)
        dataset.add_new(0x0008002A, "DT", f"{bad}DOE")
        dataset.add_new(0x00080030, "TM", "DOE JANE")

    result = deidentified(dataset, Option.RETAIN_MODIFIED_DATES)

    assert not result.StudyDate and not result.StudyTime
    assert "AcquisitionDateTime" not in result


def test_a_moved_date_wins_over_an_option_that_would_keep_it():
    dataset = header(CalibrationDateTime="20240101120000", DateOfLastDetectorCalibration="20240102")
    result = deidentified(dataset, Option.RETAIN_MODIFIED_DATES, Option.RETAIN_DEVICE_IDENTITY)
    shift = PSEUDONYMS.date_shift("PHI-4711")
    assert result.DateOfLastDetectorCalibration == f"{date(2024, 1, 2) + shift:%Y%m%d}"


def test_descriptors_are_kept_as_codes_of_public_schemes():
    pneumonia, local = Dataset(), Dataset()
    pneumonia.CodeValue, pneumonia.CodingSchemeDesignator = "363358000", "SCT"
    pneumonia.CodeMeaning = "Lung cancer of Jane Doe"
    local.CodeValue, local.CodingSchemeDesignator, local.CodeMeaning = "1", "99LOCAL", "Jane Doe"
    dataset = header(
        StudyDescription="Chest of Jane Doe",
        AdmittingDiagnosesCodeSequence=Sequence([pneumonia, local]),
    )

    result = deidentified(dataset, Option.CLEAN_DESCRIPTORS)

    (code,) = result.AdmittingDiagnosesCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("363358000", "SCT")
    assert "Jane" not in str(result) and "StudyDescription" not in result


def content_item(kind: str, name: tuple[str, str], **attributes: object) -> Dataset:
    item, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator = name
    code.CodeMeaning = "of Jane Doe"
    item.RelationshipType, item.ValueType = "CONTAINS", kind
    item.ConceptNameCodeSequence = [code]
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def test_structured_content_is_kept_as_codes_and_numbers():
    unit, measured = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "mm", "UCUM", "Jane Doe"
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "12", [unit]
    length = content_item("NUM", ("410668003", "SCT"), MeasuredValueSequence=[measured])
    text = content_item("TEXT", ("121071", "DCM"), TextValue="Jane Doe coughs")
    person = content_item("PNAME", ("121008", "DCM"), PersonName="Doe^Jane")
    age = content_item("NUM", ("121033", "DCM"), MeasuredValueSequence=[measured])
    group = content_item("CONTAINER", ("126000", "DCM"), ContentSequence=[length, text])
    dataset = header(ContentSequence=Sequence([group, text, person, age]))

    result = deidentified(dataset, Option.CLEAN_STRUCTURED_CONTENT)

    (kept,) = result.ContentSequence
    (number,) = kept.ContentSequence
    assert number.MeasuredValueSequence[0].NumericValue == 12
    assert kept.ConceptNameCodeSequence[0].CodeMeaning == "Imaging Measurement Report"
    assert "Doe" not in str(result)


def test_graphics_are_kept_as_shapes_that_are_no_letters():
    point, line, note, annotation = Dataset(), Dataset(), Dataset(), Dataset()
    point.GraphicType, point.GraphicData, line.GraphicType = "POINT", [1.0, 2.0], "POLYLINE"
    note.UnformattedTextValue = "Doe^Jane"
    annotation.GraphicObjectSequence = [point, line]
    annotation.TextObjectSequence = [note]
    dataset = header(GraphicAnnotationSequence=Sequence([annotation]))
    dataset.add_new(0x60003000, "OW", b"JANE")

    result = deidentified(dataset, Option.CLEAN_GRAPHICS)

    (kept,) = result.GraphicAnnotationSequence
    assert [shape.GraphicType for shape in kept.GraphicObjectSequence] == ["POINT"]
    assert "Doe" not in str(result) and 0x60003000 not in result


def test_known_safe_private_attributes_are_kept_if_asked_for():
    dataset = header()
    known = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    known.add_new(0x00, "DS", "1.5")
    known.add_new(0x05, "LO", "Doe^Jane")
    dataset.private_block(0x7053, "Doe^Jane", create=True).add_new(0x09, "DS", "7")

    result = deidentified(dataset, Option.RETAIN_SAFE_PRIVATE)

    assert [(e.tag, e.value) for e in result if e.tag.is_private] == [
        (0x70530010, "Philips PET Private Group"),
        (0x70531000, 1.5),
    ]
    assert not any(e.tag.is_private for e in BASIC.deidentify(dataset, pixels_checked=True))


# UIDs and patients


def test_a_uid_becomes_the_same_one_everywhere():
    uid, reference = "1.2.3.4.5.6.7", Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CR, uid
    text = Dataset()
    text.CodeMeaning = "see 1.2.3.4.5.6.7 of 1.2"
    dataset = header(StudyInstanceUID=uid, FrameOfReferenceUID=uid, TargetFrameOfReferenceUID=uid)
    dataset.ReferencedInstanceSequence = [reference]
    dataset.AnatomicRegionSequence = [text]

    result = BASIC.deidentify(dataset, pixels_checked=True)

    new = PSEUDONYMS.uid(uid)
    assert result.StudyInstanceUID == result.FrameOfReferenceUID == new
    assert result.TargetFrameOfReferenceUID == new  # the table does not list it
    assert result.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == new
    assert result.ReferencedInstanceSequence[0].ReferencedSOPClassUID == CR
    assert result.AnatomicRegionSequence[0].CodeMeaning == f"see {new} of 1.2"
    assert uid.encode() not in file_of(result)


def test_versions_of_software_are_no_uids():
    dataset = header(SoftwareVersions=["1.2.3.4.5", "VB 2.0.1.23"])
    result = BASIC.deidentify(dataset, pixels_checked=True)
    assert result.SoftwareVersions == ["1.2.3.4.5", "VB 2.0.1.23"]


def test_retained_uids_are_uids():
    dataset = header(StudyInstanceUID="1.2.3")
    with pydicom.config.disable_value_validation():
        dataset.SeriesInstanceUID = "1.2.DOE"

    result = deidentified(dataset, Option.RETAIN_UIDS)

    assert result.StudyInstanceUID == "1.2.3"
    assert result.SeriesInstanceUID == PSEUDONYMS.uid("1.2.DOE")


def test_patients_keep_apart():
    one, other = (deidentified(header(PatientID=name)) for name in ("1", "2"))
    assert one.PatientID == one.PatientName == PSEUDONYMS.patient_id("1")
    assert one.PatientID != other.PatientID


def test_patients_without_id_are_told_apart_by_study():
    one, other = (
        deidentified(header(PatientID="", StudyInstanceUID=uid)) for uid in ("1.2.3", "1.2.4")
    )
    assert one.PatientID and other.PatientID and one.PatientID != other.PatientID


# Hard values


def test_attributes_that_nothing_knows_go_unparsed():
    dataset = header()
    dataset.add_new(0x00181FFF, "UN", b"Doe^Jane")
    dataset.add_new(0x0010FFFE, "LO", "Doe^Jane")
    dataset.add_new(0x00280010, "LT", "Doe^Jane")  # Rows, with another VR

    content = file_of(BASIC.deidentify(dataset, pixels_checked=True))

    assert b"Doe" not in content


def test_malformed_values_go_and_the_rest_stays():
    content = bytearray(file_of(header(PatientWeight="70", SliceThickness="7.125")))
    content[content.index(b"7.125")] = ord("D")

    result = BASIC.deidentify(read(bytes(content)), pixels_checked=True)

    assert "SliceThickness" not in result
    assert result.Rows == 16


def test_text_of_other_character_sets_becomes_utf_8():
    item = Dataset()
    item.CodeMeaning = "Röntgen"
    dataset = header(SpecificCharacterSet="ISO_IR 100", AnatomicRegionSequence=Sequence([item]))
    content = file_of(dataset)
    assert "Röntgen".encode("latin-1") in content

    result = file_of(BASIC.deidentify(read(content), pixels_checked=True))

    assert read(result).SpecificCharacterSet == "ISO_IR 192"
    assert "Röntgen".encode() in result


def test_several_values_and_empty_ones():
    dataset = header(OtherPatientIDs=["1", "2"], PhysiciansOfRecord=["A^B", "C^D"])
    dataset.OperatorsName, dataset.StudyID, dataset.ImageType = None, "", ["ORIGINAL", "PRIMARY"]

    result = BASIC.deidentify(dataset, pixels_checked=True)

    assert "OtherPatientIDs" not in result and "OperatorsName" not in result
    assert result.StudyID in ("", None)
    assert result.ImageType == ["ORIGINAL", "PRIMARY"]


def test_big_endian_stays_big_endian():
    dataset = header()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    buffer = BytesIO()
    bare = Dataset(dataset)
    bare.file_meta = dataset.file_meta
    bare.save_as(buffer, enforce_file_format=True)

    result = file_of(BASIC.deidentify(read(buffer.getvalue()), pixels_checked=True))

    assert read(result).file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    assert read(result).Rows == 16


def test_files_without_meta_information_get_one():
    dataset = pydicom.dcmread(BytesIO(dicom_bytes(header(), preamble=False)), force=True)
    content = file_of(BASIC.deidentify(dataset, pixels_checked=True))
    assert read(content).Rows == 16


def test_sequences_nested_too_deep_are_refused():
    item = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.AnatomicRegionSequence = [item]
        item = outer
    with pytest.raises(ImageRejected, match="nested more than"):
        BASIC.deidentify(item, pixels_checked=True)
