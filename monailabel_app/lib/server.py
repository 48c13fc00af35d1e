"""What the routes work with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fastapi import Request

from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.datastores.studies import Studies, open_studies
from monailabel_app.lib.jobs.store import JobStore
from monailabel_app.lib.models.registry import ModelRegistry
from monailabel_app.lib.settings import ServerSettings
from monailabel_app.lib.state_folder import StateFolder


@dataclass(frozen=True)
class Server:
    """The parts of a running server; `asgi.py` keeps one in ``app.state.server``.

    Attributes
    ----------
    settings
        What the administrator chose.
    folder
        STATE.
    jobs
        The queue.
    audit
        Who did what to which job.
    models
        The bundles, and which one is the default.
    """

    settings: ServerSettings
    folder: StateFolder
    jobs: JobStore
    audit: ServerAudit
    models: ModelRegistry

    @classmethod
    def open(cls, settings: ServerSettings) -> Server:
        """Create STATE where it is missing, open the queue and check the audit log."""
        folder = StateFolder(settings.state)
        folder.create()
        return cls(
            settings,
            folder,
            JobStore.open(settings),
            ServerAudit.open(folder),
            ModelRegistry(settings),
        )

    @cached_property
    def studies(self) -> Studies:
        """The originals that are listed, opened when somebody first asks for them.

        Raises
        ------
        OptionError
            If the settings name none.
        """
        return open_studies(self.settings, self.folder)


def server(request: Request) -> Server:
    """Return the server that a request came to; a dependency of routes."""
    found: Server = request.app.state.server
    return found
