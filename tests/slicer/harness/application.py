"""The application: one QApplication, one real scene with its logics, a main window, settings."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import slicer.util
import vtk
from PySide6.QtCore import QSettings, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QMainWindow,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from tests.slicer.harness import ctkwidgets, pythonqt, sampledata, scripted
from tests.slicer.harness.files import CoreIOManager
from tests.slicer.harness.layout import LayoutManager
from tests.slicer.harness.mrmlwidgets import qMRMLWidget
from tests.slicer.harness.pythonqt import make
from tests.slicer.harness.sliceview import MANAGERS

SIZE = (1500, 950)
PANEL_WIDTH = 480


class HierarchyItems:
    """Gives volumes, markups and segmentations their item in the subject hierarchy.

    In Slicer, plugins of the subject hierarchy module do it.
    """

    classes = ("vtkMRMLVolumeNode", "vtkMRMLMarkupsNode", "vtkMRMLSegmentationNode")

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._added.__func__.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]
        self._removed.__func__.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]
        scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, self._added)
        scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._removed)

    def _added(self, caller: Any, event: str, node: Any) -> None:
        if any(node.IsA(name) for name in self.classes):
            hierarchy = self._node()
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    def _removed(self, caller: Any, event: str, node: Any) -> None:
        if any(node.IsA(name) for name in self.classes) and not self._scene.IsClosing():
            hierarchy = self._node()
            hierarchy.RemoveItem(hierarchy.GetItemByDataNode(node), False, False)

    def _node(self) -> Any:
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene)


def installModules() -> None:
    """Let `import qt`, `import ctk` and those of parts of slicer find the stand-ins."""
    pythonqt.keepSingletons()
    sys.modules["qt"] = pythonqt.module()
    sys.modules["ctk"] = ctkwidgets.module()
    sys.modules["SampleData"] = sampledata.module()
    for name, made in scripted.modules().items():
        sys.modules[name] = made
        setattr(slicer, name.partition(".")[2], made)


class Application:
    """What `slicer.app` gives, over real logics; made once in a process."""

    applicationName = "Slicer"

    def __init__(self, folder: Path) -> None:
        self.qt = QApplication.instance() or QApplication(["test"])
        self.qt.setStyle("Fusion")
        self.scene = slicer.vtkMRMLScene()
        self._settings = make(QSettings)(str(folder / "settings.ini"), QSettings.Format.IniFormat)
        self._folder = folder
        self.isTesting = True
        self._startListeners: list[Callable[[], Any]] = []
        self._logic = slicer.vtkSlicerApplicationLogic()
        self._logic.SetSliceLogics(vtk.vtkCollection())
        self._logic.SetViewLogics(vtk.vtkCollection())
        self._publish()
        self._logic.SetMRMLScene(self.scene)
        self._addLogics()
        self._addNodes()
        self.sliceFactory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self.sliceFactory.SetMRMLApplicationLogic(self._logic)
        for name in MANAGERS:
            if not self.sliceFactory.IsDisplayableManagerRegistered(name):
                self.sliceFactory.RegisterDisplayableManager(name)
        self._hierarchy = HierarchyItems(self.scene)
        self._layout = LayoutManager(self)
        self._files = make(CoreIOManager)(self.scene)
        self._makeWindow()
        self._layout.layoutLogic().GetLayoutNode().SetViewArrangement(29)

    def applicationLogic(self) -> Any:
        """Return the logic of the application."""
        return self._logic

    def layoutManager(self) -> LayoutManager:
        """Return what arranges the views."""
        return self._layout

    def coreIOManager(self) -> Any:
        """Return what saves files."""
        return self._files

    def userSettings(self) -> Any:
        """Return settings of the test's own."""
        return self._settings

    def settings(self) -> Any:
        """Return the same."""
        return self._settings

    def testingEnabled(self) -> bool:
        """Tell whether popups are suppressed."""
        return self.isTesting

    def processEvents(self) -> None:
        """Let Qt do what waits."""
        self.qt.processEvents()

    def topLevelWidgets(self) -> list[Any]:
        """Return the main window."""
        return [self.window]

    def connect(self, signature: str, listener: Callable[..., Any]) -> None:
        """Connect a signal of the application; only the one that modules use exists."""
        if signature != "startupCompleted()":
            raise ValueError(f"the harness has no signal {signature}")
        self._startListeners.append(listener)

    def tellStarted(self) -> None:
        """Tell that the application has started, with all its modules."""
        for listener in self._startListeners:
            listener()
        self._startListeners.clear()

    def waitUntil(self, condition: Callable[[], Any], seconds: float = 20) -> None:
        """Let the interface live until something holds.

        Raises
        ------
        TimeoutError
            If it does not come to hold.
        """
        import time

        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("what was waited for did not happen")
            QTest.qWait(10)

    def open(self, path: Path) -> Any:
        """Open a scripted module as the application does; return its panel."""
        name = path.stem
        sys.path.insert(0, str(path.parent))
        specification = importlib.util.spec_from_file_location(name, path)
        assert specification is not None and specification.loader is not None
        loaded = importlib.util.module_from_spec(specification)
        sys.modules[name] = loaded
        specification.loader.exec_module(loaded)
        parent = make(qMRMLWidget)()
        parent.setLayout(QVBoxLayout())
        described = types.SimpleNamespace(path=str(path), name=name)
        described.widgetRepresentation = lambda: parent
        setattr(slicer.modules, name.lower(), described)
        setattr(slicer.modules, f"{name}Instance", getattr(loaded, name)(described))
        self._area.setWidget(parent)
        widget = getattr(loaded, f"{name}Widget")(parent)
        setattr(slicer.modules, f"{name}Widget", widget)
        widget.setup()
        parent.setMRMLScene(self.scene)
        widget.enter()
        return widget

    def close(self, widget: Any) -> None:
        """Leave a module and unload it; it does not hear that the application has started."""
        self._startListeners.clear()
        widget.exit()
        widget.cleanup()
        self._area.takeWidget().deleteLater()
        sys.path.remove(str(Path(slicer.util.modulePath(widget.moduleName)).parent))

    def grab(self, path: Path) -> None:
        """Write a picture of the main window."""
        for name in self._layout.sliceViewNames():
            view = self._layout.sliceWidget(name).view
            if view.isVisible():
                view.render()
        self.qt.processEvents()
        self.window.grab().save(str(path))

    def _publish(self) -> None:
        """Put what modules look for in the package slicer where they look for it."""
        slicer.app = self
        slicer.mrmlScene = self.scene
        slicer.modules = types.SimpleNamespace()

    def _addLogics(self) -> None:
        self._kept = []
        for name, cls in (
            ("Colors", slicer.vtkMRMLColorLogic),
            ("Volumes", slicer.vtkSlicerVolumesLogic),
            ("Markups", slicer.vtkSlicerMarkupsLogic),
            ("Segmentations", slicer.vtkSlicerSegmentationsModuleLogic),
            ("SubjectHierarchy", slicer.vtkSlicerSubjectHierarchyModuleLogic),
        ):
            logic = cls()
            logic.SetMRMLApplicationLogic(self._logic)
            logic.SetMRMLScene(self.scene)
            self._logic.SetModuleLogic(name, logic)
            described = types.SimpleNamespace(logic=lambda logic=logic: logic)
            setattr(slicer.modules, name.lower(), described)
            self._kept.append(logic)
        self._links = slicer.vtkMRMLSliceLinkLogic()
        self._links.SetMRMLApplicationLogic(self._logic)
        self._links.SetMRMLScene(self.scene)

    def _addNodes(self) -> None:
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        crosshair.SetSingletonTag("default")
        self.scene.AddNode(crosshair)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)

    def _makeWindow(self) -> None:
        self.window = make(QMainWindow)()
        self.window.setObjectName("qSlicerMainWindow")
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setFixedWidth(PANEL_WIDTH)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        middle = QWidget()
        row = QHBoxLayout(middle)
        row.addWidget(self._area)
        row.addWidget(self._layout, 1)
        self.window.setCentralWidget(middle)
        self.window.resize(*SIZE)
        self.window.show()
