"""The panel: puts workflow, scene and sections together, and lets a timer drive them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.util import VTKObservationMixin

from .Anonymizing import Anonymizing
from .Background import Background, explained
from .Cases import Case
from .ComparisonViews import ComparisonViews
from .Connection import ClientFactory, Connection
from .Controls import reveal
from .Guard import Guard
from .ImagesSection import ImagesSection
from .Originals import DicomDatabase
from .PrivacySection import PrivacySection
from .privdiff_client import ClientError
from .PublishSection import PublishSection
from .Regions import Regions
from .Reviewing import Reviewing
from .ReviewSection import ReviewSection
from .Samples import addSamples
from .SavingWatch import SavingWatch
from .SceneImages import ROLE, SceneImages, displayOf, images
from .ServerSection import ServerSection
from .Settings import Settings
from .Wording import errorText

TICK_MILLISECONDS = 100


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
        self._sampleFolder = sampleFolder
        self._guard = Guard()
        self._guard.failed.connect(self._recover)
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
        self._saving = SavingWatch(
            self._guard, files, self._privacySection.warnBefore, self._privacySection.warnAfter
        )
        self._listen()
        self._steps = self._makeSteps()
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MILLISECONDS)
        self._timer.connect("timeout()", self._guard(self._tick))
        self._timer.start()
        self._shortcuts = self._makeShortcuts()
        self.enter(False)
        self.refresh()

    def enter(self, entered: bool) -> None:
        """Use keys and views of the application while the module is seen, and only then."""
        self._guard(self._enter)(entered)

    def _enter(self, entered: bool) -> None:
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
        for step in (
            self._timer.stop,
            self.removeObservers,
            self._saving.close,
            self.connection.disconnect,
            *(thread.stop for thread in self._threads),
            self._keepSettings,
            lambda: self._enter(False),
            *(shortcut.deleteLater for shortcut in self._shortcuts),
        ):
            self._guard(step)()

    def tell(self, error: ClientError) -> None:
        """Show an error, with what to do, until the user closes it."""
        self._ui.messageLabel.text = errorText(error)
        reveal(self._ui.messageFrame)

    def refresh(self) -> None:
        """Show how things stand; what cannot be shown keeps nothing else from being shown."""
        self._isStale = False
        for show in self._shows:
            show()

    def _makeSections(self, database: DicomDatabase) -> None:
        guard, ui, changed = self._guard, self._ui, self._stale
        ui.messageFrame.visible = False
        ui.messageFrame.styleSheet = "#messageFrame { border: 1px solid #d0433b; }"
        ui.dismissButton.connect("clicked()", guard(self._dismiss))
        ui.imagesTable.connect("cellClicked(int,int)", guard(self._rowClicked))
        self._serverSection = ServerSection(
            guard, ui, self.connection, self.settings, self._userActed
        )
        self._imagesSection = ImagesSection(
            guard,
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
            guard,
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
            guard,
            ui,
            self.connection,
            self.anonymizing,
            self.reviewing,
            self.settings,
            self.tell,
            self._userActed,
        )
        self._privacySection = PrivacySection(
            guard, ui, self._scene, self.images, self.anonymizing, self._userActed
        )
        self._shows = [
            guard.often(show)
            for show in (
                self._serverSection.refresh,
                self._imagesSection.refresh,
                self._showCurrent,
                self._refreshReview,
                self._publishSection.refresh,
                self._privacySection.refresh,
            )
        ]
        self._serverSection.withdrawn.connect(self.anonymizing.cancelSending)
        self.connection.changed.connect(changed)
        self.reviewing.changed.connect(changed)
        self.anonymizing.changed.connect(lambda case: changed())
        self.anonymizing.removed.connect(self._caseRemoved)
        self.anonymizing.arrived.connect(self._resultArrived)
        self.reviewing.found.connect(self._imagesSection.choose)
        self.reviewing.failed.connect(self.tell)

    def _listen(self) -> None:
        scene, whenChanged = slicer.vtkMRMLScene, self._guard(self._sceneChanged)
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndImportEvent):
            self.addObserver(self._scene, event, whenChanged)
        self.addObserver(self._scene, scene.StartCloseEvent, self._guard(self._sceneCloses))
        self.addObserver(self._scene, scene.EndCloseEvent, whenChanged)
        self._whenWindowChanges = self._guard(self._windowChanged)

    def _makeShortcuts(self) -> list[Any]:
        window = slicer.util.mainWindow()
        if window is None:  # Slicer runs without one, for instance in tests of its own
            return []
        return [self._shortcut(window, "P", -1), self._shortcut(window, "N", 1)]

    def _shortcut(self, window: Any, key: str, step: int) -> Any:
        shortcut = qt.QShortcut(window)
        shortcut.setKey(qt.QKeySequence(key))
        shortcut.connect("activated()", self._guard(lambda: self._step(step)))
        return shortcut

    def _makeSteps(self) -> list[Callable[[], None]]:
        """Return what is done again and again: one that fails keeps no other from being done."""
        steps = [
            self.connection.tick,
            *(thread.drain for thread in self._threads),
            self.anonymizing.tick,
            self.reviewing.tick,
            self._saving.tick,
            self.views.settle,
            self._takeNewImages,
        ]
        return [self._guard.often(step) for step in steps]

    def _tick(self) -> None:
        """Take in what the threads found, and show it."""
        for step in self._steps:
            step()
        if self._isStale:
            self.refresh()

    def _recover(self, error: ClientError) -> None:
        """Say what went wrong, and let every button work again."""
        self.anonymizing.release(error)
        self.tell(error)
        self._stale()

    def _stale(self) -> None:
        self._isStale = True

    def _userActed(self) -> None:
        """Show at once what the user did, and keep what they chose."""
        self._keepSettings()
        self.refresh()

    def _keepSettings(self) -> None:
        self.settings.save(self._userSettings.setValue)

    def _dismiss(self) -> None:
        self._ui.messageFrame.visible = False

    def _rowClicked(self, row: int, column: int) -> None:
        """Show the image again where the user has chosen another layout meanwhile.

        A click also tells that the module is seen: not every Slicer says so after a reload.
        """
        if not self._isEntered or not self.views.isOpen:
            self.enter(True)

    def _takeNewImages(self) -> None:
        if self._isSceneNew and not self._scene.IsBatchProcessing():
            self._takeImages()

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
            elif not case.volumeID:
                self.anonymizing.cancel([case])
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
        except Exception as error:
            # A file can be wrong in more ways than anybody foresees; the case must say so.
            case.result, case.error = None, explained(error)
            return
        self.regions.forgetSeen(case)
        self._shown = None
        if self._imagesSection.current is None:
            self._imagesSection.choose(case)

    def _refreshReview(self) -> None:
        self._reviewSection.refresh(self._imagesSection.current, len(self.anonymizing.cases))

    def _showCurrent(self) -> None:
        """Show the case that was chosen, once; where it has no result, its original."""
        case = self._imagesSection.current
        if case is None or not self._isEntered or self._shown == (case, case.resultID):
            return
        self._shown = (case, case.resultID)
        if self.images.originalOf(case) is None and self.images.resultOf(case) is None:
            return
        self.views.show(case, self._reviewSection.mode, self._reviewSection.fade)
        self._linkWindows(case)

    def _linkWindows(self, case: Case) -> None:
        self.removeObservers(self._whenWindowChanges)
        for volume in (self.images.originalOf(case), self.images.resultOf(case)):
            if volume is not None:
                self.addObserver(displayOf(volume), "ModifiedEvent", self._whenWindowChanges)

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
        self.removeObservers(self._whenWindowChanges)
        for case in list(self.anonymizing.cases):
            self.anonymizing.remove(case)
        self._isSceneNew = True
