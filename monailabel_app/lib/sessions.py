"""Sessions of MONAI Label's clients: one image that was sent, for an hour.

Unlike upstream's, a session keeps nothing of the name that the client gave its file, unpacks no
archive, and has an id that cannot be guessed.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, File, UploadFile

from monailabel_app.lib.errors import BadRequest, NotFound
from monailabel_app.lib.security.roles import Principal, Require, Role
from monailabel_app.lib.server import Server, server
from monailabel_app.lib.upstream import SESSION_SECONDS
from privdiff_infer.release import PRIVATE_MODE, reporting_disk_errors

ID = re.compile(r"[0-9a-f]{32}")

router = APIRouter(prefix="/session", tags=["Session"])


class Sessions:
    """The sessions below a folder; a session is a file, and its time is that of its last use.

    Parameters
    ----------
    folder
        Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, content: BinaryIO) -> str:
        """Keep an image; return the id of its session.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self.remove_expired()
        session_id = uuid.uuid4().hex
        path = self._folder / session_id
        try:
            with reporting_disk_errors(), path.open("wb") as file:
                path.chmod(PRIVATE_MODE)
                shutil.copyfileobj(content, file)
        except BaseException:  # a client that leaves too: half an original must not stay
            path.unlink(missing_ok=True)
            raise
        return session_id

    def open(self, session_id: str) -> BinaryIO:
        """Open the image of a session, which begins its hour anew.

        Raises
        ------
        NotFound
            If there is no such session, or it has expired.
        """
        path = self._path(session_id)
        with _unless_it_ends():
            os.utime(path)
            return path.open("rb")

    def last_use(self, session_id: str) -> float:
        """Return when a session was last used, in seconds since 1970.

        Raises
        ------
        NotFound
            If there is no such session, or it has expired.
        """
        with _unless_it_ends():
            return self._path(session_id).stat().st_mtime

    def remove(self, session_id: str) -> None:
        """End a session.

        Raises
        ------
        NotFound
            If there is no such session.
        """
        with _unless_it_ends():
            self._path(session_id).unlink()

    def remove_expired(self) -> int:
        """End what nobody used for an hour; return how many there were."""
        oldest = time.time() - SESSION_SECONDS
        ended = 0
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another request ended it
                if path.stat().st_mtime < oldest:
                    path.unlink()
                    ended += 1
        return ended

    def _path(self, session_id: str) -> Path:
        """Return where the image of a session lies, if there is one."""
        self.remove_expired()
        if not ID.fullmatch(session_id):
            raise _unknown()
        return self._folder / session_id


@contextmanager
def _unless_it_ends() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise _unknown() from None


def _unknown() -> NotFound:
    return NotFound("there is no such session", "send the image again with PUT /session/")


def sessions(here: Annotated[Server, Depends(server)]) -> Sessions:
    """Return the sessions of a server; a dependency of routes."""
    return Sessions(here.folder.sessions)


@router.put("/", summary="Send an image for later inference")
def create_session(
    open_sessions: Annotated[Sessions, Depends(sessions)],
    asking: Annotated[Principal, Depends(Require(Role.USER))],
    files: Annotated[list[UploadFile], File()],
    uncompress: bool = False,
) -> dict[str, Any]:
    """Keep one image for an hour since its last use."""
    if len(files) != 1 or uncompress:
        raise BadRequest(
            "a session holds one image, in one file", "send every image in a session of its own"
        )
    return _described(open_sessions, open_sessions.add(files[0].file))


@router.get("/{session_id}", summary="Look at a session")
def get_session(
    session_id: str,
    open_sessions: Annotated[Sessions, Depends(sessions)],
    asking: Annotated[Principal, Depends(Require(Role.USER))],
) -> dict[str, Any]:
    """Tell whether a session is there, and how long still."""
    described: dict[str, Any] = _described(open_sessions, session_id)["session_info"]
    return described


@router.delete("/{session_id}", summary="End a session")
def remove_session(
    session_id: str,
    open_sessions: Annotated[Sessions, Depends(sessions)],
    asking: Annotated[Principal, Depends(Require(Role.USER))],
) -> dict[str, Any]:
    """Delete the image of a session."""
    open_sessions.remove(session_id)
    return {"name": session_id}


def _described(open_sessions: Sessions, session_id: str) -> dict[str, Any]:
    used = int(open_sessions.last_use(session_id))
    info = {"name": session_id, "last_access_ts": used, "expiry": SESSION_SECONDS}
    return {"session_id": session_id, "session_info": info}
