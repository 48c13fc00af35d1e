"""Section: approved images go to the server's store, or from here to a store of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from .Anonymizing import Anonymizing
from .Cases import Stage
from .Connection import Connection
from .Controls import Control, addresses, silent
from .Guard import Guard
from .privdiff_client import ClientError, DicomwebTarget
from .Reviewing import Reviewing
from .Settings import Settings

SERVER, OWN = 0, 1


class PublishSection:
    """Publishes.

    Parameters
    ----------
    guard
        Wraps what widgets call.
    ui
        Widgets of the panel by name.
    connection, anonymizing, reviewing, settings
        What is shown and changed.
    tell
        Shows an error.
    changed
        Called after the user did something.
    """

    def __init__(
        self,
        guard: Guard,
        ui: Any,
        connection: Connection,
        anonymizing: Anonymizing,
        reviewing: Reviewing,
        settings: Settings,
        tell: Callable[[ClientError], None],
        changed: Callable[[], None],
    ) -> None:
        self._ui, self._connection = ui, connection
        self._anonymizing, self._reviewing, self._settings = anonymizing, reviewing, settings
        self._tell, self._changed = tell, changed
        self._publish = Control(ui.publishButton)
        addresses(ui.storeBox, settings.stores)
        with silent(ui.targetBox):
            ui.targetBox.setCurrentIndex(OWN if settings.isOwnStore else SERVER)
        ui.targetBox.connect("currentIndexChanged(int)", guard(self._targetChanged))
        ui.publishButton.connect("clicked()", guard(self._start))
        ui.storeBox.connect("editTextChanged(QString)", guard(self._addressChanged))

    def refresh(self) -> None:
        """Show how things stand."""
        ui = self._ui
        ui.storeFrame.visible = ui.targetBox.currentIndex == OWN
        approved = self._count(Stage.APPROVED)
        self._publish.allow(self._obstacle(approved))
        ui.publishButton.text = (
            _("Publish approved ({count})").format(count=approved)
            if approved
            else _("Publish approved")
        )
        published = self._count(Stage.PUBLISHED)
        ui.publishLabel.text = _("Published: {count}. What the store said is in the table.").format(
            count=published
        )
        ui.publishLabel.visible = published > 0

    def _obstacle(self, approved: int) -> str:
        principal = self._connection.principal
        if not self._connection.isConnected or principal is None:
            return _("Connect to a server first")
        if not principal.may_review:
            return _("This needs the role reviewer; ask the administrator of the server")
        if not approved:
            return _("No image is approved")
        if self._reviewing.isBusy:
            return _("The server has not answered yet")
        if self._ui.targetBox.currentIndex == SERVER:
            return "" if principal.store else _("This server has no store; choose one of your own")
        return "" if self._ui.storeBox.currentText.strip() else _("Give the address of the store")

    def _count(self, stage: Stage) -> int:
        """Return how many cases of the server we are connected to are that far."""
        cases = self._anonymizing.cases
        url = self._connection.url
        return len([case for case in cases if case.server == url and case.stage is stage])

    def _start(self) -> None:
        try:
            target = self._target()
        except ClientError as error:
            self._tell(error)
            return
        self._reviewing.publish(list(self._anonymizing.cases), target)
        self._changed()

    def _target(self) -> DicomwebTarget | None:
        ui = self._ui
        if ui.targetBox.currentIndex == SERVER:
            return None
        target = DicomwebTarget(
            ui.storeBox.currentText,
            user=ui.storeUserEdit.text,
            password=ui.storePasswordEdit.text,
        )
        self._settings.remember(self._settings.stores, target.url)
        addresses(ui.storeBox, self._settings.stores)
        return target

    def _targetChanged(self, index: int) -> None:
        self._settings.isOwnStore = index == OWN
        self._changed()

    def _addressChanged(self, address: str) -> None:
        self._changed()
