"""What is sent of a scene, and what becomes of what comes back, on the real MRML."""

from __future__ import annotations

import gzip
import hashlib
from io import BytesIO

import numpy as np
import pydicom
import pytest
import slicer
import vtk
from PIL import Image
from PrivDiffLib.Cases import Case
from PrivDiffLib.Decoding import addVolume
from PrivDiffLib.Nrrd import encodeNrrd
from PrivDiffLib.Originals import dicomRange, readOriginal
from PrivDiffLib.Patients import patientItems
from PrivDiffLib.privdiff_client import Download, OptionError, UnexpectedAnswer
from PrivDiffLib.Regions import Regions
from PrivDiffLib.Samples import addSamples
from PrivDiffLib.SceneImages import SceneImages, images, originals
from PySide6.QtCore import QTranslator

from tests.slicer.fixtures import MODULE
from tests.slicer.radiographs import Database, addDicom, addPixels, putUnderPatient
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp

WINDOW = {"WindowCenter": "1800", "WindowWidth": "2400"}


@pytest.fixture
def database():
    return Database()


def received(content: bytes) -> Download:
    return Download(content, hashlib.sha256(content).hexdigest(), "application/x")


def resultLike(stored: np.ndarray) -> bytes:
    """Return what the server makes of an image: 12 bits, MONOCHROME2, window of the whole range."""
    dataset = radiograph_dataset(
        stored, WindowCenter="2048", WindowWidth="4096", PatientName="Anon", PatientID="a1"
    )
    return dicom_bytes(dataset)


def caseOf(volume, database, content: bytes) -> Case:
    case = Case("an image", volumeID=volume.GetID())
    case.original = readOriginal(volume, database)
    case.result = received(content)
    return case


def toRAS(volume) -> list[float]:
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return [matrix.GetElement(row, column) for row in range(4) for column in range(4)]


def pixels(volume) -> np.ndarray:
    return slicer.util.arrayFromVolume(volume)[0]


