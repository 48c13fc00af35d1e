"""The harness refuses what PythonQt and Slicer would refuse."""

from __future__ import annotations

import ctk
import pytest
import qt
import slicer

from tests.slicer.harness.uiloader import UiLoader

FORM = """<ui version="4.0"><class>Form</class>
<widget class="qMRMLWidget" name="Form"><layout class="QVBoxLayout">
<item><widget class="{widget}" name="child"/></item></layout></widget>
<connections>{connections}</connections></ui>"""

CONNECTION = """<connection><sender>Form</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
<receiver>{receiver}</receiver><slot>{slot}(vtkMRMLScene*)</slot></connection>"""


def load(application, tmp_path, widget="qMRMLNodeComboBox", connections=""):
    path = tmp_path / "form.ui"
    path.write_text(FORM.format(widget=widget, connections=connections))
    return slicer.util.loadUI(str(path))


def test_properties_are_attributes_and_no_methods(application):
    button = qt.QPushButton("a")

    button.text = "b"

    assert button.text == "b" and button.enabled
    with pytest.raises(TypeError):
        button.text()


def test_attributes_that_do_not_exist_are_refused(application):
    with pytest.raises(AttributeError):
        qt.QLabel().txet = "a"
    with pytest.raises(AttributeError):
        getattr(qt, "QNothing")  # noqa: B009 - the access is what is tested


def test_classes_of_our_own_may_have_attributes(application):
    class Mine(qt.QLabel):
        pass

    mine = Mine()
    mine.extra = 1

    assert mine.extra == 1


def test_signals_are_connected_by_signature(application):
    heard = []
    box = qt.QCheckBox()
    box.connect("toggled(bool)", heard.append)
    box.connect("clicked()", lambda: heard.append("clicked"))

    box.click()

    assert heard in ([True, "clicked"], ["clicked", True])
    box.disconnect("toggled(bool)", heard.append)
    for signature in ("toggled(QString)", "nothing()"):
        with pytest.raises(ValueError):
            box.connect(signature, print)


def test_signals_of_qt_in_python_are_refused(application):
    with pytest.raises(AttributeError):
        getattr(qt, "Signal")  # noqa: B009 - as above


@pytest.mark.parametrize("name", ["ctkNothing", "QNothing"])
def test_widgets_that_are_not_there_cannot_be_made(application, name):
    with pytest.raises((AttributeError, NotImplementedError)):
        UiLoader().createWidget(name)


def test_scene_reaches_a_selector_through_its_connection_alone(application, scene, tmp_path):
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "a")
    forms = [
        load(application, tmp_path),
        load(
            application,
            tmp_path,
            connections=CONNECTION.format(receiver="child", slot="setMRMLScene"),
        ),
    ]

    for form in forms:
        form.setMRMLScene(scene)
        child = slicer.util.findChild(form, "child")
        child.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        if child._scene is not None:
            child.setMRMLScene(scene)

    assert [slicer.util.findChild(form, "child")._box.count() for form in forms] == [0, 2]


@pytest.mark.parametrize(
    ("receiver", "slot"), [("nobody", "setMRMLScene"), ("child", "setNothing")]
)
def test_connections_that_lead_nowhere_are_refused(application, tmp_path, receiver, slot):
    with pytest.raises(ValueError):
        load(application, tmp_path, connections=CONNECTION.format(receiver=receiver, slot=slot))


def test_popups_do_not_stop_a_test(application):
    assert slicer.util.confirmOkCancelDisplay("Really?") in (True, False)


def test_sections_fold(application):
    section = ctk.ctkCollapsibleButton()
    child = qt.QLabel("a", section)
    section.show()

    section.collapsed = True
    assert not child.visible
    section.collapsed = False
    assert child.visible
    section.close()


def test_saved_file_is_told_of_once_it_is_there(application, scene, tmp_path):
    path, found = tmp_path / "scene.mrml", []

    def listener(properties):
        found.append((properties["fileName"], path.is_file()))

    files = application.coreIOManager()
    files.connect("fileSaved(qSlicerIO::IOProperties)", listener)

    assert slicer.util.saveScene(str(path))
    assert files.disconnect("fileSaved(qSlicerIO::IOProperties)", listener)
    slicer.util.saveScene(str(path))

    assert found == [(str(path), True)]
    with pytest.raises(ValueError, match="no signal"):
        files.connect("fileSaved()", listener)
