"""Scenes that are closed and saved, volumes that are deleted, modules that are reloaded."""

from __future__ import annotations

import pytest
import qt
import slicer
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from tests.slicer.fixtures import MODULE
from tests.slicer.radiographs import addPixels
from tests.slicer.scripted import API, anonymize, job
from tests.unit.scripted_server import Reply


def test_closing_the_scene_ends_jobs_and_empties_the_table(ready, server):
    server.on(f"DELETE {API}/jobs/0f", job("cancelled"))
    server.on(f"GET {API}/jobs/0f", job("running"))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Redrawing")

    slicer.mrmlScene.Clear(0)

    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 0)
    ready.waitFor(lambda: any(request.method == "DELETE" for request in server.requests))
    ready.click("sampleButton")
    assert ready.ui.imagesTable.rowCount == 3


def test_deleting_a_volume_ends_its_job(ready, server):
    server.on(f"DELETE {API}/jobs/0f", job("cancelled"))
    server.on(f"GET {API}/jobs/0f", job("running"))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Redrawing")
    case = ready.panel.anonymizing.cases[0]

    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(case.volumeID))

    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 2)
    ready.waitFor(lambda: any(request.method == "DELETE" for request in server.requests))


def test_deleting_a_result_without_its_original_ends_its_case(ready, server):
    anonymize(ready, server)
    case = ready.panel.anonymizing.cases[0]
    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(case.volumeID))
    ready.waitFor(lambda: not case.volumeID)
    assert ready.ui.imagesTable.rowCount == 3

    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(case.resultID))

    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 2)


def test_result_outlives_the_removal_of_originals(ready, server):
    film = addPixels(shape=(256, 256))
    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 4)
    ready.check(3)
    ready.choose(3)
    anonymize(ready, server)
    case = ready.panel.anonymizing.cases[3]
    result = ready.panel.images.resultOf(case)

    ready.click("removeOriginalsButton")

    ready.waitFor(lambda: not case.volumeID)
    assert ready.panel.images.resultOf(case) is result and ready.states()[3] == "To review"
    roles = [node.GetAttribute("PrivDiff.Role") for node in volumes()]
    assert film not in volumes() and roles.count("anonymized") == 1 and "difference" not in roles
    composite = ready.application.layoutManager().sliceWidget("CXRAnon").sliceLogic()
    assert composite.GetSliceCompositeNode().GetBackgroundVolumeID() == case.resultID
    server.on(f"POST {API}/jobs/0f/review", job("approved"))
    ready.click("approveButton")
    ready.waitFor(lambda: ready.states()[3] == "Approved")


def test_box_of_an_image_without_its_original_says_why_it_cannot_be_checked(ready, server):
    anonymize(ready, server)
    case = ready.panel.anonymizing.cases[0]
    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(case.volumeID))
    ready.waitFor(lambda: not case.volumeID)
    ready.waitFor(lambda: not ready.ui.anonymizeButton.enabled)

    item = ready.ui.imagesTable.item(0, 0)

    assert "The original was removed from the scene" in item.toolTip()
    assert not item.flags() & qt.Qt.ItemIsUserCheckable
    assert item.checkState() == qt.Qt.Unchecked
    place = ready.ui.imagesTable.visualItemRect(item).center()
    place.setX(ready.ui.imagesTable.visualItemRect(item).left() + 9)
    QTest.mouseClick(ready.ui.imagesTable.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert item.checkState() == qt.Qt.Unchecked
    ready.click("checkButton")
    assert ready.ui.anonymizeButton.text == "Anonymize (2)"
    assert ready.ui.checkButton.text == "Uncheck all"


def test_deleting_an_original_ends_the_run_that_it_was_sent_for(ready, server):
    anonymize(ready, server)
    case = ready.panel.anonymizing.cases[0]
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued", id="1f")]}, 201))
    server.on(f"GET {API}/jobs/1f", job("running", id="1f"))
    server.on(f"DELETE {API}/jobs/1f", job("cancelled", id="1f"))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Redrawing")

    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetNodeByID(case.volumeID))

    ready.waitFor(lambda: ready.states()[0] == "Cancelled")


