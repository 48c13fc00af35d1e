"""Section: one image, what was measured of it, and the decision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .Cases import DECIDABLE, Case, Stage
from .ComparisonViews import ComparisonViews, Mode
from .Connection import Connection
from .Controls import Control, show, silent
from .Guard import Guard
from .privdiff_client import Decision
from .Regions import CLASSES, Regions
from .Reviewing import Reviewing
from .SceneImages import SceneImages
from .Settings import Settings
from .Wording import findingRows, findingsText, linkageText, reasonText, stageText, textText

MODES = (Mode.DIFFERENCE, Mode.FADE, Mode.CHECKERBOARD)
CHANGED_COLOUR = "#c98a1b"


class ReviewSection:
    """Shows the current case and decides on it.

    Parameters
    ----------
    guard
        Wraps what widgets call.
    ui
        Widgets of the panel by name.
    connection, reviewing, images, views, regions, settings
        What is shown and changed.
    step
        Goes that many rows on in the table.
    changed
        Called after the user did something.
    """

    def __init__(
        self,
        guard: Guard,
        ui: Any,
        connection: Connection,
        reviewing: Reviewing,
        images: SceneImages,
        views: ComparisonViews,
        regions: Regions,
        settings: Settings,
        step: Callable[[int], None],
        changed: Callable[[], None],
    ) -> None:
        self._ui, self._connection, self._reviewing = ui, connection, reviewing
        self._images, self._views, self._regions = images, views, regions
        self._settings, self._step, self._changed = settings, step, changed
        self._case: Case | None = None
        self._shownFindings: Any = None
        self._approve, self._reject = Control(ui.approveButton), Control(ui.rejectButton)
        self._queue, self._draw = Control(ui.queueButton), Control(ui.drawButton)
        self._add, self._look = Control(ui.addRegionButton), Control(ui.lookButton)
        self._build(guard)

    @property
    def mode(self) -> Mode:
        """What the third view shows."""
        return MODES[max(0, self._ui.modeBox.currentIndex)]

    @property
    def fade(self) -> float:
        """How much of the anonymized image is seen, in [0, 1]."""
        return float(self._ui.fadeSlider.value) / 100

    def refresh(self, case: Case | None, count: int) -> None:
        """Show a case; `count` is how many there are."""
        ui = self._ui
        if case is not self._case:
            self._case = case
            ui.commentEdit.text = case.job.review.comment if case and _hasReview(case) else ""
        ui.caseLabel.text = (
            _("<b>{name}</b> - {state}").format(name=self._nameOf(case), state=stageText(case))
            if case
            else _("Choose an image in the table")
        )
        ui.previousButton.enabled = ui.nextButton.enabled = count > 1
        show(ui.reasonLabel, reasonText(case) if case else "")
        ui.fadeSlider.enabled = self.mode is Mode.FADE
        self._showFigures(case)
        self._showRegions(case)
        self._showQueue()
        obstacle = self._obstacle(case)
        self._reject.allow(obstacle)
        self._approve.allow(obstacle or self._approvalObstacle(case))

    def _build(self, guard: Guard) -> None:
        ui = self._ui
        header = ui.findingsTable.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        ui.findingsTable.verticalHeader().hide()
        with silent(ui.modeBox):
            kept = [mode.value for mode in MODES]
            wanted = self._settings.compareMode
            ui.modeBox.setCurrentIndex(kept.index(wanted) if wanted in kept else 0)
        ui.modeBox.connect("currentIndexChanged(int)", guard(self._modeChanged))
        ui.fadeSlider.connect("valueChanged(int)", guard(self._fadeChanged))
        ui.previousButton.connect("clicked()", guard(lambda: self._step(-1)))
        ui.nextButton.connect("clicked()", guard(lambda: self._step(1)))
        ui.approveButton.connect("clicked()", guard(lambda: self._decide(Decision.APPROVED)))
        ui.rejectButton.connect("clicked()", guard(lambda: self._decide(Decision.REJECTED)))
        ui.queueButton.connect("clicked()", guard(self._takeNext))
        ui.drawButton.connect("clicked()", guard(self._drawRegion))
        ui.addRegionButton.connect("clicked()", guard(self._addRegion))
        ui.lookButton.connect("clicked()", guard(self._lookAtNext))
        ui.regionSelector.connect("currentNodeChanged(vtkMRMLNode*)", guard(self._regionChosen))

    def _nameOf(self, case: Case) -> str:
        original = self._images.originalOf(case)
        return case.name if original is None or case.picture else original.GetName()

    def _showFigures(self, case: Case | None) -> None:
        ui = self._ui
        job = case.job if case else None
        figures = job.figures if job else None
        show(ui.linkageLabel, linkageText(job) if job and figures else "")
        show(ui.findingsLabel, f"{findingsText(figures)} {textText(figures)}" if figures else "")
        ui.findingsTable.visible = figures is not None
        if figures is None or figures is self._shownFindings:
            return
        self._shownFindings = figures
        rows = findingRows(figures)
        ui.findingsTable.setRowCount(len(rows))
        for row, (name, before, after, verdict, changed) in enumerate(rows):
            for column, text in enumerate((name, f"{before:.2f}", f"{after:.2f}", verdict)):
                item = qt.QTableWidgetItem(text)
                if changed:
                    item.setForeground(qt.QBrush(qt.QColor(CHANGED_COLOUR)))
                ui.findingsTable.setItem(row, column, item)

    def _showRegions(self, case: Case | None) -> None:
        ui = self._ui
        original = self._images.originalOf(case) if case else None
        self._draw.allow("" if original is not None else _("Choose an image with its original"))
        node = ui.regionSelector.currentNode()
        isRegion = node is not None and node.GetClassName() in CLASSES
        self._add.allow("" if case and isRegion else _("Choose a rectangle or a segmentation"))
        marked = self._regions.of(case) if case else []
        unseen = self._regions.unseen(case) if case else []
        ui.regionLabel.text = (
            _("Regions: {count}, not looked at: {unseen}").format(
                count=len(marked), unseen=len(unseen)
            )
            if marked
            else _("No region is marked")
        )
        hasResult = case is not None and self._images.resultOf(case) is not None
        obstacle = "" if marked else _("No region of this image is marked")
        self._look.allow(obstacle or ("" if hasResult else _("There is no result yet")))

    def _showQueue(self) -> None:
        awaiting = self._reviewing.awaiting
        show(
            self._ui.queueLabel,
            ""
            if awaiting is None
            else _("Awaiting review on the server: {count}").format(count=awaiting),
        )
        self._queue.allow(
            self._roleObstacle()
            or (_("The server has not answered yet") if self._reviewing.isBusy else "")
            or ("" if awaiting else _("Nothing awaits review on the server"))
        )

    def _roleObstacle(self) -> str:
        if not self._connection.isConnected:
            return _("Connect to a server first")
        if not self._connection.mayReview:
            return _("This needs the role reviewer; ask the administrator of the server")
        return ""

    def _obstacle(self, case: Case | None) -> str:
        if self._roleObstacle():
            return self._roleObstacle()
        if case is None:
            return _("Choose an image in the table")
        if case.job is not None and self._connection.clientOf(case.server) is None:
            return _("This image is on {url}; connect there first").format(url=case.server)
        if case.stage is Stage.HELD and case.job is not None and not case.job.is_held_back:
            return _("The image is held and was not redrawn: there is nothing to decide")
        if case.stage is Stage.PUBLISHED:
            return _("The image is published already")
        if case.stage not in DECIDABLE or self._images.resultOf(case) is None:
            return _("There is no result to look at yet")
        if self._reviewing.isBusy:
            return _("The server has not answered yet")
        return ""

    def _approvalObstacle(self, case: Case | None) -> str:
        if case is not None and case.isHeld:
            return _("The image is held and can be rejected alone; see above why")
        if case is not None and self._regions.unseen(case):
            return _("Look at every marked region first")
        return ""

    def _decide(self, decision: Decision) -> None:
        # A region can be moved after the button was shown.
        isApproval = decision is Decision.APPROVED
        isRefused = isApproval and bool(self._approvalObstacle(self._case))
        if self._case is not None and not isRefused:
            self._reviewing.decide(self._case, decision, self._ui.commentEdit.text.strip())
        self._changed()

    def _takeNext(self) -> None:
        self._reviewing.nextOfQueue(self._case)
        self._changed()

    def _modeChanged(self, index: int) -> None:
        self._settings.compareMode = self.mode.value
        self._showThird()
        self._changed()

    def _fadeChanged(self, value: int) -> None:
        self._showThird()

    def _showThird(self) -> None:
        if self._case is not None:
            self._views.showThird(self._case, self.mode, self.fade)

    def _drawRegion(self) -> None:
        original = self._images.originalOf(self._case) if self._case else None
        if self._case is not None and original is not None:
            node = self._regions.drawRectangle(self._case, original)
            self._ui.regionSelector.setCurrentNode(node)
        self._changed()

    def _addRegion(self) -> None:
        node = self._ui.regionSelector.currentNode()
        if self._case is not None and node is not None:
            self._regions.add(self._case, node)
        self._changed()

    def _lookAtNext(self) -> None:
        if self._case is None:
            return
        nodes = self._regions.unseen(self._case) or self._regions.of(self._case)
        bounds = self._regions.boundsOf(nodes[0]) if nodes else None
        if bounds is not None:
            # The user may have gone to another layout.
            self._views.show(self._case, self.mode, self.fade)
            self._views.lookAt(bounds)
            self._regions.noteSeen(self._case, nodes[0])
        elif nodes:
            slicer.util.showStatusMessage(_("This region is empty"), 3000)
        self._changed()

    def _regionChosen(self, node: Any) -> None:
        self._changed()


def _hasReview(case: Case) -> bool:
    return case.job is not None and case.job.review is not None
