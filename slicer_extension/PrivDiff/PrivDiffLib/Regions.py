"""Regions that must be looked at before an image is approved: rectangles and segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import vtk
from slicer.i18n import tr as _

from .Cases import Case

CLASSES = ("vtkMRMLMarkupsROINode", "vtkMRMLSegmentationNode")


class Regions:
    """Which nodes mark regions of which case, and which of them were looked at.

    Parameters
    ----------
    scene
        MRML scene.
    """

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._marked: dict[int, list[str]] = {}
        self._seen: dict[tuple[int, str], tuple[float, ...] | None] = {}

    def add(self, case: Case, node: Any) -> None:
        """Let a node mark a region of a case."""
        marked = self._marked.setdefault(case.key, [])
        if node.GetID() not in marked:
            marked.append(node.GetID())

    def of(self, case: Case) -> Sequence[Any]:
        """Return the nodes of a case that still exist."""
        nodes = (self._scene.GetNodeByID(name) for name in self._marked.get(case.key, ()))
        return [node for node in nodes if node is not None]

    def unseen(self, case: Case) -> Sequence[Any]:
        """Return those that nobody looked at, where they are now, since the result came."""
        return [node for node in self.of(case) if not self.isSeen(case, node)]

    def isSeen(self, case: Case, node: Any) -> bool:
        """Tell whether somebody looked at a region where it is now."""
        bounds = self.boundsOf(node)
        return bounds is not None and self._seen.get((case.key, node.GetID())) == bounds

    def boundsOf(self, node: Any) -> tuple[float, ...] | None:
        """Return the bounds of a region in RAS, None for an empty one."""
        bounds = [0.0] * 6
        node.GetRASBounds(bounds)
        return tuple(bounds) if vtk.vtkMath.AreBoundsInitialized(bounds) else None

    def noteSeen(self, case: Case, node: Any) -> None:
        """Note that a region is looked at where it is now."""
        self._seen[case.key, node.GetID()] = self.boundsOf(node)

    def forgetSeen(self, case: Case) -> None:
        """Let everything be looked at again: another result has come."""
        self._seen = {seen: bounds for seen, bounds in self._seen.items() if seen[0] != case.key}

    def drawRectangle(self, case: Case, original: Any) -> Any:
        """Add a rectangle in the middle of an original, with handles to move and resize it."""
        bounds = [0.0] * 6
        original.GetRASBounds(bounds)
        node = self._scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", _("Region"))
        node.CreateDefaultDisplayNodes()
        sides = [bounds[2 * axis + 1] - bounds[2 * axis] for axis in range(3)]
        node.SetCenter([(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)])
        node.SetSize([max(side / 4, 1.0) for side in sides])
        node.GetDisplayNode().SetFillOpacity(0.0)
        node.GetDisplayNode().SetHandlesInteractive(True)
        self.add(case, node)
        return node
