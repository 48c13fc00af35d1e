"""Images of the scene: which ones can be sent, and where what comes back is put."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from .Cases import Case, Original
from .Decoding import addVolume
from .Difference import checkerboard, difference, onGreyScale
from .Originals import turned
from .Patients import childrenOf, hierarchyOf, removePatients
from .Samples import SAMPLE

ROLE = "PrivDiff.Role"
"""Attribute of volumes that this module made; others are the user's."""

RESULT, HELD, DIFFERENCE, CHECKERBOARD, PICTURE, COLOURS = (
    "anonymized",
    "held",
    "difference",
    "checkerboard",
    "original picture",
    "colours",
)
DIFFERENCE_SHOWN = 0.5
"""Differences from minus to plus this part of the grey scale have colours of their own."""


def images(scene: Any) -> list[Any]:
    """Return the single grey images of a scene that are the user's."""
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", scene)
    return [volume for volume in volumes if _isImage(volume) and not volume.GetAttribute(ROLE)]


def originals(scene: Any) -> list[Any]:
    """Return the single images of a scene that can show a patient.

    These are the user's, whatever file they came from, pictures of the queue, and redrawn images
    that did not pass a check.
    """
    volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", scene)
    received = [volume for volume in volumes if volume.GetAttribute(ROLE) in (PICTURE, HELD)]
    return [volume for volume in images(scene) if not volume.GetAttribute(SAMPLE)] + received


def displayOf(volume: Any) -> Any:
    """Return the display node of a volume, a new one where it has none."""
    if volume.GetDisplayNode() is None:
        volume.CreateDefaultDisplayNodes()
    return volume.GetDisplayNode()


