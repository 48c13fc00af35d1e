"""A user who drives the panel: clicks, types, looks and waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest

from tests.slicer.harness.application import Application


class User:
    """Works with the panel as somebody with a mouse and a keyboard.

    Parameters
    ----------
    application
        With the module open.
    widget
        Of the module.
    pictures
        Folder of screenshots.
    """

    def __init__(self, application: Application, widget: Any, pictures: Path) -> None:
        self.application, self.widget, self._pictures = application, widget, pictures
        self.panel = widget.panel
        application.processEvents()
        found = slicer.util.childWidgetVariables(application.window)
        self.ui: Any = found

    def click(self, name: str) -> None:
        """Press a button; one that is disabled is a failure of the test."""
        button = getattr(self.ui, name)
        assert button.enabled, f"{name} is disabled: {button.toolTip}"
        assert button.visible, f"{name} is not to be seen"
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        self.application.processEvents()

    def tick(self, name: str) -> None:
        """Check or uncheck a box."""
        box = getattr(self.ui, name)
        assert box.enabled and box.visible, name
        QTest.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(9, box.height // 2))

    def type(self, name: str, text: str) -> None:
        """Replace a text."""
        field = getattr(self.ui, name)
        line = field.lineEdit() if isinstance(field, qt.QComboBox) else field
        line.selectAll()
        QTest.keyClicks(line, text) if text else line.clear()

    def pick(self, name: str, text: str) -> None:
        """Choose an entry of a combo box."""
        box = getattr(self.ui, name)
        index = box.findText(text)
        assert index >= 0, f"{name} has no {text}"
        box.setCurrentIndex(index)

    def key(self, key: Any) -> None:
        """Press a key somewhere in the window."""
        self.application.window.activateWindow()
        self.application.processEvents()
        QTest.keyClick(self.application.window, key)
        self.application.processEvents()

    def check(self, *rows: int) -> None:
        """Let exactly these rows of the table be checked."""
        table = self.ui.imagesTable
        for row in range(table.rowCount):
            state = qt.Qt.Checked if row in rows else qt.Qt.Unchecked
            table.item(row, 0).setCheckState(state)

    def choose(self, row: int) -> None:
        """Choose a row of the table."""
        table = self.ui.imagesTable
        place = table.visualItemRect(table.item(row, 1)).center()
        QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)

    def states(self) -> list[str]:
        """Return the states in the table."""
        table = self.ui.imagesTable
        return [table.item(row, 1).text() for row in range(table.rowCount)]

    def tooltips(self) -> list[str]:
        """Return the tooltips of the states in the table."""
        table = self.ui.imagesTable
        return [table.item(row, 1).toolTip() for row in range(table.rowCount)]

    def waitFor(self, condition: Any, seconds: float = 30) -> None:
        """Wait while the interface lives; say what was seen if it does not come."""
        try:
            self.application.waitUntil(condition, seconds)
        except TimeoutError:
            message = self.ui.messageLabel.text if self.ui.messageFrame.visible else ""
            raise AssertionError(
                f"{self.states()} {self.tooltips()} {self.ui.statusLabel.text} {message}"
            ) from None

    def connect(self, url: str, token: str = "") -> None:
        """Connect, and wait for an answer."""
        self.type("serverBox", url)
        self.type("tokenEdit", token)
        self.click("connectButton")
        self.waitFor(lambda: self.ui.connectButton.text == "Connect")

    def look(self, name: str) -> None:
        """Keep a picture of the window."""
        self._pictures.mkdir(parents=True, exist_ok=True)
        self.application.grab(self._pictures / f"{name}.png")