@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_original_dicom_file_is_what_is_sent(scene, database, tmp_path, interpretation):
    volume, content = addDicom(database, tmp_path, PhotometricInterpretation=interpretation)

    original = readOriginal(volume, database)

    assert original.upload.read_bytes() == content


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"RescaleSlope": 2, "RescaleIntercept": -1000},
        {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": 2, "RescaleIntercept": -100},
        {"VOILUTFunction": "LINEAR_EXACT"},
    ],
)
def test_display_range_is_that_of_the_grayscale_pipeline(scene, database, tmp_path, attributes):
    volume, content = addDicom(database, tmp_path, **WINDOW, **attributes)

    low, high = dicomRange(BytesIO(content))

    dataset = pydicom.dcmread(BytesIO(content))
    values = dataset.pixel_array * float(dataset.get("RescaleSlope", 1))
    values = values + float(dataset.get("RescaleIntercept", 0))
    exact = "VOILUTFunction" in dataset
    grey = (values - 1800) / 2400 if exact else (values - 1799.5) / 2399
    grey = np.clip(grey + 0.5, 0, 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
    assert np.abs(np.clip((pixels(volume) - low) / (high - low), 0, 1) - grey).max() < 1e-4


@pytest.mark.parametrize(
    "attributes",
    [{}, {"WindowCenter": "100", "WindowWidth": "0"}, {"WindowCenter": "100", "WindowWidth": None}],
)
def test_file_without_a_window_is_read_by_its_pixels(scene, database, tmp_path, attributes):
    volume, content = addDicom(database, tmp_path, **attributes)

    assert dicomRange(BytesIO(content)) is None
    assert readOriginal(volume, database).displayRange == (0, 4095)


def test_file_that_left_the_database_is_named(scene, database, tmp_path):
    volume, _ = addDicom(database, tmp_path)
    database.files.clear()

    with pytest.raises(OptionError, match="import it again"):
        readOriginal(volume, database)


def test_volume_of_several_files_is_refused(scene, database, tmp_path):
    volume, _ = addDicom(database, tmp_path)
    volume.SetAttribute("DICOM.instanceUIDs", "1.2 1.3")

    with pytest.raises(OptionError, match="one radiograph at a time"):
        readOriginal(volume, database)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_pixels_alone_are_sent_of_other_images(scene, database, dtype):
    volume = addPixels("Doe Jane", dtype)

    original = readOriginal(volume, database)

    header, _, body = original.file().partition(b"\n\n")
    assert header.startswith(b"NRRD0004") and b"Doe" not in header and b"sizes: 70 90" in header
    sent = np.frombuffer(gzip.decompress(body), dtype)
    assert (sent.reshape(90, 70) == pixels(volume)).all()


def test_pixels_of_a_type_that_the_server_does_not_read_are_sent_as_float(scene, database):
    volume = addPixels()
    cast = vtk.vtkImageCast()
    cast.SetInputData(volume.GetImageData())
    cast.SetOutputScalarType(vtk.VTK_LONG)
    cast.Update()
    volume.SetAndObserveImageData(cast.GetOutput())

    assert b"type: float\n" in readOriginal(volume, database).file()


def test_image_that_lies_on_its_side_is_refused(scene, database):
    volume = addPixels()
    volume.SetIJKToRASDirections(0, -1, 0, -1, 0, 0, 0, 0, 1)

    with pytest.raises(OptionError, match="orientation"):
        readOriginal(volume, database)


def test_image_that_stands_on_its_head_is_turned_both_ways(scene, database):
    volume = addPixels()
    volume.SetIJKToRASDirections(
        1, 0, 0, 0, 0, 1, 0, 1, 0
    )  # coronal, seen from behind, rows upwards
    case = caseOf(volume, database, b"")
    sent, _ = addVolume(case.original.file(), "sent")
    case.result = received(case.original.file())

    result = SceneImages(scene).addResult(case)

    assert (pixels(sent) == pixels(volume)[::-1, ::-1]).all()
    assert (pixels(result) == pixels(volume)).all() and toRAS(result) == toRAS(volume)


@pytest.mark.parametrize("shape", [(1, 1), (90, 70)])
def test_only_single_grey_images_are_listed(scene, shape):
    film = addPixels()
    stack = addPixels("stack")
    slicer.util.updateVolumeFromArray(stack, np.zeros((3, 9, 9)))
    dot = addPixels("dot")
    slicer.util.updateVolumeFromArray(dot, np.zeros((1, 1, 1)))
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")

    assert images(scene) == [film]


def test_pixels_shown_are_the_received_ones(scene, database, tmp_path):
    volume, _ = addDicom(database, tmp_path)
    received = ramp()[::-1, ::-1].copy()
    case = caseOf(volume, database, resultLike(received))

    result = SceneImages(scene).addResult(case)

    assert (pixels(result) == received).all()
    assert toRAS(result) == toRAS(volume)
    assert result.GetStorageNode() is None


def test_nothing_of_the_patient_goes_over_to_the_result(scene, database, tmp_path):
    volume, _ = addDicom(database, tmp_path)
    case = caseOf(volume, database, resultLike(ramp()))

    result = SceneImages(scene).addResult(case)

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(result)
    study = hierarchy.GetItemParent(item)
    subject = hierarchy.GetItemParent(study)
    originalStudy = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(volume))
    assert study != originalStudy and subject != hierarchy.GetItemParent(originalStudy)
    assert hierarchy.GetItemName(subject) == result.GetName() == f"Anonymized {case.key}"
    assert not [name for name in result.GetAttributeNames() if name.startswith("DICOM")]
    assert set(hierarchy.GetItemAttributeNames(subject)) == {"Level"}


def test_saved_scene_without_originals_holds_no_patient(scene, database, tmp_path):
    volume, _ = addDicom(database, tmp_path, name="Doe CHEST")
    case = caseOf(volume, database, resultLike(ramp()))
    kept = SceneImages(scene)
    kept.addResult(case)
    kept.differenceOf(case)
    path = tmp_path / "scene.mrml"
    scene.SetURL(str(path))
    scene.Commit()
    assert "Doe" in path.read_text()

    removed = kept.removeOriginals()
    scene.Commit()

    assert removed == 1 and originals(scene) == []
    text = path.read_text()
    assert not [word for word in ("Doe", "PHI", "1.2.826") if word in text]
    assert f"Anonymized {case.key}" in text and text.count("<Volume\n") == 1


