"""The panel: puts workflow, scene and sections together, and lets a timer drive them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.util import VTKObservationMixin

from .Anonymizing import Anonymizing
from .Background import Background, unexpected
from .Cases import Case
from .ComparisonViews import ComparisonViews
from .Connection import ClientFactory, Connection
from .ImagesSection import ImagesSection
from .Originals import DicomDatabase
from .PrivacySection import PrivacySection
from .privdiff_client import ClientError
from .PublishSection import PublishSection
from .Regions import Regions
from .Reviewing import Reviewing
from .ReviewSection import ReviewSection
from .Samples import addSamples
from .SceneImages import ROLE, SceneImages, displayOf, images
from .ServerSection import ServerSection
from .Settings import Settings
from .Wording import sentence

TICK_MILLISECONDS = 100

FILE_SAVED = "fileSaved(qSlicerIO::IOProperties)"
SCENE_SUFFIXES = (".mrml", ".mrb")


class Panel(VTKObservationMixin):
    """Everything behind the widgets of the module.

    Parameters
    ----------
    ui
        Widgets of the panel by name.
    scene
        MRML scene.
    layoutManager
        Of the application.
    userSettings
        QSettings.
    database
        Where DICOM files are.
    files
        What loads and saves the files of the application.
    makeClient
        Makes clients of servers.
    sampleFolder
        Where the sample images are.
    """

    def __init__(
        self,
        ui: Any,
        scene: Any,
        layoutManager: Any,
        userSettings: Any,
        database: DicomDatabase,
        files: Any,
        makeClient: ClientFactory,
        sampleFolder: str,
    ) -> None:
        super().__init__()
        self._ui, self._scene, self._userSettings = ui, scene, userSettings
        self._files, self._sampleFolder = files, sampleFolder
        self.settings = Settings.load(userSettings.value)
        self._threads = (Background(), Background(), Background())
        self.connection = Connection(makeClient, *self._threads)
        self.anonymizing = Anonymizing(self.connection)
        self.reviewing = Reviewing(self.connection, self.anonymizing)
        self.images = SceneImages(scene)
        self.regions = Regions(scene)
        self.views = ComparisonViews(layoutManager, self.images)
        self._shown: tuple[Case, str] | None = None
        self._isStale = self._isSceneNew = True
        self._isEntered = False
        self._makeSections(database)
        self._listen()
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MILLISECONDS)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()
        self._shortcuts = self._makeShortcuts()
        self.enter(False)
        self.refresh()

    def enter(self, entered: bool) -> None:
        """Use keys and views of the application while the module is seen, and only then."""
        self._isEntered, self._shown = entered, None
        if entered:
            self.refresh()
        else:
            self.views.close()
        for shortcut in self._shortcuts:
            shortcut.enabled = entered

    def close(self) -> None:
        """Stop everything here, before the module is reloaded or the application ends.

        Jobs go on at the server, and await review in its queue.
        """
        self._timer.stop()
        self.removeObservers()
        self._files.disconnect(FILE_SAVED, self._fileSaved)
        self.connection.disconnect()
        for thread in self._threads:
            thread.stop()
        self.settings.save(self._userSettings.setValue)
        self.enter(False)
        for shortcut in self._shortcuts:
            shortcut.deleteLater()

    def tell(self, error: ClientError) -> None:
        """Show an error, with what to do, until the user closes it."""
        self._ui.messageLabel.text = sentence(error.message, error.hint)
        self._ui.messageFrame.visible = True

    def refresh(self) -> None:
        """Show how things stand."""
        self._isStale = False
        self._serverSection.refresh()
        self._imagesSection.refresh()
        current = self._imagesSection.current
        self._showCurrent(current)
        self._reviewSection.refresh(current, len(self.anonymizing.cases))
        self._publishSection.refresh()
        self._privacySection.refresh()

    def _makeSections(self, database: DicomDatabase) -> None:
        ui, changed = self._ui, self._stale
        ui.messageFrame.visible = False
        ui.messageFrame.styleSheet = "#messageFrame { border: 1px solid #d0433b; }"
        ui.dismissButton.connect("clicked()", self._dismiss)
        ui.imagesTable.connect("cellClicked(int,int)", self._rowClicked)
        self._serverSection = ServerSection(ui, self.connection, self.settings, self._userActed)
        self._imagesSection = ImagesSection(
            ui,
            self.connection,
            self.anonymizing,
            self.settings,
            database,
            lambda: self._serverSection.mayUpload,
            self._addSamples,
            self._userActed,
        )
        self._reviewSection = ReviewSection(
            ui,
            self.connection,
            self.reviewing,
            self.images,
            self.views,
            self.regions,
            self.settings,
            self._step,
            self._userActed,
        )
        self._publishSection = PublishSection(
            ui,
            self.connection,
            self.anonymizing,
            self.reviewing,
            self.settings,
            self.tell,
            self._userActed,
        )
        self._privacySection = PrivacySection(
            ui, self._scene, self.images, self.anonymizing, self._userActed
        )
        self._serverSection.withdrawn.connect(self.anonymizing.cancelSending)
        self.connection.changed.connect(changed)
        self.reviewing.changed.connect(changed)
        self.anonymizing.changed.connect(lambda case: changed())
        self.anonymizing.removed.connect(self._caseRemoved)
        self.anonymizing.arrived.connect(self._resultArrived)
        self.reviewing.found.connect(self._imagesSection.choose)
        self.reviewing.failed.connect(self.tell)

    def _listen(self) -> None:
        scene = slicer.vtkMRMLScene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndImportEvent):
            self.addObserver(self._scene, event, self._sceneChanged)
        self.addObserver(self._scene, scene.StartCloseEvent, self._sceneCloses)
        self.addObserver(self._scene, scene.EndCloseEvent, self._sceneChanged)
        # The scene itself does not tell that it is saved.
        self._files.connect(FILE_SAVED, self._fileSaved)

    def _makeShortcuts(self) -> list[Any]:
        window = slicer.util.mainWindow()
        if window is None:  # Slicer runs without one, for instance in tests of its own
            return []
        return [self._shortcut(window, "P", -1), self._shortcut(window, "N", 1)]

    def _shortcut(self, window: Any, key: str, step: int) -> Any:
        shortcut = qt.QShortcut(window)
        shortcut.setKey(qt.QKeySequence(key))
        shortcut.connect("activated()", lambda: self._step(step))
        return shortcut

    def _tick(self) -> None:
        """Take in what the threads found; the edge behind which nothing may escape to Qt."""
        try:
            self.connection.tick()
            for thread in self._threads:
                thread.drain()
            self.anonymizing.tick()
            self.reviewing.tick()
            if self._isSceneNew and not self._scene.IsBatchProcessing():
                self._takeImages()
            if self._isStale:
                self.refresh()
        except Exception as error:
            self.tell(unexpected(error))

    def _stale(self) -> None:
        self._isStale = True

    def _userActed(self) -> None:
        """Show at once what the user did, and keep what they chose."""
        self.settings.save(self._userSettings.setValue)
        self.refresh()

    def _dismiss(self) -> None:
        self._ui.messageFrame.visible = False

    def _rowClicked(self, row: int, column: int) -> None:
        """Show the image again where the user has chosen another layout meanwhile.

        A click also tells that the module is seen: not every Slicer says so after a reload.
        """
        if not self._isEntered or not self.views.isOpen:
            self.enter(True)

    def _takeImages(self) -> None:
        """Let there be one case for each image of the scene."""
        present = {volume.GetID(): volume for volume in images(self._scene)}
        for case in list(self.anonymizing.cases):
            isGone = self.images.originalOf(case) is None
            if case.volumeID and (isGone if case.picture else case.volumeID not in present):
                self.images.forgetOriginal(case)
                self._shown = None
            # A result outlives its original; what comes from the queue is nothing without it.
            if self.images.resultOf(case) is None and (case.picture or not case.volumeID):
                self.anonymizing.remove(case)
        for volumeID, volume in present.items():
            if self.anonymizing.caseOf(volumeID) is None:
                self.anonymizing.add(Case(volume.GetName(), volumeID=volumeID))
        # A volume can come before its pixels do.
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", self._scene)
        self._isSceneNew = any(
            volume.GetImageData() is None and not volume.GetAttribute(ROLE) for volume in volumes
        )
        self._isStale = True

    def _addSamples(self) -> None:
        volumes = addSamples(self._sampleFolder)
        self._takeImages()
        for volume in volumes:
            case = self.anonymizing.caseOf(volume.GetID())
            if case is not None:
                self._imagesSection.check(case)

    def _resultArrived(self, case: Case) -> None:
        try:
            self.images.addResult(case)
        except ClientError as error:
            case.result, case.error = None, error
            return
        self.regions.forgetSeen(case)
        self._shown = None
        if self._imagesSection.current is None:
            self._imagesSection.choose(case)

    def _showCurrent(self, case: Case | None) -> None:
        """Show a case that was chosen, once; where it has no result, its original."""
        if case is None or not self._isEntered or self._shown == (case, case.resultID):
            return
        self._shown = (case, case.resultID)
        if self.images.originalOf(case) is None and self.images.resultOf(case) is None:
            return
        self.views.show(case, self._reviewSection.mode, self._reviewSection.fade)
        self._linkWindows(case)

    def _linkWindows(self, case: Case) -> None:
        self.removeObservers(self._windowChanged)
        for volume in (self.images.originalOf(case), self.images.resultOf(case)):
            if volume is not None:
                self.addObserver(displayOf(volume), "ModifiedEvent", self._windowChanged)

    def _windowChanged(self, display: Any, event: str) -> None:
        case = self._imagesSection.current
        if case is None:
            return
        result = self.images.resultOf(case)
        isOfResult = result is not None and display == result.GetDisplayNode()
        self.images.copyWindow(case, fromResult=isOfResult)

    def _step(self, count: int) -> None:
        cases, current = self.anonymizing.cases, self._imagesSection.current
        if not cases:
            return
        at = cases.index(current) if current in cases else -count
        self._imagesSection.choose(cases[(at + count) % len(cases)])
        self.refresh()

    def _caseRemoved(self, case: Case) -> None:
        self.reviewing.giveBack(case)
        self.images.removeDerived(case)
        self._shown = None
        self._stale()

    def _sceneChanged(self, caller: Any, event: str) -> None:
        self._isSceneNew = True

    def _sceneCloses(self, caller: Any, event: str) -> None:
        """Let everything go that belongs to the scene; jobs that run for it are cancelled."""
        self.removeObservers(self._windowChanged)
        for case in list(self.anonymizing.cases):
            self.anonymizing.remove(case)
        self._isSceneNew = True

    def _fileSaved(self, properties: Any) -> None:
        path = Path(str(properties["fileName"]))
        # A scene can be a file, a bundle, or a folder; no other data is saved as a folder.
        if path.suffix.lower() in SCENE_SUFFIXES or path.is_dir():
            self._privacySection.warn()
