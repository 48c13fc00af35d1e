"""Section: originals of the scene, which a saved scene would hold with the patient's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from .Controls import Control
from .SceneImages import SceneImages, originals


class PrivacySection:
    """Warns of originals, and removes them.

    Parameters
    ----------
    ui
        Widgets of the panel by name.
    scene, images
        What is looked at and changed.
    changed
        Called after the user did something.
    """

    def __init__(
        self, ui: Any, scene: Any, images: SceneImages, changed: Callable[[], None]
    ) -> None:
        self._ui, self._scene, self._images, self._changed = ui, scene, images, changed
        self._remove = Control(ui.removeOriginalsButton)
        ui.removeOriginalsButton.connect("clicked()", self._removeOriginals)

    def refresh(self) -> None:
        """Show how things stand."""
        count = len(originals(self._scene))
        self._ui.privacyLabel.text = (
            _(
                "This scene holds {count} original images. If it is saved, the names and birth "
                "dates of the patients are saved with it."
            ).format(count=count)
            if count
            else _("This scene holds no image that came from DICOM or from the review queue.")
        )
        self._ui.privacyLabel.styleSheet = "color: #c98a1b" if count else ""
        self._remove.allow("" if count else _("There is no original in this scene"))

    def warn(self) -> None:
        """Say what is being saved, where originals are."""
        count = len(originals(self._scene))
        if count:
            slicer.util.warningDisplay(
                _(
                    "The scene that is being saved holds {count} original images, with the names "
                    "and birth dates of the patients. To share it, delete what was saved, press "
                    "'Remove originals from the scene' in the module PrivDiff, and save again."
                ).format(count=count)
            )

    def _removeOriginals(self) -> None:
        self._images.removeOriginals()
        self._changed()