class SceneImages:
    """The volumes of cases in one scene.

    Parameters
    ----------
    scene
        MRML scene.
    """

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._ranges: dict[str, tuple[float, float]] = {}
        self._derived: dict[int, dict[str, str]] = {}

    def addResult(self, case: Case) -> Any:
        """Put the result of a case into the scene, in the place of its earlier one.

        It becomes a patient of its own in the subject hierarchy: nothing of the original's is
        copied but where its pixels lie.
        """
        assert case.result is not None
        self.removeDerived(case)
        name = (_("Held {number}") if case.isHeld else _("Anonymized {number}")).format(
            number=case.key
        )
        volume, displayRange = addVolume(case.result.content, name)
        original = self.originalOf(case)
        if original is None and case.picture:
            original = self._addPicture(case)
        if original is not None:
            _fit(volume, original, case.original)
        self._note(case, volume, HELD if case.isHeld else RESULT, displayRange)
        volume.SetSaveWithScene(not case.isHeld)
        case.resultID = volume.GetID()
        self._placeApart(volume, name)
        if original is not None:
            # Slicer applies the window of a MONOCHROME1 file to the values that it turned around.
            self.showWholeRange(case)
            self.copyWindow(case)
        return volume

    def originalOf(self, case: Case) -> Any:
        """Return the volume of the original, or None."""
        return self._scene.GetNodeByID(case.volumeID) if case.volumeID else None

    def resultOf(self, case: Case) -> Any:
        """Return the volume of the result, or None."""
        return self._scene.GetNodeByID(case.resultID) if case.resultID else None

    def differenceOf(self, case: Case) -> Any:
        """Return the signed difference, on a scale from blue (darker) to orange (brighter)."""
        volume = self._computed(case, DIFFERENCE, _("Difference"), difference)
        display = volume.GetDisplayNode()
        display.SetAndObserveColorNodeID(self._colours().GetID())
        _setWindow(volume, 2 * DIFFERENCE_SHOWN, 0.0)
        return volume

    def checkerboardOf(self, case: Case) -> Any:
        """Return fields of original and result in turn."""
        volume = self._computed(case, CHECKERBOARD, _("Checkerboard"), checkerboard)
        _setWindow(volume, 1.0, 0.5)
        return volume

    def copyWindow(self, case: Case, *, fromResult: bool = False) -> None:
        """Show the result with the window and level of the original, or the other way round.

        The two have different numbers for the same grey: the original those of its device, the
        result those of what was received. So window and level go over on the scale of grey.
        """
        original, result = self.originalOf(case), self.resultOf(case)
        if original is None or result is None:
            return
        ranges = (self._rangeOf(case, original), self._ranges[result.GetID()])
        source, target = (result, original) if fromResult else (original, result)
        (low, high), (targetLow, targetHigh) = reversed(ranges) if fromResult else ranges
        display = displayOf(source)
        scale = (targetHigh - targetLow) / max(high - low, 1e-9)
        window, level = display.GetWindow() * scale, targetLow + (display.GetLevel() - low) * scale
        shown = displayOf(target)
        # What is equal but for rounding is left alone: each side answers to the other.
        isSame = max(abs(shown.GetWindow() - window), abs(shown.GetLevel() - level)) < scale * 1e-3
        if not isSame or shown.GetAutoWindowLevel():
            _setWindow(target, window, level)

    def showWholeRange(self, case: Case) -> None:
        """Give the original the window that its file, or its pixels, ask for."""
        original = self.originalOf(case)
        if original is not None:
            low, high = self._rangeOf(case, original)
            _setWindow(original, high - low, (high + low) / 2)

    def removeDerived(self, case: Case) -> None:
        """Remove what this module made for a case."""
        for nodeID in self._derived.pop(case.key, {}).values():
            self._remove(nodeID)
        if case.picture:
            self._remove(case.volumeID)
            case.volumeID = ""
        case.resultID = ""

    def forgetOriginal(self, case: Case) -> None:
        """Let an original go that left the scene, with what was computed from it.

        The result stays: it is what the work was for.
        """
        derived = self._derived.get(case.key, {})
        for role in (DIFFERENCE, CHECKERBOARD):
            self._remove(derived.pop(role, ""))
        case.volumeID = ""

    def removeOriginals(self) -> int:
        """Remove every original, and all that names a patient; return how many originals."""
        found = originals(self._scene)
        for volume in found:
            self._remove(volume.GetID())
        removePatients(self._scene)
        return len(found)

    def isOurs(self, nodeID: str) -> bool:
        """Tell whether a node was made here."""
        return any(nodeID in nodes.values() for nodes in self._derived.values())

    def _addPicture(self, case: Case) -> Any:
        volume, displayRange = addVolume(
            case.picture, _("Original {number}").format(number=case.key)
        )
        case.volumeID = volume.GetID()
        volume.SetAttribute(ROLE, PICTURE)
        volume.SetSaveWithScene(False)
        case.original = Original(case.picture, displayRange)
        _setWindow(volume, displayRange[1] - displayRange[0], sum(displayRange) / 2)
        return volume

    def _computed(self, case: Case, role: str, name: str, compute: Any) -> Any:
        nodes = self._derived.get(case.key, {})
        existing = self._scene.GetNodeByID(nodes.get(role, ""))
        if existing is not None:
            return existing
        original, result = self.originalOf(case), self.resultOf(case)
        pixels = compute(
            onGreyScale(_plane(original), self._rangeOf(case, original)),
            onGreyScale(_plane(result), self._ranges[result.GetID()]),
        )
        volume = self._scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        slicer.util.updateVolumeFromArray(volume, pixels[np.newaxis])
        volume.CopyOrientation(original)
        volume.CreateDefaultDisplayNodes()
        # Anonymized plus difference is the original: neither may be saved by accident.
        volume.SetSaveWithScene(False)
        self._note(case, volume, role, (0.0, 1.0))
        return volume

    def _note(self, case: Case, volume: Any, role: str, displayRange: tuple[float, float]) -> None:
        volume.SetAttribute(ROLE, role)
        self._ranges[volume.GetID()] = displayRange
        self._derived.setdefault(case.key, {})[role] = volume.GetID()

    def _rangeOf(self, case: Case, original: Any) -> tuple[float, float]:
        if case.original is not None:
            return case.original.displayRange
        array = slicer.util.arrayFromVolume(original)
        return float(array.min()), float(array.max())

    def _placeApart(self, volume: Any, name: str) -> None:
        hierarchy = hierarchyOf(self._scene)
        subject = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), name)
        study = hierarchy.CreateStudyItem(subject, _("PrivDiff-Net"))
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)

    def _colours(self) -> Any:
        for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode", self._scene):
            if node.GetAttribute(ROLE) == COLOURS:
                return node
        node = self._scene.AddNewNodeByClass("vtkMRMLColorTableNode", _("Darker to brighter"))
        node.SetAttribute(ROLE, COLOURS)
        node.SetTypeToUser()
        node.SetNumberOfColors(256)
        for number, (red, green, blue) in enumerate(_divergingColours()):
            node.SetColor(number, str(number), red, green, blue, 1.0)
        node.SetSaveWithScene(False)
        return node

    def _remove(self, nodeID: str) -> None:
        node = self._scene.GetNodeByID(nodeID) if nodeID else None
        if node is None:
            return
        hierarchy = hierarchyOf(self._scene)
        item = hierarchy.GetItemByDataNode(node)
        study = hierarchy.GetItemParent(item)
        # The storage node names the file, and that can name the patient.
        belongings = [node.GetDisplayNode(), node.GetStorageNode()]
        self._scene.RemoveNode(node)
        for belonging in belongings:
            if belonging is not None:
                self._scene.RemoveNode(belonging)
        _removeEmptyAncestors(hierarchy, study)


