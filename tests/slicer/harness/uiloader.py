"""QUiLoader that makes widgets with the calling convention of PythonQt, and Slicer's own ones.

What a .ui file says of connections is done by this loader, for the real one cannot connect what was
made in Python; a connection that Slicer could not make is an error.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from tests.slicer.harness import ctkwidgets, mrmlwidgets
from tests.slicer.harness.pythonqt import make

_ctk = ctkwidgets.module()


class UiLoader(QtUiTools.QUiLoader):
    """Loads .ui files."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[Any] = []

    def createWidget(self, className: str, parent: Any = None, name: str = "") -> Any:
        """Make a widget, by class."""
        if className in mrmlwidgets.CUSTOM:
            cls = make(mrmlwidgets.CUSTOM[className])
        elif className.startswith("ctk"):
            cls = getattr(_ctk, className)
        elif hasattr(QtWidgets, className):
            cls = make(getattr(QtWidgets, className))
        else:
            raise NotImplementedError(f"the harness has no {className}")
        widget = cls(parent)
        widget.setObjectName(name)
        self._made.append(widget)
        return widget

    def load(self, device: Any, parent: Any = None) -> Any:
        """Load a file and make its connections."""
        document = ElementTree.fromstring(bytes(device.readAll().data()))
        connections = document.find("connections")
        if connections is not None:
            document.remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(document))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        root = super().load(buffer, parent)
        if root is None:
            return None
        for widget in self._made:
            root.__dict__.pop(widget.name, None)
        root.__dict__["_kept"] = list(self._made)
        widgets = {widget.name: widget for widget in self._made}
        for connection in connections if connections is not None else ():
            _connect(widgets, connection)
        return root


def _connect(widgets: dict[str, Any], connection: ElementTree.Element) -> None:
    sender, signal, receiver, slot = (
        str(connection.findtext(part)) for part in ("sender", "signal", "receiver", "slot")
    )
    for name in (sender, receiver):
        if name not in widgets:
            raise ValueError(f"a connection of the .ui file names {name}, which is not there")
    method = getattr(widgets[receiver], slot.partition("(")[0], None)
    if method is None:
        raise ValueError(f"{receiver} has no slot {slot}")
    widgets[sender].connect(signal, method)
