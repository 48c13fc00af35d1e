"""Section: the images, how they are redrawn, and how far each of them is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .Anonymizing import Anonymizing, mayBeSent
from .Background import explained
from .Cases import Case, Stage
from .Connection import Connection
from .Controls import Control, fill, silent
from .Guard import Guard
from .Originals import DicomDatabase, readOriginal
from .privdiff_client import Model, Options
from .Settings import Settings
from .Translations import wordOf
from .Wording import boxText, etaText, reasonText, riskText, stageText

IMAGE, STATE, PROGRESS, LEFT, STORE = range(5)

STATE_COLOURS = {
    Stage.APPROVED: "#3c9a4a",
    Stage.PUBLISHED: "#3c9a4a",
    Stage.HELD: "#c98a1b",
    Stage.TO_REVIEW: "#3a86c8",
    Stage.FAILED: "#d0433b",
    Stage.REJECTED: "#d0433b",
}


class ImagesSection:
    """Chooses images and options, starts and cancels.

    Parameters
    ----------
    guard
        Wraps what widgets call.
    ui
        Widgets of the panel by name.
    connection, anonymizing, settings
        What is shown and changed.
    database
        Where DICOM files are.
    mayUpload
        Tells whether the user agreed that images go to the server.
    loadSamples
        Puts the sample images into the scene.
    changed
        Called after the user did something.
    """

    def __init__(
        self,
        guard: Guard,
        ui: Any,
        connection: Connection,
        anonymizing: Anonymizing,
        settings: Settings,
        database: DicomDatabase,
        mayUpload: Callable[[], bool],
        loadSamples: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self._ui, self._connection, self._anonymizing = ui, connection, anonymizing
        self._settings, self._database, self._mayUpload = settings, database, mayUpload
        self._loadSamples, self._changed = loadSamples, changed
        self._rows: list[Case] = []
        self._checked: set[int] = set()
        self._strengthSetFor = ""
        self._anonymizeControl = Control(ui.anonymizeButton)
        self._cancelControl = Control(ui.cancelButton)
        self._build(guard)

    @property
    def current(self) -> Case | None:
        """The case whose row is chosen."""
        row = self._ui.imagesTable.currentRow()
        return self._rows[row] if 0 <= row < len(self._rows) else None

    def choose(self, case: Case) -> None:
        """Choose the row of a case."""
        self._fillRows()
        if case in self._rows:
            self._ui.imagesTable.setCurrentCell(self._rows.index(case), STATE)

    def check(self, case: Case) -> None:
        """Check the box of a case."""
        self._checked.add(case.key)

    def refresh(self) -> None:
        """Show how things stand."""
        self._fillRows()
        self._checked &= {case.key for case in self._checkable()}
        for row, case in enumerate(self._rows):
            self._showCase(row, case)
        self._showOptions()
        chosen = self._chosen()
        self._anonymizeControl.allow(self._obstacle(chosen))
        count = len([case for case in chosen if mayBeSent(case)])
        self._ui.anonymizeButton.text = (
            _("Anonymize ({count})").format(count=count) if count else _("Anonymize")
        )
        self._cancelControl.allow(
            "" if self._cancellable() else _("Nothing is being done for the checked images")
        )
        areAll = bool(chosen) and len(chosen) == len(self._checkable())
        self._ui.checkButton.text = _("Uncheck all") if areAll else _("Check all")

    def _build(self, guard: Guard) -> None:
        ui, table = self._ui, self._ui.imagesTable
        table.verticalHeader().hide()
        header = table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(IMAGE, qt.QHeaderView.Stretch)
        table.connect("itemChanged(QTableWidgetItem*)", guard(self._boxChanged))
        table.connect("itemSelectionChanged()", guard(self._changed))
        ui.checkButton.connect("clicked()", guard(self._checkAll))
        ui.dicomButton.connect("clicked()", guard(self._openDicom))
        ui.sampleButton.connect("clicked()", guard(self._addSamples))
        ui.anonymizeButton.connect("clicked()", guard(self._start))
        ui.cancelButton.connect("clicked()", guard(self._cancel))
        ui.modelBox.connect("currentIndexChanged(int)", guard(self._modelChanged))
        ui.profileBox.connect("currentIndexChanged(int)", guard(self._profileChanged))
        ui.strengthSlider.connect("valueChanged(double)", guard(self._strengthChanged))

    def _fillRows(self) -> None:
        """Make the rows anew where there are other cases."""
        if self._rows == self._anonymizing.cases:
            return
        table, chosen = self._ui.imagesTable, self.current
        self._rows = list(self._anonymizing.cases)
        with silent(table):
            table.setRowCount(len(self._rows))
            for row in range(len(self._rows)):
                for column in (IMAGE, STATE, LEFT, STORE):
                    table.setItem(row, column, qt.QTableWidgetItem(""))
            if chosen in self._rows:
                table.setCurrentCell(self._rows.index(chosen), STATE)
            else:
                table.setCurrentCell(-1, -1)

    def _showCase(self, row: int, case: Case) -> None:
        table = self._ui.imagesTable
        why = reasonText(case)
        eta = case.job.eta_seconds if case.job and case.job.state.is_waiting else None
        texts = {
            IMAGE: self._nameOf(case),
            STATE: stageText(case),
            LEFT: etaText(eta),
            STORE: case.storeAnswer,
        }
        with silent(table):
            for column, text in texts.items():
                item = table.item(row, column)
                if item.text() != text:
                    item.setText(text)
                item.setToolTip(why or text)
            colour = STATE_COLOURS.get(case.stage)
            brush = qt.QBrush(qt.QColor(colour)) if colour else qt.QBrush()
            table.item(row, STATE).setForeground(brush)
            self._showBox(table.item(row, IMAGE), case)
        self._showProgress(row, case)

    def _showBox(self, item: Any, case: Case) -> None:
        """Show the box of an image; one that cannot be sent says why."""
        flags = qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable
        obstacle = boxText(case)
        item.setFlags(flags if obstacle else flags | qt.Qt.ItemIsUserCheckable)
        item.setCheckState(qt.Qt.Checked if case.key in self._checked else qt.Qt.Unchecked)
        if obstacle:
            item.setToolTip(" ".join(text for text in (obstacle, reasonText(case)) if text))

    def _showProgress(self, row: int, case: Case) -> None:
        """Show a bar while the user waits; a hidden one would come back when Qt lays out."""
        table = self._ui.imagesTable
        bar = table.cellWidget(row, PROGRESS)
        if not case.isBusy:
            if bar is not None:
                bar.hide()  # it is deleted later
                table.removeCellWidget(row, PROGRESS)
            return
        if bar is None:
            bar = qt.QProgressBar()
            bar.maximum = 100
            bar.textVisible = False
            table.setCellWidget(row, PROGRESS, bar)
        bar.value = round(100 * case.fraction)

    def _nameOf(self, case: Case) -> str:
        volume = slicer.mrmlScene.GetNodeByID(case.volumeID) if case.volumeID else None
        return case.name if case.picture or volume is None else volume.GetName()

    def _showOptions(self) -> None:
        ui, model = self._ui, self._model()
        models = [found for found in self._connection.models if not found.problem]
        default = next((found.id for found in models if found.default), "")
        isKept = any(found.id == self._settings.model for found in models)
        chosen = ui.modelBox.currentData or (self._settings.model if isKept else default)
        fill(ui.modelBox, [(f"{found.name} {found.version}", found.id) for found in models], chosen)
        profiles = list(model.profiles or model.operating_points) if model else []
        fill(
            ui.profileBox,
            [(wordOf(name), name) for name in profiles],
            ui.profileBox.currentData or self._settings.profile,
        )
        for widget in (ui.modelBox, ui.profileBox, ui.strengthSlider):
            widget.enabled = bool(models)
        self._proposeStrength()
        ui.riskLabel.visible = bool(models)
        ui.riskLabel.text = riskText(self._model(), self._profile(), ui.strengthSlider.value)

    def _proposeStrength(self) -> None:
        """Set the strength that the bundle proposes, once for each model and profile."""
        model, profile = self._model(), self._profile()
        if model is None or self._strengthSetFor == f"{model.id} {profile}":
            return
        isFirst = not self._strengthSetFor
        self._strengthSetFor = f"{model.id} {profile}"
        proposed = model.operating_points.get(profile, {}).get("strength", 0.7)
        if isFirst and self._settings.strength and profile == self._settings.profile:
            proposed = self._settings.strength
        with silent(self._ui.strengthSlider):
            self._ui.strengthSlider.value = float(proposed)

    def _model(self) -> Model | None:
        name = self._ui.modelBox.currentData
        models = self._connection.models
        return next((model for model in models if model.id == name), None)

    def _profile(self) -> str:
        return self._ui.profileBox.currentData or ""

    def _chosen(self) -> list[Case]:
        return [case for case in self._rows if case.key in self._checked]

    def _checkable(self) -> list[Case]:
        return [case for case in self._rows if not boxText(case)]

    def _cancellable(self) -> list[Case]:
        return [case for case in self._chosen() if case.isBusy]

    def _obstacle(self, chosen: list[Case]) -> str:
        if not self._connection.isConnected:
            return _("Connect to a server first")
        if not self._mayUpload():
            return _("Agree above that images may be sent to this server")
        if not self._rows:
            return _("Load a radiograph first")
        if not chosen:
            return _("Check the images that shall be anonymized")
        if not any(mayBeSent(case) for case in chosen):
            return _("The checked images are being worked on, or are published")
        return ""

    def _start(self) -> None:
        model = self._model()
        options = Options(
            model=model.id if model else "",
            profile=self._profile(),
            strength=round(self._ui.strengthSlider.value, 2),
        )
        ready = []
        for case in self._chosen():
            if not mayBeSent(case):
                continue
            try:
                volume = slicer.mrmlScene.GetNodeByID(case.volumeID)
                case.original = readOriginal(volume, self._database)
            except Exception as error:
                # A header can be wrong in more ways than anybody foresees; the others go on.
                case.error = explained(error)
            else:
                ready.append(case)
        self._anonymizing.start(ready, options)
        if ready and self.current is None:
            self.choose(ready[0])
        self._changed()

    def _cancel(self) -> None:
        self._anonymizing.cancel(self._cancellable())
        self._changed()

    def _checkAll(self) -> None:
        keys = {case.key for case in self._checkable()}
        self._checked = set() if keys <= self._checked else keys
        self._changed()

    def _boxChanged(self, item: Any) -> None:
        if item.column() != IMAGE:
            return
        key = self._rows[item.row()].key
        if item.checkState() == qt.Qt.Checked:
            self._checked.add(key)
        else:
            self._checked.discard(key)
        self._changed()

    def _openDicom(self) -> None:
        slicer.util.selectModule("DICOM")

    def _addSamples(self) -> None:
        self._loadSamples()
        self._changed()

    def _modelChanged(self, index: int) -> None:
        self._settings.model = self._ui.modelBox.currentData or ""
        self._changed()

    def _profileChanged(self, index: int) -> None:
        self._settings.profile, self._settings.strength = self._profile(), None
        self._changed()

    def _strengthChanged(self, value: float) -> None:
        self._settings.profile = self._profile()
        self._settings.strength = value
        self._changed()
