"""Every word that the user sees goes through the translation of the application."""

from __future__ import annotations

import ast
import re

import pytest
import slicer
from PrivDiffLib.Translations import clientTexts, serverWords
from PySide6 import QtCore, QtWidgets

from tests.slicer.driving import User
from tests.slicer.fixtures import MODULE, ROOT, SOURCE
from tests.slicer.radiographs import addPixels
from tests.slicer.scripted import API, finish, job
from tests.unit.scripted_server import Reply

LIBRARY = SOURCE.parent / "PrivDiffLib"
CLIENT = LIBRARY / "privdiff_client"

OWN_NAMES = {"m 1", "n 2", "ann", "film", "x", "taken"}
"""What a server, a user or nobody at all says, and no language has another word for."""


class Marking(QtCore.QTranslator):
    """Puts marks around everything that is translated."""

    def translate(self, context: str, text: str, *_: object) -> str:
        return re.sub(r"(?s)^.+$", r"«\g<0>»", text)

    def isEmpty(self) -> bool:
        return False


@pytest.fixture
def marked(application):
    """The application in a language of which every text is marked."""
    translator = Marking()
    application.qt.installTranslator(translator)
    yield
    application.qt.removeTranslator(translator)


@pytest.fixture
def reader(marked, application, scene, server, monkeypatch):
    """Somebody who reads the panel in that language."""
    monkeypatch.setattr("PrivDiffLib.privdiff_client.transport.WAIT_SECONDS", (0.01,))
    monkeypatch.setattr("PrivDiffLib.Anonymizing.POLL_SECONDS", 0.05)
    monkeypatch.setattr("PrivDiffLib.Reviewing.COUNT_SECONDS", 0.05)
    application.userSettings().clear()
    widget = application.open(MODULE)
    user = User(application, widget, ROOT / "build" / "slicer" / "panel")
    yield user
    application.close(widget)


def seen(user) -> set[str]:
    """Return every text of the panel that can be read, tooltips too."""
    texts: list[str] = []
    for widget in vars(user.ui).values():
        if not isinstance(widget, QtWidgets.QWidget):
            continue
        texts.append(widget.toolTip)
        for attribute in ("text", "placeholderText", "title"):
            if isinstance(getattr(widget, attribute, None), str):
                texts.append(getattr(widget, attribute))
    for box in (user.ui.modelBox, user.ui.profileBox, user.ui.modeBox, user.ui.targetBox):
        texts += [box.itemText(index) for index in range(box.count)]
    for table in (user.ui.imagesTable, user.ui.findingsTable):
        for column in range(table.columnCount):
            texts.append(table.horizontalHeaderItem(column).text())
            for row in range(table.rowCount):
                item = table.item(row, column)
                texts += [item.text(), item.toolTip()] if item is not None else []
    return {text for text in texts if text}


def unmarked(texts: set[str]) -> set[str]:
    """Return the texts that hold a word outside of all marks."""
    found = set()
    for text in texts:
        rest = text
        while "«" in rest:  # marks can stand within marks
            rest, before = re.sub(r"«[^«»]*»", "", rest), rest
            if rest == before:
                break
        if re.search(r"[A-Za-z]{2}", rest) and text not in OWN_NAMES and "://" not in rest:
            found.add(text)
    return found


def check(user) -> None:
    user.panel.refresh()
    assert unmarked(seen(user)) == set()


def test_panel_without_a_server(reader):
    assert "«Connect»" in seen(reader)

    check(reader)
    reader.type("serverBox", "nowhere")
    reader.click("connectButton")
    check(reader)
    assert "«this" in reader.ui.statusLabel.text


def test_panel_at_work(reader, server):
    ready = reader
    ready.type("serverBox", server.url)
    ready.click("connectButton")
    ready.waitFor(lambda: ready.panel.connection.isConnected)
    check(ready)
    ready.tick("consentBox")
    ready.click("sampleButton")
    film = addPixels()
    ready.waitFor(lambda: ready.ui.imagesTable.rowCount == 4)
    ready.check(0)
    check(ready)
    server.on(f"GET {API}/jobs/0f", job("queued", position=3, eta_seconds=200.0))
    ready.click("anonymizeButton")
    ready.waitFor(lambda: "ahead" in ready.states()[0])
    check(ready)
    finish(server)
    ready.waitFor(lambda: ready.ui.approveButton.enabled)
    check(ready)
    ready.click("drawButton")
    check(ready)
    region = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLMarkupsROINode")
    assert region.GetName() == "«Region»"
    slicer.mrmlScene.RemoveNode(film)
    finish(server, "held", media_type="application/x-nrrd", reason="")
    ready.click("anonymizeButton")
    ready.waitFor(lambda: "Held" in ready.states()[0])
    ready.waitFor(lambda: ready.ui.rejectButton.enabled)
    check(ready)


@pytest.mark.parametrize(
    "reply", [Reply(b"<html>", 500), Reply(b"<html>hello"), Reply(None, 302, {"Location": "/"})]
)
def test_errors_of_the_client(reader, server, reply):
    server.on(f"GET {API}/me", reply)
    reader.type("serverBox", server.url)
    reader.click("connectButton")
    reader.waitFor(lambda: reader.panel.connection.error is not None)

    check(reader)


def errorClasses() -> set[str]:
    """Return the names of the client's errors."""
    tree = ast.parse((CLIENT / "errors.py").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_every_text_of_the_client_is_translated():
    makers = errorClasses() | {"kind", "super().__init__"}
    texts = {
        argument.value
        for path in CLIENT.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in makers
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }

    assert {text for text in texts if " " in text} <= set(clientTexts())


def test_no_text_of_the_client_is_put_together_before_it_is_translated():
    makers = errorClasses() | {"kind"}
    for path in CLIENT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in makers:
                assert not any(isinstance(part, ast.JoinedStr) for part in node.args), ast.unparse(
                    node
                )


def test_texts_are_collected_as_literals():
    """Slicer's collector reads literals, and only those within the call."""
    tree = ast.parse((LIBRARY / "Translations.py").read_text(encoding="utf-8"))
    tables = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    pairs = [pair for table in tables for pair in zip(table.keys, table.values, strict=True)]
    literals = {
        key.value: value.args[0].value
        for key, value in pairs
        if isinstance(key, ast.Constant)
        and isinstance(value, ast.Call)
        and ast.unparse(value.func) == "_"
        and isinstance(value.args[0], ast.Constant)
    }

    assert set(literals) == set(clientTexts()) | set(serverWords())
    assert all(text == key.replace("_", " ") for key, text in literals.items())


def test_words_of_the_server_are_all_known():
    vocabulary = (ROOT / "privdiff_infer" / "vocabulary.py").read_text(encoding="utf-8")
    findings = re.search(r"FINDINGS: tuple.*?\((.*?)\)", vocabulary, re.DOTALL)
    profiles = re.search(r"class Profile\(.*?\n\n\n", vocabulary, re.DOTALL)
    roles = (ROOT / "monailabel_app" / "lib" / "security" / "roles.py").read_text(encoding="utf-8")
    classOfRoles = re.search(r"class Role\(.*?def ", roles, re.DOTALL)
    assert findings and profiles and classOfRoles

    names = re.findall(r'"(\w+)"', findings[1])
    for text in (profiles[0], classOfRoles[0]):
        names += re.findall(r'= "(\w+)"', text)

    assert len(names) > 20 and set(names) <= set(serverWords())
