"""The base classes of scripted modules, and translation, as their documentation tells."""

from __future__ import annotations

import os
import types
import unittest
from typing import Any

import slicer
from PySide6.QtCore import QCoreApplication


class ScriptedLoadableModule:
    """What a module says of itself."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = parent.helpText = parent.acknowledgementText = ""
        parent.categories, parent.dependencies, parent.contributors = [], [], []

    def getDefaultModuleDocumentationLink(self) -> str:
        """Return a link to the documentation."""
        return ""


class ScriptedLoadableModuleWidget:
    """The panel of a module."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout()
        self.developerMode = False

    def resourcePath(self, name: str) -> str:
        """Return the path of a resource."""
        folder = os.path.dirname(slicer.util.modulePath(self.moduleName))
        return os.path.join(folder, "Resources", name)

    def setup(self) -> None:
        """Build the panel."""

    def cleanup(self) -> None:
        """Take it down."""


class ScriptedLoadableModuleLogic:
    """What a module does."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        """Return the singleton node of the module."""
        tag = self.moduleName
        node = slicer.mrmlScene.GetSingletonNode(tag, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(tag)
            node.SetName(tag)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The self test of a module."""

    def runTest(self) -> None:
        """Run it."""

    def delayDisplay(self, message: str, *_: object) -> None:
        """Say what is being tested."""


def modules() -> dict[str, types.ModuleType]:
    """Return `slicer.ScriptedLoadableModule` and `slicer.i18n`."""
    base = types.ModuleType("slicer.ScriptedLoadableModule")
    classes = (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    )
    for cls in classes:
        setattr(base, cls.__name__, cls)
    words = types.ModuleType("slicer.i18n")

    def tr(text: str) -> str:
        return QCoreApplication.translate("PrivDiff", text)

    words.tr = tr  # type: ignore[attr-defined]
    words.translate = QCoreApplication.translate  # type: ignore[attr-defined]
    return {base.__name__: base, words.__name__: words}
