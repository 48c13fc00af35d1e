"""Original, anonymized image and what tells them apart, side by side."""

from __future__ import annotations

import pytest
import slicer
from PySide6.QtCore import Qt

from tests.slicer.radiographs import addPixels
from tests.slicer.scripted import API, anonymize, finish


def test_result_is_shown_and_explained(ready, server):
    anonymize(ready, server)

    assert ready.states()[0] == "To review"
    assert "0.31" in ready.ui.linkageLabel.text and "below the limit" in ready.ui.linkageLabel.text
    assert "1 of 3 findings read differently: Effusion" in ready.ui.findingsLabel.text
    table = ready.ui.findingsTable
    assert [table.item(0, column).text() for column in range(4)] == [
        "Effusion",
        "0.81",
        "0.32",
        "lost",
    ]
    sent = next(r for r in server.requests if r.method == "POST" and r.path == f"{API}/jobs")
    assert b"original" in sent.content and b"Sample" not in sent.content
    assert b'name="output_format"\r\n\r\ndicom\r\n' in sent.content
    ready.look("result")


def test_views_are_linked_in_zoom_pan_and_window(ready, server):
    anonymize(ready, server)
    manager = ready.application.layoutManager()
    views = [manager.sliceWidget(tag) for tag in ("CXROrig", "CXRAnon", "CXRDiff")]
    assert all(view.isVisible() for view in views)
    nodes = [view.sliceLogic().GetSliceNode() for view in views]
    case = ready.panel.anonymizing.cases[0]
    original = ready.panel.images.originalOf(case).GetDisplayNode()
    result = ready.panel.images.resultOf(case).GetDisplayNode()

    before = nodes[0].GetFieldOfView()
    drag(views[0].sliceView(), Qt.MouseButton.RightButton)
    drag(views[0].sliceView(), Qt.MouseButton.MiddleButton)

    assert nodes[0].GetFieldOfView() != before
    for node in nodes[1:]:
        assert node.GetFieldOfView() == pytest.approx(nodes[0].GetFieldOfView())
        assert node.GetXYZOrigin() == pytest.approx(nodes[0].GetXYZOrigin())
    original.SetWindowLevel(100, 60)
    assert result.GetWindow() == pytest.approx(100 / 254, rel=0.05)
    result.SetWindowLevel(0.5, 0.5)
    assert original.GetWindow() == pytest.approx(0.5 * 255, rel=0.05)


def drag(view, button) -> None:
    from PySide6.QtCore import QPoint
    from PySide6.QtTest import QTest

    QTest.mousePress(view, button, pos=QPoint(100, 100))
    QTest.mouseMove(view, QPoint(110, 140))
    QTest.mouseMove(view, QPoint(120, 160))
    QTest.mouseRelease(view, button, pos=QPoint(120, 160))


def test_whole_image_is_seen_once_the_views_have_their_size(ready):
    ready.choose(0)
    view = ready.application.layoutManager().sliceWidget("CXROrig")
    ready.waitFor(lambda: not ready.panel.views._isNew)

    ready.waitFor(lambda: view.sliceLogic().GetSliceNode().GetDimensions()[0] == view.view.width())
    width, height = view.sliceLogic().GetSliceNode().GetFieldOfView()[:2]

    extent = [0.0] * 6
    case = ready.panel.anonymizing.cases[0]
    ready.panel.images.originalOf(case).GetRASBounds(extent)
    assert min(width, height) == pytest.approx(extent[1] - extent[0], rel=0.02)


def test_third_view_fades_and_checks(ready, server):
    anonymize(ready, server)
    composite = ready.application.layoutManager().sliceWidget("CXRDiff").sliceLogic()
    composite = composite.GetSliceCompositeNode()
    case = ready.panel.anonymizing.cases[0]

    ready.pick("modeBox", "Fade")
    ready.ui.fadeSlider.value = 30
    assert composite.GetBackgroundVolumeID() == case.volumeID
    assert composite.GetForegroundVolumeID() == case.resultID
    assert composite.GetForegroundOpacity() == pytest.approx(0.3)
    ready.look("fade")
    ready.pick("modeBox", "Checkerboard")
    assert "Checkerboard" in slicer.util.getNode(composite.GetBackgroundVolumeID()).GetName()
    assert composite.GetForegroundVolumeID() is None
    ready.look("checkerboard")


def useLayout(user, number: int) -> None:
    """Choose another layout, as the menu of the application does."""
    user.application.layoutManager().layoutLogic().GetLayoutNode().SetViewArrangement(number)
    assert not user.panel.views.isOpen


@pytest.mark.parametrize(
    "act",
    [
        lambda user: user.pick("modeBox", "Checkerboard"),
        lambda user: setattr(user.ui.fadeSlider, "value", 30),
        lambda user: user.choose(0),
        lambda user: user.click("drawButton") or user.click("lookButton"),
    ],
    ids=["mode", "fade", "row", "region"],
)
def test_comparison_comes_back_after_another_layout(ready, server, act):
    anonymize(ready, server)
    ready.pick("modeBox", "Fade")
    useLayout(ready, 29)
    ready.panel.refresh()
    assert not ready.panel.views.isOpen

    act(ready)

    assert ready.panel.views.isOpen
    views = [ready.application.layoutManager().sliceWidget(tag) for tag in ("CXROrig", "CXRDiff")]
    assert all(view.isVisible() for view in views)
    assert all(view.sliceLogic().GetSliceCompositeNode().GetBackgroundVolumeID() for view in views)


def test_layout_from_before_returns_while_another_module_is_seen(ready, server):
    node = ready.application.layoutManager().layoutLogic().GetLayoutNode()
    before = node.GetViewArrangement()
    ready.click("anonymizeButton")
    ready.choose(0)
    assert ready.panel.views.isOpen

    ready.widget.exit()
    assert node.GetViewArrangement() == before
    finish(server)
    ready.waitFor(lambda: ready.states()[0] == "To review")
    assert node.GetViewArrangement() == before

    ready.widget.enter()
    assert ready.panel.views.isOpen


def test_click_shows_the_image_where_nobody_said_that_the_module_is_seen(ready):
    ready.panel.enter(False)

    ready.choose(0)

    assert ready.panel.views.isOpen
    ready.key(Qt.Key.Key_N)
    assert ready.ui.imagesTable.currentRow() == 1


def test_keys_go_through_the_images_but_not_while_typing(ready):
    ready.choose(0)

    ready.key(Qt.Key.Key_N)
    assert ready.ui.imagesTable.currentRow() == 1
    ready.key(Qt.Key.Key_P)
    ready.key(Qt.Key.Key_P)
    assert ready.ui.imagesTable.currentRow() == 2
    ready.widget.exit()
    ready.key(Qt.Key.Key_N)
    assert ready.ui.imagesTable.currentRow() == 2


def test_volume_without_display_is_compared(ready, server):
    film = addPixels(shape=(256, 256))
    slicer.mrmlScene.RemoveNode(film.GetDisplayNode())
    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 4)
    ready.check(3)

    ready.choose(3)
    anonymize(ready, server)

    assert ready.states()[3] == "To review" and not ready.ui.messageFrame.visible
    film.GetDisplayNode().SetWindowLevel(100, 60)
    result = ready.panel.images.resultOf(ready.panel.anonymizing.cases[3])
    assert result.GetDisplayNode().GetWindow() == pytest.approx(100 / 254, rel=0.05)
