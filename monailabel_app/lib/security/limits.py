"""How large a request may be: address, headers and body, on every route."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monailabel_app.lib.answers import answer_error
from monailabel_app.lib.errors import BadRequest, TooLarge, TooLong, TooManyHeaders

MOST_HEADERS = 100
MOST_HEADER_BYTES = 32_768
MOST_QUERY_BYTES = 8_192
MOST_QUERY_VALUES = 200

REMEDY = "send fewer or smaller files, or ask the administrator for a larger limit"


class RequestLimits:
    """ASGI: refuses what is too large before, or while, it is read.

    The answer goes out at once. What the client still sends is thrown away by uvicorn, so the
    connection can be used again.

    Parameters
    ----------
    app
        What is inside.
    most_bytes
        Of a body.
    """

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self.app, self.most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises
        ------
        ApiError
            If its address, headers or declared length are too large.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        _check_head(scope)
        if _declared_length(scope["headers"]) > self.most_bytes:
            raise self._too_large()
        await self._run_counting(scope, receive, send)

    async def _run_counting(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; once too much was read, ours is the answer, whatever it says."""
        read, exceeded, started = 0, False, False

        async def counting() -> Message:
            nonlocal read, exceeded
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most_bytes:
                exceeded = True
                raise self._too_large()
            return message

        async def unless_exceeded(message: Message) -> None:
            nonlocal started
            if exceeded and not started:
                return
            started = True
            await send(message)

        try:
            await self.app(scope, counting, unless_exceeded)
        except Exception:
            if not exceeded or started:
                raise
        if exceeded and not started:
            await answer_error(self._too_large())(scope, receive, send)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the request has more than {self.most_bytes // 10**6} MB", REMEDY)


def _check_head(scope: Scope) -> None:
    headers, query = scope["headers"], scope["query_string"]
    if len(query) > MOST_QUERY_BYTES or query.count(b"&") >= MOST_QUERY_VALUES:
        raise TooLong("the address has too much after its question mark", "send fewer values")
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MOST_HEADERS or size > MOST_HEADER_BYTES:
        raise TooManyHeaders("the request has too many headers", "send fewer or shorter ones")


def _declared_length(headers: Sequence[tuple[bytes, bytes]]) -> int:
    values = {value for name, value in headers if name == b"content-length"}
    if not values:
        return 0
    try:
        (length,) = (int(value) for value in values)
    except ValueError:
        raise BadRequest("the length of the request is no number", "send one number") from None
    return length
