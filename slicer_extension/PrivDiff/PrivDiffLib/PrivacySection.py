"""Section: originals of the scene, which a saved scene would hold, and names of patients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from .Anonymizing import Anonymizing
from .Controls import Control
from .Guard import Guard
from .Patients import patientItems
from .SceneImages import SceneImages, originals


class PrivacySection:
    """Warns of originals, and removes them.

    Parameters
    ----------
    guard
        Wraps what widgets call.
    ui
        Widgets of the panel by name.
    scene, images, anonymizing
        What is looked at and changed.
    changed
        Called after the user did something.
    """

    def __init__(
        self,
        guard: Guard,
        ui: Any,
        scene: Any,
        images: SceneImages,
        anonymizing: Anonymizing,
        changed: Callable[[], None],
    ) -> None:
        self._ui, self._scene, self._images = ui, scene, images
        self._anonymizing, self._changed = anonymizing, changed
        self._remove = Control(ui.removeOriginalsButton)
        ui.removeOriginalsButton.connect("clicked()", guard(self._removeOriginals))

    def refresh(self) -> None:
        """Show how things stand."""
        count, named = self._count()
        self._ui.privacyLabel.text = (
            _(
                "This scene holds {count} original images, and names {named} patients or studies. "
                "If it is saved, pixels, names and birth dates are saved with it."
            ).format(count=count, named=named)
            if count or named
            else _("This scene holds no original image, and names no patient.")
        )
        self._ui.privacyLabel.styleSheet = "color: #c98a1b" if count or named else ""
        self._remove.allow(self._obstacle(count + named))

    def warnBefore(self) -> None:
        """Say what will be saved, where originals or names are."""
        self._warn(
            _(
                "This scene holds {count} original images, and names {named} patients or studies; "
                "what you save will hold them too. To share it, press Cancel, press 'Remove "
                "originals from the scene' in the module PrivDiff, and save then."
            )
        )

    def warnAfter(self) -> None:
        """Say what was saved, where originals or names are."""
        self._warn(
            _(
                "The scene that was saved holds {count} original images, and names {named} "
                "patients or studies. To share it, delete what was saved, press 'Remove "
                "originals from the scene' in the module PrivDiff, and save again."
            )
        )

    def _warn(self, text: str) -> None:
        count, named = self._count()
        if count or named:
            slicer.util.warningDisplay(text.format(count=count, named=named))

    def _count(self) -> tuple[int, int]:
        return len(originals(self._scene)), len(patientItems(self._scene))

    def _obstacle(self, count: int) -> str:
        if not count:
            return _("There is no original in this scene")
        # Without its original a job would be cancelled.
        if any(case.isBusy for case in self._anonymizing.cases):
            return _("Images are being redrawn: wait for them, or cancel them")
        return ""

    def _removeOriginals(self) -> None:
        self._images.removeOriginals()
        self._changed()
