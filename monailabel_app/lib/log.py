"""Logs of every process: JSON objects, one a line, in ``STATE/logs``, and on stderr for people.

They hold what happened and never to whom: no id of an image, no params, no name of a file, no
token. Only what our own code says on purpose is written, as an event with facts. Of a warning of
anything else, MONAI Label and uvicorn included, whose messages quote requests, a line tells that
there was one, and of which logger; of an exception it tells the kind and where in the code, not its
text.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from types import TracebackType
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monailabel_app.lib.security.roles import Principal
from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.release import PRIVATE_MODE

FILE_BYTES = 10_000_000
FILES = 5
"""Of each process; the oldest goes."""

OURS = ("monailabel_app", "privdiff_infer", "privdiff_training")

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

SHOWN_FRAMES = 12

logger = logging.getLogger(__name__)


def configure(folder: StateFolder, process: str) -> None:
    """Send all logs of this process to one file and to stderr, whatever was set up before.

    Parameters
    ----------
    folder
        STATE, which exists.
    process
        Name of the file: ``server``, ``dispatcher``.
    """
    file = _PrivateFile(
        folder.logs / f"{process}.jsonl", maxBytes=FILE_BYTES, backupCount=FILES - 1, delay=True
    )
    file.setFormatter(_Json())
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(_Human())
    for handler in (file, console):
        handler.addFilter(_is_worth_a_line)
    root = logging.getLogger()
    root.handlers[:] = [file, console]
    root.setLevel(logging.INFO)
    for name in list(logging.root.manager.loggerDict):  # others have made handlers of their own
        other = logging.getLogger(name)
        other.handlers.clear()
        other.propagate = True
    logging.captureWarnings(True)  # those of pydicom quote values
    threading.excepthook = _log_end_of_thread


class RequestLog:
    """ASGI: one line for every request, with the template of its route in place of its address.

    Parameters
    ----------
    app
        What is inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            milliseconds = round((time.perf_counter() - began) * 1000, 1)
            facts = _facts_of(scope) | {"status": status, "ms": milliseconds}
            logger.info("request", extra={"facts": facts})


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        error = (ended.exc_type, ended.exc_value, ended.exc_traceback)
        logger.error("a thread failed", exc_info=error)


def _facts_of(scope: Scope) -> dict[str, Any]:
    asking = scope.get("state", {}).get("principal")
    who = {"role": asking.role.value, "by": asking.name} if isinstance(asking, Principal) else {}
    # A method can be any word that a client made up.
    method = scope["method"] if scope["method"] in METHODS else "other"
    return {"method": method, "route": _template(scope)} | who


def _template(scope: Scope) -> str:
    """Return the path of a route as it is declared; nothing where no route was found."""
    return getattr(scope.get("route"), "path", "")


class _PrivateFile(RotatingFileHandler):
    def _open(self) -> Any:
        def private(path: str, flags: int) -> int:
            return os.open(path, flags, PRIVATE_MODE)

        return open(self.baseFilename, self.mode, encoding="utf-8", opener=private)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_content(record), default=str, ensure_ascii=True)


class _Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        content = _content(record)
        moment, level, event = (content.pop(name) for name in ("time", "level", "event"))
        return " ".join(
            [moment, level.upper(), event, *(f"{name}={text}" for name, text in content.items())]
        )


def _content(record: logging.LogRecord) -> dict[str, Any]:
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    content: dict[str, Any] = {
        "time": moment.isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "event": _event(record),
        "logger": record.name,
    }
    facts = getattr(record, "facts", {})
    content |= facts if isinstance(facts, Mapping) else {}
    if record.exc_info and record.exc_info[1] is not None:
        content |= _exception(record.exc_info[1], record.exc_info[2])
    return content


def _event(record: logging.LogRecord) -> str:
    return record.getMessage() if _is_ours(record) else "message of a library"


def _exception(error: BaseException, trace: TracebackType | None) -> dict[str, Any]:
    frames = traceback.extract_tb(trace)[-SHOWN_FRAMES:]
    places = [f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in frames]
    cause = error.__cause__ or error.__context__
    kinds = [type(error).__name__, *([type(cause).__name__] if cause else [])]
    return {"exception": " from ".join(kinds), "trace": " > ".join(places)}


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    return _is_ours(record) or record.levelno >= logging.WARNING


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in OURS
