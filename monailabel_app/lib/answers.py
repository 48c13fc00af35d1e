"""How errors become answers: always JSON ``{error, message, hint}``, never a value of the server's.

What nobody foresaw becomes a 500 with a reference; the log has the same reference and where it
happened. The connection stays usable: an exception that reached uvicorn would close it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monailabel_app.lib.errors import ApiError
from privdiff_infer.errors import (
    ImageError,
    OptionError,
    OutputError,
    PrivDiffError,
    PublishError,
    StoreError,
)

logger = logging.getLogger(__name__)

OF_STATUS = {
    400: ("this request cannot be understood", "see the description of this route"),
    401: ("no valid token came with this request", "send Authorization: Bearer TOKEN"),
    403: ("this is not allowed", "ask the administrator of this server"),
    404: ("there is no such thing here", "check the address and the ids in it"),
    405: ("this address does not take this method", "see the description of this route"),
    413: ("the request is too large", "send fewer or smaller files"),
    415: ("this kind of content is not taken", "see the description of this route"),
    429: ("one is at work already", "wait for its end, or stop it"),
}
"""What is said in the place of a framework's own words, which can quote what was sent."""

CONSTANT_TEXT: dict[type[PrivDiffError], tuple[int, str]] = {
    ImageError: (422, "image_refused"),
    PublishError: (409, "publish_refused"),
    StoreError: (424, "store_failed"),
}
"""Errors of the library whose problem and remedy are constant text, and may therefore be shown."""

SHOWN_ERRORS = 5
"""Problems of a request that one answer tells."""


def answer(
    status: int, code: str, message: str, hint: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return an error as clients read it."""
    content = {"error": code, "message": message, "hint": hint}
    return JSONResponse(content, status_code=status, headers=headers)


def answer_error(error: ApiError) -> JSONResponse:
    """Return the answer of an error that was meant for clients."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return answer(error.status, error.code, error.problem, error.remedy, headers)


def install(app: FastAPI, mistakes: Iterable[type[Exception]] = ()) -> None:
    """Let an application answer all its errors in our form.

    Parameters
    ----------
    app
        Whose routes may raise anything.
    mistakes
        What routes that are not ours raise when a client asked for the impossible.
    """
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(OptionError, _answer_mistake)
    app.add_exception_handler(OutputError, _answer_unwritten)
    for constant in CONSTANT_TEXT:
        app.add_exception_handler(constant, _answer_constant_text)
    for mistake in mistakes:
        app.add_exception_handler(mistake, _answer_mistake)


class ErrorAnswers:
    """ASGI: answers what no handler knew, and keeps the connection.

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
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ApiError as error:
            if started:
                raise
            await answer_error(error)(scope, receive, send)
        except Exception:
            reference = secrets.token_hex(4)
            logger.exception("failed", extra={"facts": {"reference": reference}})
            if started:
                raise  # half an answer is out: to close the connection is all that is left
            await _answer_unforeseen(reference)(scope, receive, send)


async def _answer_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return answer_error(error)


async def _answer_constant_text(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PrivDiffError)
    status, code = next(found for kind, found in CONSTANT_TEXT.items() if isinstance(error, kind))
    return answer(status, code, error.problem, error.remedy)


async def _answer_unwritten(request: Request, error: Exception) -> JSONResponse:
    """Say nothing of the text, whose advice is for commands and not for clients."""
    logger.error("not written", extra={"facts": {"kind": type(error).__name__}})
    return answer(
        507,
        "not_written",
        "the server cannot write this now",
        "try again in a few seconds; if it stays so, ask the administrator to look at the disk",
    )


async def _answer_mistake(request: Request, error: Exception) -> JSONResponse:
    """Say nothing of the text, which can name a file of the server."""
    logger.info("mistake", extra={"facts": {"kind": type(error).__name__}})
    return answer(
        422, "impossible", "a value of this request is impossible here", OF_STATUS[400][1]
    )


async def _answer_invalid_request(request: Request, error: Exception) -> JSONResponse:
    """Name the fields and what they should be, without the values that came."""
    assert isinstance(error, RequestValidationError)
    problems = [_problem(found) for found in error.errors()[:SHOWN_ERRORS]]
    return answer(422, "invalid_request", "; ".join(problems), "see the description of this route")


def _problem(found: dict[str, Any]) -> str:
    # The last part of a place can be a key that the client made up.
    place = ".".join(str(part) for part in found["loc"][:2])
    place = place.encode("ascii", "backslashreplace").decode()  # it can have half a character
    return f"{place}: {found['type'].replace('_', ' ')}"


async def _answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answer what the framework or a route of MONAI Label raised.

    The routes of MONAI Label raise a 500 where the client named nothing that they can work with.
    """
    assert isinstance(error, HTTPException)
    status = 400 if error.status_code == 500 else error.status_code
    message, hint = OF_STATUS.get(status, (HTTPStatus(status).phrase.lower(), OF_STATUS[400][1]))
    code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    return answer(status, code, message, hint, dict(error.headers or {}))


def _answer_unforeseen(reference: str) -> JSONResponse:
    return answer(
        500,
        "internal",
        f"the server failed; reference {reference}",
        "give this reference to the administrator, whose log has it",
    )
