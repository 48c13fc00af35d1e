"""The module `ctk`: the few widgets that the panel uses, with their Qt properties."""

from __future__ import annotations

import types
from typing import Any

from PySide6.QtCore import Property, QSize, Qt, Signal
from PySide6.QtWidgets import (
    QDoubleSpinBox,
    QHBoxLayout,
    QMessageBox,
    QSlider,
    QToolButton,
    QWidget,
)

from tests.slicer.harness.pythonqt import make

HEAD = 26
STEPS = 1000


class ctkCollapsibleButton(QWidget):
    """A section with a title that folds."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._head = QToolButton(self)
        self._head.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._head.setArrowType(Qt.ArrowType.DownArrow)
        self._head.setStyleSheet(
            "QToolButton { border: none; text-align: left; font-weight: bold; }"
        )
        self._head.clicked.connect(lambda: self.setCollapsed(not self._collapsed))
        self._collapsed = False
        self._folded: list[QWidget] = []
        self.setContentsMargins(2, HEAD, 2, 2)

    def text(self) -> str:
        return self._head.text()

    def setText(self, text: str) -> None:
        self._head.setText(text)

    def isCollapsed(self) -> bool:
        return self._collapsed

    def setCollapsed(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        arrow = Qt.ArrowType.RightArrow if collapsed else Qt.ArrowType.DownArrow
        self._head.setArrowType(arrow)
        if collapsed:
            children = [child for child in self.children() if isinstance(child, QWidget)]
            hidden = [child for child in children if QWidget.isHidden(child) or child is self._head]
            self._folded = [child for child in children if child not in hidden]
        for child in self._folded:
            child.setVisible(not collapsed)
        self.setMaximumHeight(HEAD if collapsed else 16777215)
        self.contentsCollapsed.emit(collapsed)

    def resizeEvent(self, event: Any) -> None:
        self._head.setGeometry(0, 0, event.size().width(), HEAD - 2)

    def minimumSizeHint(self) -> QSize:
        return super().minimumSizeHint().expandedTo(QSize(80, HEAD))

    text = Property(str, text, setText)
    collapsed = Property(bool, isCollapsed, setCollapsed)


class ctkSliderWidget(QWidget):
    """A slider with a box for the number."""

    valueChanged = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider, self._box = QSlider(Qt.Orientation.Horizontal), QDoubleSpinBox()
        self._slider.setRange(0, STEPS)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        self._slider.valueChanged.connect(self._slid)
        self._box.valueChanged.connect(self._typed)

    def value(self) -> float:
        return float(self._box.value())

    def setValue(self, value: float) -> None:
        self._box.setValue(value)

    def minimum(self) -> float:
        return float(self._box.minimum())

    def setMinimum(self, value: float) -> None:
        self._box.setMinimum(value)

    def maximum(self) -> float:
        return float(self._box.maximum())

    def setMaximum(self, value: float) -> None:
        self._box.setMaximum(value)

    def singleStep(self) -> float:
        return float(self._box.singleStep())

    def setSingleStep(self, value: float) -> None:
        self._box.setSingleStep(value)

    def decimals(self) -> int:
        return int(self._box.decimals())

    def setDecimals(self, count: int) -> None:
        self._box.setDecimals(count)

    def _slid(self, place: int) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        self._box.setValue(low + (high - low) * place / STEPS)

    def _typed(self, value: float) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        self._slider.blockSignals(True)
        self._slider.setValue(round(STEPS * (value - low) / max(high - low, 1e-9)))
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)

    value = Property(float, value, setValue)
    minimum = Property(float, minimum, setMinimum)
    maximum = Property(float, maximum, setMaximum)
    singleStep = Property(float, singleStep, setSingleStep)
    decimals = Property(int, decimals, setDecimals)


def module() -> types.ModuleType:
    """Return the module `ctk`; other widgets of it cannot be made here."""
    ctk = types.ModuleType("ctk")
    for cls in (ctkCollapsibleButton, ctkSliderWidget):
        setattr(ctk, cls.__name__, make(cls))
    ctk.ctkMessageBox = make(QMessageBox)  # type: ignore[attr-defined]

    def refuse(name: str) -> Any:
        raise AttributeError(f"the harness has no stand-in for ctk.{name}")

    ctk.__getattr__ = refuse  # type: ignore[method-assign]
    return ctk
