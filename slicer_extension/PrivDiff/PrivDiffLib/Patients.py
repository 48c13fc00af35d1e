"""Patients and studies of the subject hierarchy, whose names a saved scene holds."""

from __future__ import annotations

from typing import Any

import slicer
import vtk


def patientItems(scene: Any) -> list[int]:
    """Return the items of a scene that tell of a patient or study of DICOM, outer ones first."""
    hierarchy = hierarchyOf(scene)
    return _tellingItems(hierarchy, hierarchy.GetSceneItemID(), False)


def removePatients(scene: Any) -> None:
    """Remove these items; what lies below them stays, at the top of the hierarchy."""
    hierarchy = hierarchyOf(scene)
    for item in reversed(patientItems(scene)):
        for child in childrenOf(hierarchy, item):
            hierarchy.SetItemParent(child, hierarchy.GetSceneItemID())
        hierarchy.RemoveItem(item, False, False)


def hierarchyOf(scene: Any) -> Any:
    """Return the subject hierarchy of a scene."""
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def childrenOf(hierarchy: Any, item: int) -> list[int]:
    """Return the items that lie directly below an item."""
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(item, children)
    return [children.GetId(index) for index in range(children.GetNumberOfIds())]


def _tellingItems(hierarchy: Any, parent: int, isOfPatient: bool) -> list[int]:
    constants = slicer.vtkMRMLSubjectHierarchyConstants
    levels = (constants.GetDICOMLevelPatient(), constants.GetDICOMLevelStudy())
    found = []
    for item in childrenOf(hierarchy, parent):
        # A study can tell by its name alone; its patient is known by attributes.
        isTelling = hierarchy.GetItemLevel(item) in levels and (
            isOfPatient
            or hierarchy.HasItemUID(item, "DICOM")
            or any(name.startswith("DICOM.") for name in hierarchy.GetItemAttributeNames(item))
        )
        found += [item] if isTelling else []
        found += _tellingItems(hierarchy, item, isOfPatient or isTelling)
    return found
