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
    **values
        What stands where either has a name in braces.

    Attributes
    ----------
    message, hint
        In English.
    templates
        Both before the values were put in, so that somebody else can say them in another language.
    values
        As given.
    """

    def __init__(self, message: str, hint: str, **values: object) -> None:
        self.templates = (message, hint)
        self.values = values
        # A text of a server, which has no values, can hold braces.
        self.message = message.format(**values) if values else message
        self.hint = hint.format(**values) if values else hint
        super().__init__(f"{self.message}; {self.hint}" if hint else self.message)


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

    def __init__(self, status: int, code: str, message: str, hint: str, **values: object) -> None:
        super().__init__(message, hint, **values)
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
    code = str(fields.get("error", ""))
    hint = "check the address, and that a PrivDiff server answers there"
    if fields.get("message"):
        return kind(status, code, str(fields["message"]), str(fields.get("hint") or hint))
    return kind(status, code, "the server answered with status {number}", hint, number=status)
