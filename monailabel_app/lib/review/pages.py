"""Static pages as files of this package: read when asked for, named by a closed list."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from monailabel_app.lib.errors import NotFound

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}

FRESH = {"Cache-Control": "no-cache"}
"""Browsers ask whether a page has changed, so that it is that of the server's version."""


def page_routes(path: str, folder: Path, title: str) -> APIRouter:
    """Return routes of a page at `path`, and of its parts below.

    Parameters
    ----------
    path
        Of the page, without a slash at its end.
    folder
        Holds ``index.html`` and its parts; no other folder is served.
    title
        For the description of the routes.
    """
    files = {file.name: file for file in folder.iterdir() if file.suffix in MEDIA_TYPES}
    router = APIRouter(prefix=path, tags=["Pages"])

    @router.get("", summary=title, response_class=FileResponse)
    def page() -> FileResponse:
        """Return the page. It holds no data, and asks for a token where the server wants one."""
        return _file(files["index.html"])

    @router.get("/{name}", summary=f"Part of: {title}", response_class=FileResponse)
    def part(name: str) -> FileResponse:
        """Return a script or a style sheet of the page."""
        if name not in files:
            raise NotFound("this page has no such part", f"open {path}")
        return _file(files[name])

    return router


def _file(file: Path) -> FileResponse:
    return FileResponse(file, media_type=MEDIA_TYPES[file.suffix], headers=FRESH)
