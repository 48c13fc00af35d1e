"""Section: which server, how it stands with it, and whether images may go there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from .Connection import Connection, Status
from .Controls import addresses, silent
from .Guard import Guard
from .Settings import Settings
from .Signal import Signal

COLOURS = {
    Status.CONNECTED: "#3c9a4a",
    Status.FAILED: "#d0433b",
    Status.SILENT: "#c98a1b",
}


class ServerSection:
    """Connects, and asks for consent; `withdrawn` tells that it holds no longer.

    Parameters
    ----------
    guard
        Wraps what widgets call.
    ui
        Widgets of the panel by name.
    connection, settings
        What is shown and changed.
    changed
        Called after the user did something.
    """

    def __init__(
        self,
        guard: Guard,
        ui: Any,
        connection: Connection,
        settings: Settings,
        changed: Callable[[], None],
    ) -> None:
        self._ui, self._connection, self._settings = ui, connection, settings
        self._changed = changed
        self._agreed = ""
        self.withdrawn = Signal()
        addresses(ui.serverBox, settings.servers)
        ui.connectButton.connect("clicked()", guard(self._connect))
        ui.tokenEdit.connect("returnPressed()", guard(self._connect))
        ui.consentBox.connect("toggled(bool)", guard(self._consent))
        ui.rememberBox.connect("toggled(bool)", guard(self._remember))
        connection.changed.connect(self._noteAddress)

    @property
    def mayUpload(self) -> bool:
        """Whether the user agreed that images go to the server of the connection."""
        url = self._connection.url
        return bool(url) and (self._agreed == url or self._settings.mayReceive(url))

    def refresh(self) -> None:
        """Show how things stand."""
        ui, connection = self._ui, self._connection
        ui.statusLabel.text = connection.text
        colour = COLOURS.get(connection.status)
        ui.statusLabel.styleSheet = f"color: {colour}" if colour else ""
        isConnecting = connection.status is Status.CONNECTING
        ui.connectButton.text = _("Connecting...") if isConnecting else _("Connect")
        ui.consentFrame.visible = connection.isConnected
        ui.consentLabel.text = _(
            "Anonymizing sends the original images to <b>{url}</b>. They leave this computer "
            "and show the patient until they are redrawn there."
        ).format(url=connection.url)
        with silent(ui.consentBox), silent(ui.rememberBox):
            ui.consentBox.checked = self.mayUpload
            ui.rememberBox.checked = self._settings.mayReceive(connection.url)
        ui.rememberBox.enabled = self.mayUpload

    def _connect(self) -> None:
        self._connection.connect(self._ui.serverBox.currentText, self._ui.tokenEdit.text)
        self._changed()

    def _consent(self, agreed: bool) -> None:
        self._agreed = self._connection.url if agreed else ""
        if not agreed:
            self._forget()
        self._noteConsent()

    def _remember(self, wanted: bool) -> None:
        if wanted:
            self._settings.consented.append(self._connection.url)
        else:
            self._forget()
        self._noteConsent()

    def _noteConsent(self) -> None:
        if not self.mayUpload:
            self.withdrawn.emit()
        self._changed()

    def _forget(self) -> None:
        if self._connection.url in self._settings.consented:
            self._settings.consented.remove(self._connection.url)

    def _noteAddress(self) -> None:
        if self._connection.status is Status.CONNECTED:
            self._settings.remember(self._settings.servers, self._connection.url)
            addresses(self._ui.serverBox, self._settings.servers)
