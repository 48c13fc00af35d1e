"""Radiographs in the scene, as Slicer's readers put them there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp


@dataclass
class Database:
    """Where imported DICOM files are."""

    files: dict[str, str] = field(default_factory=dict)

    def fileOf(self, instanceUID: str) -> str:
        """Return the path of an instance, or nothing."""
        return self.files.get(instanceUID, "")

    def fileForInstance(self, instanceUID: str) -> str:
        """Answer as `slicer.dicomDatabase` does."""
        return self.fileOf(instanceUID)


def addDicom(
    database: Database, folder: Path, name: str = "5: CHEST PA", **attributes: Any
) -> tuple[Any, bytes]:
    """Return (volume, file) of a DICOM radiograph that was imported and loaded."""
    shape = attributes.pop("shape", (96, 80))
    dataset = radiograph_dataset(attributes.pop("stored", ramp(shape=shape)), **attributes)
    dataset.SOPInstanceUID = f"1.2.826.0.1.{len(database.files) + 1}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    content = dicom_bytes(dataset)
    path = folder / f"Doe_Jane_{len(database.files)}.dcm"
    path.write_bytes(content)
    database.files[str(dataset.SOPInstanceUID)] = str(path)
    volume = slicer.modules.volumes.logic().AddArchetypeVolume(str(path), name, 4)
    volume.SetAttribute("DICOM.instanceUIDs", str(dataset.SOPInstanceUID))
    putUnderPatient(volume)
    return volume, content


def addPixels(name: str = "film", dtype: str = "uint8", shape: tuple[int, int] = (90, 70)) -> Any:
    """Return a volume like that of a PNG file."""
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(volume, ramp(8, shape).astype(dtype)[np.newaxis])
    volume.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)
    volume.CreateDefaultDisplayNodes()
    return volume


def putUnderPatient(volume: Any) -> int:
    """Put a volume where Slicer's DICOM reader puts it, below its patient; return its study."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Doe^Jane (PHI-4711)")
    hierarchy.SetItemAttribute(patient, "DICOM.PatientName", "Doe^Jane")
    hierarchy.SetItemUID(patient, "DICOM", "PHI-4711")
    study = hierarchy.CreateStudyItem(patient, "Chest of Doe (19991231)")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    return int(study)
