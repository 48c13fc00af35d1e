"""What nobody foresaw: it is told, nothing escapes, and everything works again."""

from __future__ import annotations

import ast

import pytest
import qt

from tests.slicer.fixtures import SOURCE
from tests.slicer.radiographs import addPixels
from tests.slicer.scripted import API, FIGURES, PICTURE, anonymize, finish, job
from tests.unit.scripted_server import Reply

LIBRARY = SOURCE.parent / "PrivDiffLib"
NAME = "Doe^Jane"


class Unforeseen(Exception):
    """Nothing that the code knows of."""


def broken(*_arguments: object, **_fields: object) -> None:
    raise Unforeseen(NAME)


def isTold(user) -> bool:
    text = user.ui.messageLabel.text
    return user.ui.messageFrame.visible and "unexpected happened (Unforeseen)" in text


def test_what_escapes_to_qt_fails_a_test(application, escaped):
    button = qt.QPushButton("a")
    button.connect("clicked()", broken)

    button.click()

    assert [type(error) for error in escaped] == [Unforeseen]
    escaped.clear()


@pytest.mark.parametrize(
    "name",
    [
        "connectButton",
        "checkButton",
        "sampleButton",
        "anonymizeButton",
        "nextButton",
        "drawButton",
        "approveButton",
        "rejectButton",
        "queueButton",
        "removeOriginalsButton",
    ],
)
def test_button_that_fails_works_again(ready, server, monkeypatch, caplog, name):
    # An answer may come before or after the message is closed: none brings another message.
    server.on(f"GET {API}/jobs/0f/source", Reply(PICTURE))
    for route in (f"POST {API}/review/next", f"POST {API}/jobs/0f/review"):
        server.on(route, job("awaiting_review", figures=FIGURES))
    anonymize(ready, server)
    addPixels()
    ready.waitFor(lambda: ready.ui.queueButton.enabled and ready.ui.removeOriginalsButton.enabled)

    with monkeypatch.context() as during:
        during.setattr("PrivDiffLib.Panel.Panel.refresh", broken)
        during.setattr("PrivDiffLib.Settings.Settings.save", broken)
        ready.click(name)
        assert isTold(ready)

    text = ready.ui.messageLabel.text
    assert "Try it again" in text and "Error Log" in text
    assert NAME not in text + caplog.text and "Unforeseen" in caplog.text
    ready.click("dismissButton")
    addPixels()  # the originals may be gone already
    ready.waitFor(lambda: getattr(ready.ui, name).enabled and not ready.ui.messageFrame.visible)
    ready.click(name)


PLACES = [
    "Anonymizing.Anonymizing._send",
    "Anonymizing.Anonymizing.fetch",
    "Anonymizing.Anonymizing.update",
    "Background.Background.start",
    "ComparisonViews.ComparisonViews.show",
    "Connection.Connection.heard",
    "ImagesSection.ImagesSection._showCase",
    "ReviewSection.ReviewSection.refresh",
    "SceneImages.SceneImages.copyWindow",
]


@pytest.mark.parametrize("place", PLACES)
def test_panel_lives_on_after_a_failure_anywhere(ready, server, monkeypatch, place):
    finish(server)
    with monkeypatch.context() as during:
        during.setattr(f"PrivDiffLib.{place}", broken)
        ready.click("anonymizeButton")
        ready.waitFor(lambda: isTold(ready))

    ready.click("dismissButton")
    ready.waitFor(lambda: ready.ui.anonymizeButton.enabled)
    anonymize(ready, server)
    server.on(f"POST {API}/jobs/0f/review", job("approved"))
    ready.click("approveButton")
    ready.waitFor(lambda: ready.states()[0] == "Approved")


def test_failure_that_goes_on_is_told_once_and_holds_nothing_up(ready, monkeypatch):
    with monkeypatch.context() as during:
        during.setattr("PrivDiffLib.Connection.Connection.mayReview", property(broken))
        ready.waitFor(lambda: isTold(ready))
        ready.click("dismissButton")
        addPixels()
        ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 4)
        assert not ready.ui.messageFrame.visible

    addPixels()
    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 5)
    monkeypatch.setattr("PrivDiffLib.Connection.Connection.mayReview", property(broken))
    ready.waitFor(lambda: isTold(ready))


def test_decision_that_breaks_off_can_be_made_again(ready, server, monkeypatch):
    anonymize(ready, server)
    with monkeypatch.context() as during:
        during.setattr("PrivDiffLib.Background.Background.start", broken)
        ready.click("rejectButton")
        ready.waitFor(lambda: isTold(ready))

    assert ready.ui.rejectButton.enabled
    server.on(f"POST {API}/jobs/0f/review", job("rejected"))
    ready.click("rejectButton")
    ready.waitFor(lambda: ready.states()[0] == "Rejected")


def test_file_that_breaks_the_reader_is_told_in_its_row(ready, server, monkeypatch):
    finish(server)
    with monkeypatch.context() as during:
        during.setattr("PrivDiffLib.SceneImages.addVolume", broken)
        ready.click("anonymizeButton")
        ready.waitFor(lambda: ready.states()[0] == "Failed")

    assert "unexpected happened" in ready.tooltips()[0]
    anonymize(ready, server)


def test_module_is_unloaded_whatever_fails(ready, monkeypatch):
    panel = ready.panel
    with monkeypatch.context() as during:
        during.setattr("PrivDiffLib.Settings.Settings.save", broken)
        during.setattr("PrivDiffLib.ComparisonViews.ComparisonViews.close", broken)
        ready.application.close(ready.widget)

    assert not panel._timer.active and ready.widget.panel is None


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*.py")), ids=lambda path: path.stem)
def test_everything_that_is_called_back_goes_through_the_guard(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        isOfQt = node.func.attr == "connect" and isinstance(node.args[0], ast.Constant)
        if isOfQt or node.func.attr == "addObserver":
            assert isGuarded(node.args[-1]), ast.unparse(node)


def isGuarded(listener: ast.expr) -> bool:
    """Tell whether it is wrapped here, or was where it got a name that tells of an occasion."""
    if isinstance(listener, ast.Call):
        return ast.unparse(listener.func).endswith("guard")
    return ast.unparse(listener).rpartition(".")[2].lstrip("_").startswith("when")