def test_what_else_lay_below_a_patient_stays_without_its_name(scene, database, tmp_path):
    volume, _ = addDicom(database, tmp_path)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    drawn = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    drawn.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    study = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(volume))
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(drawn), study)
    stack = addPixels("2: CT")
    slicer.util.updateVolumeFromArray(stack, np.zeros((3, 9, 9)))
    putUnderPatient(stack)
    assert len(patientItems(scene)) == 4

    SceneImages(scene).removeOriginals()

    assert patientItems(scene) == [] and scene.GetNodeByID(volume.GetID()) is None
    for kept in (drawn, stack):
        item = hierarchy.GetItemByDataNode(kept)
        assert item and hierarchy.GetItemParent(item) == hierarchy.GetSceneItemID()
    path = tmp_path / "scene.mrml"
    scene.SetURL(str(path))
    scene.Commit()
    assert not [word for word in ("Doe", "PHI", "1999") if word in path.read_text()]


def test_originals_are_single_images_of_any_file_but_samples(scene, database, tmp_path):
    film, (radiograph, _) = addPixels(), addDicom(database, tmp_path)
    stack = addPixels("2: CT")
    slicer.util.updateVolumeFromArray(stack, np.zeros((3, 9, 9)))
    stack.SetAttribute("DICOM.instanceUIDs", "1.2 1.3 1.4")
    samples = addSamples(str(MODULE.parent / "Resources" / "Samples"))
    kept = SceneImages(scene)
    kept.addResult(caseOf(film, database, resultLike(ramp())))

    assert originals(scene) == [film, radiograph] and len(samples) == 3
    assert kept.removeOriginals() == 2
    assert set(images(scene)) == set(samples) and scene.GetNodeByID(stack.GetID()) is stack


def test_names_of_nodes_are_translated(application, scene, database, tmp_path):
    class Brackets(QTranslator):
        def translate(self, context, text, disambiguation=None, count=-1):
            return f"[{text}]"

    brackets = Brackets()
    application.qt.installTranslator(brackets)
    try:
        samples = addSamples(str(MODULE.parent / "Resources" / "Samples"))
        case = caseOf(samples[0], database, b"")
        case.result = received(case.original.file())
        kept = SceneImages(scene)
        made = [kept.addResult(case), kept.differenceOf(case), kept.checkerboardOf(case)]
    finally:
        application.qt.removeTranslator(brackets)

    names = [node.GetName() for node in [*samples, *made]]
    assert names[:3] == ["[Sample 1]", "[Sample 2]", "[Sample 3]"]
    assert names[3:] == [f"[Anonymized {case.key}]", "[Difference]", "[Checkerboard]"]


def test_a_new_result_takes_the_place_of_the_old(scene, database, tmp_path):
    volume, _ = addDicom(database, tmp_path)
    case = caseOf(volume, database, resultLike(ramp()))
    kept = SceneImages(scene)
    kept.addResult(case)
    kept.differenceOf(case), kept.checkerboardOf(case)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    nodes, items = scene.GetNumberOfNodes(), hierarchy.GetNumberOfItems()

    kept.addResult(case)
    kept.differenceOf(case), kept.checkerboardOf(case)

    assert scene.GetNumberOfNodes() == nodes and hierarchy.GetNumberOfItems() == items


def test_window_of_the_original_shows_the_same_greys(scene, database, tmp_path):
    window = {"WindowCenter": "1800", "WindowWidth": "2400"}
    volume, content = addDicom(
        database, tmp_path, PhotometricInterpretation="MONOCHROME1", **window
    )
    low, high = dicomRange(BytesIO(content))
    grey = np.clip((pixels(volume) - low) / (high - low), 0, 1)
    case = caseOf(volume, database, resultLike(np.round(grey * 4095).astype(np.uint16)))
    kept = SceneImages(scene)
    result = kept.addResult(case)

    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevel(900, 2000)
    kept.copyWindow(case)

    shown = []
    for node in (volume, result):
        display = node.GetDisplayNode()
        display.UpdateImageDataPipeline()
        bottom = display.GetLevel() - display.GetWindow() / 2
        shown.append(np.clip((pixels(node) - bottom) / display.GetWindow(), 0, 1))
        assert not display.GetAutoWindowLevel()
    assert np.abs(shown[0] - shown[1]).max() < 0.002


