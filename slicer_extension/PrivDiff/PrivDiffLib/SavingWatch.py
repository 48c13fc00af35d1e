"""Tells when a scene is about to be saved, or was saved.

The scene itself does not tell: neither the dialog nor the writers of Slicer invoke its
StartSaveEvent. The dialog in which the user chooses what to save is seen once it is open; saving by
a script opens none, and is heard of afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt

from .Guard import Guard

FILE_SAVED = "fileSaved(qSlicerIO::IOProperties)"
SCENE_SUFFIXES = (".mrml", ".mrb")
DIALOG = "qSlicerSaveDataDialog"
"""How the names of its class and of the object begin."""


class SavingWatch:
    """Calls one function before, or else another one after a scene is saved.

    Parameters
    ----------
    guard
        Wraps what is called back.
    files
        What saves the files of the application, and tells of it.
    before, after
        What is called; `after` only where `before` was not.
    """

    def __init__(
        self, guard: Guard, files: Any, before: Callable[[], None], after: Callable[[], None]
    ) -> None:
        self._files, self._before, self._after = files, guard(before), guard(after)
        self._isTold = False
        self._whenSaved = guard(self._saved)
        files.connect(FILE_SAVED, self._whenSaved)

    def tick(self) -> None:
        """Look for the dialog; called by a timer, which goes on while a dialog is open."""
        window = qt.QApplication.activeModalWidget()
        if window is None:
            self._isTold = False
        elif _isSaving(window) and not self._isTold:
            self._isTold = True
            # Once this tick is over: a message waits for the user, and the timer would wait too.
            qt.QTimer.singleShot(0, self._before)

    def close(self) -> None:
        """Look no more."""
        self._files.disconnect(FILE_SAVED, self._whenSaved)

    def _saved(self, properties: Any) -> None:
        path = Path(str(properties["fileName"]))
        # A scene can be a file, a bundle, or a folder; no other data is saved as a folder.
        isScene = path.suffix.lower() in SCENE_SUFFIXES or path.is_dir()
        if isScene and not self._isTold:
            self._after()


def _isSaving(window: Any) -> bool:
    return DIALOG in (window.objectName, str(window.className()).removesuffix("Private"))
