"""Stands before every route: who asks, from where, and whether they may.

Pure ASGI, so that nothing of a body is read or kept for it. `protect` is all that an application
calls; from the outside inwards it puts the line of the log, the headers of every answer, the
answers of errors, the limits of a request, and the door.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastapi import FastAPI
from starlette.datastructures import Headers, State
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from monailabel_app.lib.answers import ErrorAnswers
from monailabel_app.lib.errors import (
    BadRequest,
    Busy,
    Forbidden,
    NotFound,
    Unauthenticated,
)
from monailabel_app.lib.log import RequestLog
from monailabel_app.lib.security import monai_label, policy
from monailabel_app.lib.security.attempts import MOST_IN_WINDOW, FailedSignIns
from monailabel_app.lib.security.headers import SecurityHeaders
from monailabel_app.lib.security.limits import RequestLimits
from monailabel_app.lib.security.origins import check_host, check_origin, check_peer
from monailabel_app.lib.security.roles import LOCAL, Principal

MOST_TOKEN_CHARACTERS = 8_192


class Authenticator(Protocol):
    """Knows people by their tokens."""

    async def principal(self, token: str) -> Principal | None:
        """Return whose token it is, or None where it is nobody's."""
        ...


def protect(app: FastAPI, authenticator: Authenticator | None, most_bytes: int) -> None:
    """Put the middleware before an application; its own rules for other origins go.

    Parameters
    ----------
    app
        MONAI Label's, with our routes.
    authenticator
        None for `Authentication.NONE`.
    most_bytes
        Of the body of a request.
    """
    # MONAI Label allows every origin, with credentials.
    kept = [one for one in app.user_middleware if str(one.cls) != str(CORSMiddleware)]
    app.user_middleware = [
        Middleware(RequestLog),
        Middleware(SecurityHeaders),
        Middleware(ErrorAnswers),
        Middleware(RequestLimits, most_bytes=most_bytes),
        Middleware(Door, authenticator=authenticator),
        *kept,
    ]


class Door:
    """ASGI: lets a request pass with its principal in ``request.state``, or raises `ApiError`.

    Parameters
    ----------
    app
        What is inside.
    authenticator
        None where everybody on this machine is `LOCAL`.
    """

    def __init__(self, app: ASGIApp, authenticator: Authenticator | None) -> None:
        self.app, self.authenticator = app, authenticator
        self._failed = FailedSignIns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":  # no route of ours or of MONAI Label is one
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            await self._check(scope)
        await self.app(scope, receive, send)

    async def _check(self, scope: Scope) -> None:
        method, path, headers = scope["method"], _path(scope), Headers(scope=scope)
        if self.authenticator is None:
            check_peer(scope)
            check_host(headers)
        if policy.is_public(method, path):
            return
        if self.authenticator is None:
            check_origin(headers, scope["scheme"])
            asking = LOCAL
        else:
            asking = await self._signed_in(scope, headers, self.authenticator)
        role = policy.needed_role(method, path)
        if not asking.role.includes(role):
            raise Forbidden(role.value)
        monai_label.check_query(path, scope["query_string"])
        State(scope.setdefault("state", {})).principal = asking

    async def _signed_in(
        self, scope: Scope, headers: Headers, authenticator: Authenticator
    ) -> Principal:
        token = _bearer_token(headers.getlist("authorization"))
        if token is None:
            raise Unauthenticated
        asking = await authenticator.principal(token)
        if asking is None:
            address = scope["client"][0] if scope.get("client") else ""
            if self._failed.count(address) > MOST_IN_WINDOW:
                raise Busy("too many tokens of this address were wrong", "wait for a minute")
            raise Unauthenticated
        return asking


def _path(scope: Scope) -> str:
    """Return the path of the route.

    Raises
    ------
    NotFound
        If it was sent in a form that no route has.
    """
    sent: str = scope.get("raw_path", b"").decode("latin-1") or scope["path"]
    if not policy.is_safe(sent) or not policy.is_safe(scope["path"]):
        raise NotFound("no route has a path like this", "see /openapi.json for those there are")
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path


def _bearer_token(values: Sequence[str]) -> str | None:
    """Return the token of the one Authorization header.

    Raises
    ------
    BadRequest
        If there are several, which proxies and servers read in different ways.
    """
    if len(values) > 1:
        raise BadRequest("there are several Authorization headers", "send one")
    scheme, _, token = (values[0] if values else "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not 0 < len(token) <= MOST_TOKEN_CHARACTERS:
        return None
    return token
