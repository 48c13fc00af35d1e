"""What can go wrong between here and a server; no message holds a token, an image or a UID."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    message
        What happened.
    hint
        What to do.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


class OptionError(ClientError):
    """A value that was given to this package is impossible; nothing was sent."""


class Unreachable(ClientError):
    """There was no answer: no connection, a certificate that is not trusted, or a timeout."""


class UnexpectedAnswer(ClientError):
    """Something answered, but not as this server does."""


class DigestMismatch(ClientError):
    """The bytes are not those that their SHA-256 names."""


class Cancelled(ClientError):
    """The caller does not want to wait any longer."""

    def __init__(self) -> None:
        super().__init__("cancelled", "")


class StoreRefused(ClientError):
    """A DICOMweb store did not take an instance."""


class ApiError(ClientError):
    """The server answered that it does not do this.

    Attributes
    ----------
    status
        Of HTTP.
    code
        One word for programs.
    """

    def __init__(self, status: int, code: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.status = status
        self.code = code


class Refused(ApiError):
    """A value of the request is impossible, or it is too large (400, 413, 422 and others)."""


class Unauthenticated(ApiError):
    """The server does not know who asks (401)."""


class Forbidden(ApiError):
    """Who asks may not do this (403)."""


class NotFound(ApiError):
    """There is no such thing, or not for who asks (404)."""


class Conflict(ApiError):
    """It is there, but its state does not allow this (409)."""


class Busy(ApiError):
    """The server takes no more at present (429)."""


class ServerFailed(ApiError):
    """The server could not do it, through no fault of the request (5xx)."""


OF_STATUS: Mapping[int, type[ApiError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: Busy,
}


def error_of(status: int, answer: Any) -> ApiError:
    """Return the error for an answer of the server.

    Parameters
    ----------
    status
        Of HTTP, 400 or more.
    answer
        The body as JSON, or anything if it is none.

    Examples
    --------
    >>> print(error_of(409, {"error": "conflict", "message": "not approved", "hint": "approve it"}))
    not approved; approve it
    """
    kind = OF_STATUS.get(status, ServerFailed if status >= 500 else Refused)
    fields = answer if isinstance(answer, Mapping) else {}
    message = fields.get("message") or f"the server answered with status {status}"
    hint = fields.get("hint") or "check the address, and that a PrivDiff server answers there"
    return kind(status, str(fields.get("error", "")), str(message), str(hint))
