"""The layout manager over the real layout logic."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import slicer
from PySide6.QtWidgets import QHBoxLayout, QWidget

from tests.slicer.harness.sliceview import SliceWidget


class LayoutManager(QWidget):
    """Shows the slice views that the layout names, in its order."""

    def __init__(self, application: Any) -> None:
        super().__init__()
        self._application = application
        self._widgets: dict[str, SliceWidget] = {}
        self._box = QHBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(application.scene)
        self._node = self._logic.GetLayoutNode()
        self._tag = self._node.AddObserver("ModifiedEvent", self.arrange)

    def layoutLogic(self) -> Any:
        """Return the logic."""
        return self._logic

    def sliceViewNames(self) -> list[str]:
        """Return the names of the views that were ever shown."""
        return list(self._widgets)

    def sliceWidget(self, name: str) -> SliceWidget | None:
        """Return a view by the name of its node."""
        return self._widgets.get(name)

    def arrange(self, *_: object) -> None:
        """Show the views of the current layout."""
        nodes = {}
        views = self._logic.GetViewNodes()
        for number in range(views.GetNumberOfItems()):
            node = views.GetItemAsObject(number)
            if node.IsA("vtkMRMLSliceNode"):
                nodes[node.GetSingletonTag() or node.GetName()] = node
        names = [name for name in self._order() if name in nodes]
        for name, widget in self._widgets.items():
            widget.setVisible(name in names)
        for name in names:
            if name not in self._widgets:
                self._widgets[name] = SliceWidget(nodes[name], self._application, self)
            self._box.removeWidget(self._widgets[name])
            self._box.addWidget(self._widgets[name], 1)
            self._widgets[name].show()

    def end(self) -> None:
        """Let go of the scene."""
        self._node.RemoveObserver(self._tag)
        for widget in self._widgets.values():
            widget.view.end()

    def _order(self) -> list[str]:
        text = self._node.GetCurrentLayoutDescription() or "<layout/>"
        return [
            str(view.get("singletontag"))
            for view in ElementTree.fromstring(text).iter("view")
            if view.get("class") == "vtkMRMLSliceNode"
        ]
