"""Saves scenes as the application does, and tells of it afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal


class CoreIOManager(QObject):
    """The part of `slicer.app.coreIOManager()` that `slicer.util.saveScene` needs."""

    fileSaved = Signal(object)

    def __init__(self, scene: Any) -> None:
        super().__init__()
        self._scene = scene

    def saveNodes(self, fileType: str, properties: dict[str, Any], messages: Any = None) -> bool:
        """Write the scene; only then `fileSaved` is emitted, with these properties."""
        if fileType != "SceneFile":
            raise NotImplementedError(f"the harness does not save a {fileType}")
        path = properties["fileName"]
        if path.endswith(".mrb"):
            isSaved = self._scene.WriteToMRB(path, None)
        elif path.endswith(".mrml"):
            self._scene.SetURL(path)
            isSaved = self._scene.Commit()
        else:
            Path(path).mkdir(parents=True, exist_ok=True)
            isSaved = self._scene.SaveSceneToSlicerDataBundleDirectory(path, None)
        if isSaved:
            self.fileSaved.emit(properties)
        return bool(isSaved)