def _removeEmptyAncestors(hierarchy: Any, item: int) -> None:
    """Remove a study, and its subject, that hold nothing any more."""
    while item and item != hierarchy.GetSceneItemID():
        if childrenOf(hierarchy, item):
            return
        parent = hierarchy.GetItemParent(item)
        hierarchy.RemoveItem(item, False, False)
        item = parent


def _fit(volume: Any, original: Any, sent: Original | None) -> None:
    """Lay a result exactly over its original, so that everything drawn on one fits the other."""
    if sent is not None and any(sent.flips):
        pixels = turned(_plane(volume), sent.flips)
        slicer.util.updateVolumeFromArray(volume, np.ascontiguousarray(pixels)[np.newaxis])
    volume.CopyOrientation(original)
    rows, columns = _plane(volume).shape
    originalRows, originalColumns = _plane(original).shape
    if (rows, columns) == (originalRows, originalColumns):
        return
    # Another matrix over the same extent: pixels of another size, the first centre elsewhere.
    spacing = original.GetSpacing()
    factors = (originalColumns / columns, originalRows / rows)
    toRAS = vtk.vtkMatrix4x4()
    original.GetIJKToRASMatrix(toRAS)
    origin = toRAS.MultiplyPoint((factors[0] / 2 - 0.5, factors[1] / 2 - 0.5, 0, 1))
    volume.SetSpacing(spacing[0] * factors[0], spacing[1] * factors[1], spacing[2])
    volume.SetOrigin(origin[:3])


def _plane(volume: Any) -> np.ndarray:
    return slicer.util.arrayFromVolume(volume)[0]


def _isImage(volume: Any) -> bool:
    image = volume.GetImageData()
    return (
        volume.GetClassName() == "vtkMRMLScalarVolumeNode"
        and image is not None
        and image.GetDimensions()[2] == 1
        and min(image.GetDimensions()[:2]) > 1
    )


def _setWindow(volume: Any, window: float, level: float) -> None:
    display = displayOf(volume)
    display.AutoWindowLevelOff()
    display.SetWindowLevel(window, level)


def _divergingColours() -> list[tuple[float, float, float]]:
    """Return 256 colours from blue over nearly black to orange, seen by the colour-blind too."""
    ends = np.array([(0.25, 0.65, 1.0), (0.07, 0.07, 0.07), (1.0, 0.6, 0.15)])
    place = np.linspace(0, 2, 256)
    return [
        tuple(float(np.interp(at, (0, 1, 2), ends[:, channel])) for channel in range(3))
        for at in place
    ]
