"""A slice view whose contents are drawn by the real logics and displayable managers."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6.QtCore import QEvent, QPoint, Qt, QTimer
from PySide6.QtGui import QImage, QPainter
from PySide6.QtWidgets import QLabel, QVBoxLayout, QWidget

MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
)


class SliceView(QWidget):
    """The area that shows the image."""

    def __init__(self, node: Any, application: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumSize(80, 80)
        self.setMouseTracking(True)
        self._scene = node.GetScene()
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application.applicationLogic())
        application.applicationLogic().GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(self._scene)
        self.logic.SetSliceNode(node)
        self._makeWindow()
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(application.sliceFactory, self._renderer)
        self._group.SetMRMLDisplayableNode(node)
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetDisplayableManagers(self._group)
        self._style.SetInteractor(self._interactor)
        self._style.SetSliceLogic(self.logic)
        self._picture = QImage()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.render)
        self._tags = [(self.logic, self.logic.AddObserver("ModifiedEvent", self.request))]
        self._tags.append((self._group, self._group.AddObserver("UpdateEvent", self.request)))

    def _makeWindow(self) -> None:
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(self._mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        self._actor = actor
        self._renderer = vtk.vtkRenderer()
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())  # as in ctkVTKSliceView

    def end(self) -> None:
        """Let go of the scene."""
        self._timer.stop()
        for observed, tag in self._tags:
            observed.RemoveObserver(tag)
        self._style.SetInteractor(None)
        self._group.SetMRMLDisplayableNode(None)
        self.logic.SetMRMLScene(None)
        self._window.Finalize()

    def request(self, *_: object) -> None:
        """Draw soon."""
        if not self._timer.isActive():
            self._timer.start(0)

    def render(self) -> None:
        """Draw now, unless the scene is being closed or filled."""
        if self._scene.IsBatchProcessing() or self._scene.IsClosing():
            return
        connection = self.logic.GetImageDataConnection()
        if connection is None:
            self._renderer.RemoveViewProp(self._actor)
        else:
            self._mapper.SetInputConnection(connection)
            self._renderer.AddViewProp(self._actor)
        self._window.Render()
        self._picture = _readBack(self._window)
        self.update()

    def picture(self) -> QImage:
        """Return what is seen, as drawn last."""
        return self._picture

    def resizeEvent(self, event: Any) -> None:
        size = (max(1, self.width()), max(1, self.height()))
        self._window.SetSize(*size)
        self._interactor.UpdateSize(*size)
        self.logic.ResizeSliceNode(*size)
        self.request()

    def paintEvent(self, event: Any) -> None:
        painter = QPainter(self)
        painter.fillRect(self.rect(), Qt.GlobalColor.black)
        painter.drawImage(QPoint(0, 0), self._picture)

    def mousePressEvent(self, event: Any) -> None:
        self._mouse(event, f"{_button(event.button())}ButtonPressEvent")

    def mouseReleaseEvent(self, event: Any) -> None:
        self._mouse(event, f"{_button(event.button())}ButtonReleaseEvent")

    def mouseMoveEvent(self, event: Any) -> None:
        self._mouse(event, "MouseMoveEvent")

    def enterEvent(self, event: QEvent) -> None:
        self._interactor.InvokeEvent("EnterEvent")

    def _mouse(self, event: Any, name: str) -> None:
        keys = event.modifiers()
        place = event.position().toPoint()
        self._interactor.SetEventInformationFlipY(
            place.x(),
            place.y(),
            int(bool(keys & Qt.KeyboardModifier.ControlModifier)),
            int(bool(keys & Qt.KeyboardModifier.ShiftModifier)),
        )
        self._interactor.InvokeEvent(name)


class SliceWidget(QWidget):
    """A slice view under its label."""

    def __init__(self, node: Any, application: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.node = node
        self.view = SliceView(node, application, self)
        label = QLabel(node.GetLayoutLabel() or node.GetName(), self)
        colour = [round(255 * part) for part in node.GetLayoutColor()]
        label.setStyleSheet(f"background: rgb({colour[0]},{colour[1]},{colour[2]}); padding: 2px;")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(1, 0, 1, 0)
        layout.setSpacing(0)
        layout.addWidget(label)
        layout.addWidget(self.view, 1)

    def sliceLogic(self) -> Any:
        """Return the logic of the view."""
        return self.view.logic

    def sliceView(self) -> SliceView:
        """Return the area that shows the image."""
        return self.view


def _button(button: Any) -> str:
    names = {
        Qt.MouseButton.LeftButton: "Left",
        Qt.MouseButton.RightButton: "Right",
        Qt.MouseButton.MiddleButton: "Middle",
    }
    return names[button]


def _readBack(window: Any) -> QImage:
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    grabber.Update()
    image = grabber.GetOutput()
    width, height, _depth = image.GetDimensions()
    from vtk.util.numpy_support import vtk_to_numpy

    pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3]
    content = pixels.tobytes()
    return QImage(content, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