def test_originals_are_not_removed_while_images_are_redrawn(ready, server):
    addPixels()
    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 4)
    server.on(f"GET {API}/jobs/0f", job("running"))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: ready.states()[0] == "Redrawing")

    assert not ready.ui.removeOriginalsButton.enabled
    assert "being redrawn" in ready.ui.removeOriginalsButton.toolTip


def volumes():
    return slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", slicer.mrmlScene)


def test_reload_of_the_module_stops_everything_and_keeps_the_settings(ready, server):
    ready.pick("profileBox", "fast")
    ready.pick("modelBox", "n 2")
    ready.pick("targetBox", "A DICOMweb store of my own")
    ready.tick("rememberBox")
    server.on(f"POST {API}/jobs", Reply({"jobs": [job("queued")]}, 201, silence=0.5))
    ready.click("anonymizeButton")

    ready.application.close(ready.widget)
    again = ready.application.open(MODULE)

    panel = again.panel
    assert panel.settings.servers[0] == server.url and panel.settings.profile == "fast"
    assert panel.settings.mayReceive(server.url)
    assert again.panel._ui.targetBox.currentText == "A DICOMweb store of my own"
    panel.connection.connect(server.url, "")
    ready.application.waitUntil(lambda: panel.connection.isConnected)
    panel.refresh()
    assert panel._ui.modelBox.currentText == "n 2" and panel._ui.profileBox.currentText == "fast"
    kept = " ".join(str(qt_value) for qt_value in stored(ready.application))
    assert "token" not in kept
    ready.application.close(again)
    ready.widget.panel = None


def stored(application) -> list[object]:
    settings = application.userSettings()
    return [settings.value(key) for key in settings.allKeys()]


@pytest.mark.parametrize("name", ["scene.mrml", "scene.mrb", "folder"])
def test_saving_a_scene_with_originals_warns(ready, caplog, tmp_path, name):
    path = tmp_path / name
    assert slicer.util.saveScene(str(path)) and path.exists()
    assert "original images" not in caplog.text
    addPixels()

    assert slicer.util.saveScene(str(path))

    assert "holds 1 original images" in caplog.text


class qSlicerSaveDataDialogPrivate(qt.QDialog):
    """The dialog of Slicer in which the user chooses what to save."""


@pytest.fixture
def dialog(application):
    found = qSlicerSaveDataDialogPrivate(application.window)
    found.setModal(True)
    yield found
    found.close()


def warnings(caplog, words: str) -> int:
    return caplog.text.count(words)


def test_warning_comes_before_a_scene_is_saved(ready, caplog, tmp_path, dialog):
    addPixels()
    dialog.show()

    ready.waitFor(lambda: "what you save will hold them too" in caplog.text)

    assert slicer.util.saveScene(str(tmp_path / "scene.mrml"))
    assert warnings(caplog, "original images") == 1
    dialog.close()
    waitTicks(ready)
    dialog.show()
    ready.waitFor(lambda: warnings(caplog, "what you save will hold them too") == 2)


def test_nothing_is_said_of_other_dialogs_or_of_no_original(ready, caplog, dialog):
    dialog.show()
    waitTicks(ready)
    dialog.close()
    addPixels()
    other = qt.QDialog(ready.application.window)
    other.setModal(True)
    other.show()
    waitTicks(ready)
    other.close()

    assert "original images" not in caplog.text


def waitTicks(user) -> None:
    """Wait until the panel has looked around twice."""
    seen = []
    tick = user.panel.connection.tick
    user.panel._steps.append(lambda: seen.append(tick))
    user.waitFor(lambda: len(seen) > 2)
    user.panel._steps.pop()


def test_unloaded_module_does_not_warn(ready, caplog, tmp_path):
    addPixels()
    ready.application.close(ready.widget)

    assert slicer.util.saveScene(str(tmp_path / "scene.mrml"))

    assert "original images" not in caplog.text