def test_identical_images_have_no_difference(scene, database, tmp_path):
    window = {"WindowCenter": "1800", "WindowWidth": "2400"}
    volume, content = addDicom(
        database, tmp_path, PhotometricInterpretation="MONOCHROME1", **window
    )
    low, high = dicomRange(BytesIO(content))
    grey = np.clip((pixels(volume) - low) / (high - low), 0, 1)
    brighter = grey.copy()
    brighter[:40] = np.clip(grey[:40] + 0.25, 0, 1)
    case = caseOf(volume, database, resultLike(np.round(brighter * 4095).astype(np.uint16)))
    kept = SceneImages(scene)
    kept.addResult(case)

    found = kept.differenceOf(case)

    assert np.abs(pixels(found) - (brighter - grey)).max() < 0.001
    assert found.GetDisplayNode().GetLevel() == 0 and not found.GetSaveWithScene()
    colours = found.GetDisplayNode().GetColorNode().GetLookupTable()
    blue, middle, orange = (colours.GetTableValue(index) for index in (0, 128, 255))
    assert blue[2] > blue[0] and orange[0] > orange[2] and max(middle[:3]) < 0.1


def test_checkerboard_shows_both_in_turn(scene, database, tmp_path):
    volume, _ = addDicom(database, tmp_path, stored=np.full((96, 80), 4095, np.uint16))
    case = caseOf(volume, database, resultLike(np.zeros((96, 80), np.uint16)))
    case.original = type(case.original)(case.original.upload, (0.0, 4095.0))
    kept = SceneImages(scene)
    kept.addResult(case)

    found = pixels(kept.checkerboardOf(case))

    assert [found[0, 0], found[0, 12], found[12, 0], found[12, 12]] == [1, 0, 0, 1]


def test_result_of_another_matrix_covers_the_same_extent(scene, database, tmp_path):
    volume, _ = addDicom(database, tmp_path, ImagerPixelSpacing=[0.4, 0.2])
    case = caseOf(volume, database, resultLike(ramp(shape=(48, 20))))

    result = SceneImages(scene).addResult(case)

    bounds = [[0.0] * 6, [0.0] * 6]
    volume.GetRASBounds(bounds[0]), result.GetRASBounds(bounds[1])
    assert bounds[0] == pytest.approx(bounds[1], abs=1e-6)


def test_image_of_the_queue_comes_with_its_picture(scene):
    buffer = BytesIO()
    Image.fromarray(ramp(8).astype(np.uint8)).save(buffer, "PNG")
    case = Case(
        "Queue 0f", picture=buffer.getvalue(), result=received(encodeNrrd(ramp() / 4095, (1, 1)))
    )
    kept = SceneImages(scene)

    result = kept.addResult(case)

    original = kept.originalOf(case)
    assert (pixels(original) == ramp(8)).all() and images(scene) == []
    assert toRAS(result) == toRAS(original) and originals(scene) == [original]
    assert np.abs(pixels(kept.differenceOf(case))).max() < 0.01


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n", b"NRRD0004\n\n"])
def test_what_is_no_image_is_refused(scene, content):
    with pytest.raises(UnexpectedAnswer, match="no image"):
        addVolume(content, "x")

    assert slicer.util.getNodesByClass("vtkMRMLVolumeNode", scene) == []


def test_regions_must_be_looked_at_again_after_a_new_result(scene):
    case, regions = Case("an image"), Regions(scene)
    first = regions.drawRectangle(case, addPixels())
    regions.add(case, first)

    assert regions.unseen(case) == [first]
    regions.noteSeen(case, first)
    assert regions.unseen(case) == []
    first.SetCenter(1, 2, 3)
    assert regions.unseen(case) == [first]
    regions.noteSeen(case, first)
    regions.forgetSeen(case)
    assert regions.unseen(case) == [first]
    scene.RemoveNode(first)
    assert regions.of(case) == []
