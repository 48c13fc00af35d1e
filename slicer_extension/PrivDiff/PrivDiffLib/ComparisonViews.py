"""Three views side by side: original, anonymized, and what tells them apart."""

from __future__ import annotations

from enum import Enum
from typing import Any

from slicer.i18n import tr as _

from .Cases import Case
from .SceneImages import SceneImages

LAYOUT = 5731
"""Number of our layout; those from 501 on are free."""

ORIGINAL, ANONYMIZED, COMPARED = "CXROrig", "CXRAnon", "CXRDiff"
"""Tags of our own: the standard views keep their labels otherwise."""

VIEW = """
<item><view class="vtkMRMLSliceNode" singletontag="{tag}">
 <property name="orientation" action="default">Axial</property>
 <property name="viewlabel" action="default">{label}</property>
 <property name="viewcolor" action="default">{colour}</property>
</view></item>"""


class Mode(Enum):
    """What the third view shows."""

    DIFFERENCE = "difference"
    FADE = "fade"
    CHECKERBOARD = "checkerboard"


class ComparisonViews:
    """The views of the application, as this module uses them.

    Parameters
    ----------
    layoutManager
        Of the application.
    images
        Volumes of the cases.
    """

    def __init__(self, layoutManager: Any, images: SceneImages) -> None:
        self._manager, self._images = layoutManager, images
        self._before: int | None = None
        self._isNew = False

    def show(self, case: Case, mode: Mode, fade: float) -> None:
        """Show a case; pan, zoom and window of the views are linked."""
        original, result = self._images.originalOf(case), self._images.resultOf(case)
        if original is None and result is None:
            return
        self._open()
        first = original or result
        self._fill(ORIGINAL, original)
        self._fill(ANONYMIZED, result)
        for tag in (ORIGINAL, ANONYMIZED, COMPARED):
            self._logic(tag).GetSliceNode().RotateToVolumePlane(first)
        if original is not None and result is not None:
            self.showThird(case, mode, fade)
        else:
            self._fill(COMPARED, None)
        self.fit()
        for tag in (ORIGINAL, ANONYMIZED, COMPARED):
            composite = self._logic(tag).GetSliceCompositeNode()
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)

    def showThird(self, case: Case, mode: Mode, fade: float) -> None:
        """Show difference, fading or checkerboard in the third view.

        Where the user has left our layout, it is shown again.

        Parameters
        ----------
        fade
            0 for the original alone, 1 for the anonymized image alone.
        """
        original, result = self._images.originalOf(case), self._images.resultOf(case)
        if original is None or result is None:
            return
        if not self.isOpen:
            self.show(case, mode, fade)
        elif mode is Mode.DIFFERENCE:
            self._fill(COMPARED, self._images.differenceOf(case))
        elif mode is Mode.CHECKERBOARD:
            self._fill(COMPARED, self._images.checkerboardOf(case))
        else:
            self._fill(COMPARED, original, result, fade)

    def fit(self) -> None:
        """Show the whole image in each view."""
        for tag in (ORIGINAL, ANONYMIZED, COMPARED):
            self._logic(tag).FitSliceToBackground()

    def settle(self) -> None:
        """Fit the image to views that have their size only now; called by a timer."""
        if self._isNew and self.isOpen:
            self.fit()
        self._isNew = False

    def lookAt(self, bounds: tuple[float, ...]) -> None:
        """Show a part of the image, given by its bounds in RAS, with some space around it."""
        self._open()
        self._isNew = False
        for tag in (ORIGINAL, ANONYMIZED, COMPARED):
            node = self._logic(tag).GetSliceNode()
            center = [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
            node.JumpSliceByCentering(*center)
            extent = sorted(bounds[2 * axis + 1] - bounds[2 * axis] for axis in range(3))[-1]
            width, height = node.GetFieldOfView()[:2]
            scale = max(2 * extent, 1.0) / max(min(width, height), 1e-9)
            node.SetFieldOfView(width * scale, height * scale, node.GetFieldOfView()[2])

    @property
    def isOpen(self) -> bool:
        """Whether our layout is shown."""
        return bool(self._layoutNode().GetViewArrangement() == LAYOUT)

    def close(self) -> None:
        """Return to the layout from before."""
        if self._before is not None and self.isOpen:
            self._layoutNode().SetViewArrangement(self._before)

    def _open(self) -> None:
        node = self._layoutNode()
        if not node.IsLayoutDescription(LAYOUT):
            node.AddLayoutDescription(LAYOUT, _description())
        if not self.isOpen:
            self._before, self._isNew = node.GetViewArrangement(), True
            node.SetViewArrangement(LAYOUT)

    def _fill(self, tag: str, background: Any, foreground: Any = None, opacity: float = 0) -> None:
        composite = self._logic(tag).GetSliceCompositeNode()
        # A linked view would hand its layers on to the others.
        composite.SetLinkedControl(False)
        composite.SetBackgroundVolumeID(background.GetID() if background is not None else None)
        composite.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
        composite.SetForegroundOpacity(opacity)
        composite.SetLabelVolumeID(None)
        composite.SetLinkedControl(True)

    def _logic(self, tag: str) -> Any:
        return self._manager.sliceWidget(tag).sliceLogic()

    def _layoutNode(self) -> Any:
        return self._manager.layoutLogic().GetLayoutNode()


def _description() -> str:
    views = (
        (ORIGINAL, _("Original"), "#A0A0A0"),
        (ANONYMIZED, _("Anonymized"), "#4DA6FF"),
        (COMPARED, _("Compared"), "#FF9926"),
    )
    items = "".join(
        VIEW.format(tag=tag, label=label, colour=colour) for tag, label, colour in views
    )
    return f'<layout type="horizontal" split="true">{items}</layout>'
