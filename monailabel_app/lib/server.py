"""What the routes work with."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from monailabel_app.lib.jobs.store import JobStore
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
    """

    settings: ServerSettings
    folder: StateFolder
    jobs: JobStore

    @classmethod
    def open(cls, settings: ServerSettings) -> Server:
        """Create STATE where it is missing, and open the queue."""
        folder = StateFolder(settings.state)
        folder.create()
        return cls(settings, folder, JobStore.open(settings))


def server(request: Request) -> Server:
    """Return the server that a request came to; a dependency of routes."""
    found: Server = request.app.state.server
    return found
