"""The server that the user chose: who we are there, what it offers, and whether it answers."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from slicer.i18n import tr as _

from .Background import Background, Ticket
from .privdiff_client import (
    ClientError,
    Model,
    NotFound,
    Principal,
    PrivDiffClient,
    Unauthenticated,
    UnexpectedAnswer,
)
from .Signal import Signal
from .Translations import wordOf
from .Wording import errorText

ClientFactory = Callable[..., PrivDiffClient]
"""Makes a client of (address, token), with `answer_seconds` if it shall be less patient."""

CONNECT_ANSWER_SECONDS = 5.0
"""Longest silence of a server that somebody waits to be connected to."""


class Status(Enum):
    """How it stands with the server."""

    NONE = "none"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    SILENT = "silent"
    FAILED = "failed"


class Connection:
    """One server at a time.

    Parameters
    ----------
    makeClient
        Makes clients; each thread has one of its own.
    uploads
        Sends originals, which takes longest.
    transfers
        Fetches, cancels and decides.
    monitor
        Asks how jobs are, so that a long transfer does not hold it up.
    """

    def __init__(
        self,
        makeClient: ClientFactory,
        uploads: Background,
        transfers: Background,
        monitor: Background,
    ) -> None:
        self._makeClient = makeClient
        self.uploads, self.transfers, self.monitor = uploads, transfers, monitor
        self.status = Status.NONE
        self.error: ClientError | None = None
        self.url = ""
        self.version = ""
        self.principal: Principal | None = None
        self.models: list[Model] = []
        self.client: PrivDiffClient | None = None
        self.uploadClient: PrivDiffClient | None = None
        self.monitorClient: PrivDiffClient | None = None
        self.changed = Signal()
        self._attempt = Background()

    @property
    def isConnected(self) -> bool:
        """Whether requests make sense."""
        return self.status in (Status.CONNECTED, Status.SILENT)

    def clientOf(self, server: str) -> PrivDiffClient | None:
        """Return the client of a server, if that is the one we are connected to."""
        return self.client if self.client is not None and self.client.url == server else None

    @property
    def mayReview(self) -> bool:
        """Whether this user may decide and publish."""
        return self.isConnected and self.principal is not None and self.principal.may_review

    @property
    def text(self) -> str:
        """The status in words, with what to do."""
        if self.status is Status.NONE:
            return _("Not connected. Give the address of a PrivDiff server and press Connect.")
        if self.status is Status.CONNECTING:
            return _("Connecting to {url}...").format(url=self.url)
        if self.status is Status.SILENT:
            return _(
                "{url} does not answer now. Jobs are kept there; asking goes on by itself."
            ).format(url=self.url)
        if self.status is Status.FAILED and self.error is not None:
            return errorText(self.error)
        name = self.principal.name if self.principal else ""
        role = wordOf(self.principal.role) if self.principal else ""
        return _("Connected to {url} (version {version}) as {name}, {role}.").format(
            url=self.url, version=self.version, name=name, role=role
        )

    def connect(self, url: str, token: str) -> None:
        """Ask a server who it is and who we are; an attempt that goes on already is given up."""
        self.disconnect()
        try:
            asking = self._makeClient(url, token, answer_seconds=CONNECT_ANSWER_SECONDS)
            clients = [self._makeClient(url, token) for _thread in range(3)]
        except ClientError as error:
            self._fail(error)
            return
        self.status, self.error, self.url = Status.CONNECTING, None, asking.url

        def ask(ticket: Ticket) -> tuple[str, Principal, list[Model]]:
            try:
                return asking.health(), asking.me(), asking.models()
            except NotFound:
                raise UnexpectedAnswer(
                    _("what answers there is no PrivDiff server"),
                    _("check the address; on a MONAI Label server the PrivDiff app must be loaded"),
                ) from None

        def done(answer: tuple[str, Principal, list[Model]]) -> None:
            self.version, self.principal, self.models = answer
            self.client, self.uploadClient, self.monitorClient = clients
            self.status = Status.CONNECTED
            self.changed.emit()

        self._attempt = Background()
        self._attempt.start(ask, done, self._fail)
        self.changed.emit()

    def tick(self) -> None:
        """Take in what the server answered; called by a timer."""
        self._attempt.drain()

    def disconnect(self) -> None:
        """Forget the server."""
        self._attempt.stop()
        self.status, self.error = Status.NONE, None
        self.client = self.uploadClient = self.monitorClient = self.principal = None
        self.models = []
        self.changed.emit()

    def heard(self) -> None:
        """Note that it answers."""
        if self.status is Status.SILENT:
            self.status = Status.CONNECTED
            self.changed.emit()

    def notHeard(self, error: ClientError) -> None:
        """Note that it does not, or does not know us any more."""
        if isinstance(error, Unauthenticated):
            self._fail(error)
        elif self.status is Status.CONNECTED:
            self.status = Status.SILENT
            self.changed.emit()

    def _fail(self, error: ClientError) -> None:
        self.status, self.error = Status.FAILED, error
        self.changed.emit()
