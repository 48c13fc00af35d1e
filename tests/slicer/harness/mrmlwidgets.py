"""qMRML widgets over the real scene."""

from __future__ import annotations

from typing import Any

import shiboken6
import slicer
from PySide6.QtCore import Property, Signal
from PySide6.QtWidgets import QComboBox, QVBoxLayout, QWidget

SCENE_EVENTS = (
    slicer.vtkMRMLScene.NodeAddedEvent,
    slicer.vtkMRMLScene.NodeRemovedEvent,
    slicer.vtkMRMLScene.EndCloseEvent,
    slicer.vtkMRMLScene.EndImportEvent,
)


class qMRMLWidget(QWidget):
    """Hands a scene on, to those children alone that are connected in the .ui file."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        """Return the scene."""
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        """Set it, and tell who is connected."""
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)


class qMRMLNodeComboBox(QWidget):
    """Chooses a node of the scene."""

    currentNodeChanged = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._box = QComboBox()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._types: tuple[str, ...] = ()
        self._scene: Any = None
        self._tags: list[int] = []
        self._none = self._add = self._remove = True
        self._box.currentIndexChanged.connect(self._chosen)

    def setMRMLScene(self, scene: Any) -> None:
        """Show the nodes of a scene."""
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene = scene
        self._tags = [scene.AddObserver(event, self._refill) for event in SCENE_EVENTS]
        self._refill()

    def currentNode(self) -> Any:
        """Return the chosen node, or None."""
        name = self._box.currentData()
        return self._scene.GetNodeByID(name) if self._scene is not None and name else None

    def setCurrentNode(self, node: Any) -> None:
        """Choose a node."""
        self._box.setCurrentIndex(max(0, self._box.findData(node.GetID() if node else "")))

    def _chosen(self) -> None:
        self.currentNodeChanged.emit(self.currentNode())

    def _refill(self, *_: object) -> None:
        if not shiboken6.isValid(self._box):  # deleted by Qt
            for tag in self._tags:
                self._scene.RemoveObserver(tag)
            return
        if self._scene.IsClosing() or self._scene.IsBatchProcessing():
            return  # the end of it is an event of its own
        chosen = self._box.currentData()
        self._box.blockSignals(True)
        self._box.clear()
        if self._none:
            self._box.addItem("None", "")
        for kind in self._types:
            for node in slicer.util.getNodesByClass(kind, self._scene):
                if not node.GetHideFromEditors():
                    self._box.addItem(node.GetName(), node.GetID())
        self._box.setCurrentIndex(max(0, self._box.findData(chosen)))
        self._box.blockSignals(False)
        if self._box.currentData() != chosen:
            self._chosen()

    def getTypes(self) -> list[str]:
        """Return the classes of nodes that are shown."""
        return list(self._types)

    def setTypes(self, types: Any) -> None:
        """Set them."""
        self._types = tuple(types)

    def getNone(self) -> bool:
        """Tell whether no node may be chosen."""
        return self._none

    def setNone(self, enabled: bool) -> None:
        """Set it."""
        self._none = enabled

    def getAdd(self) -> bool:
        """Tell whether nodes can be made here."""
        return self._add

    def setAdd(self, enabled: bool) -> None:
        """Set it."""
        self._add = enabled

    def getRemove(self) -> bool:
        """Tell whether nodes can be deleted here."""
        return self._remove

    def setRemove(self, enabled: bool) -> None:
        """Set it."""
        self._remove = enabled

    nodeTypes = Property("QStringList", getTypes, setTypes)
    noneEnabled = Property(bool, getNone, setNone)
    addEnabled = Property(bool, getAdd, setAdd)
    removeEnabled = Property(bool, getRemove, setRemove)


CUSTOM = {cls.__name__: cls for cls in (qMRMLWidget, qMRMLNodeComboBox)}
