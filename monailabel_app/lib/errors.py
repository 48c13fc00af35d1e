"""What a client is told when something does not work: `{error, message, hint}` and a 4xx.

No message names a file of the server, a UID or a value of a header.
"""

from __future__ import annotations

from privdiff_infer.errors import PrivDiffError


class ApiError(PrivDiffError):
    """A request that cannot be answered as asked.

    Attributes
    ----------
    status
        Of HTTP.
    code
        One word for programs.
    """

    status = 400
    code = "bad_request"


class BadRequest(ApiError):
    """A value is impossible."""


class Unauthenticated(ApiError):
    """Nobody knows who asks."""

    status, code = 401, "unauthenticated"

    def __init__(self) -> None:
        super().__init__(
            "no valid token came with this request", "send Authorization: Bearer TOKEN"
        )

    def __reduce__(self) -> tuple[type[Unauthenticated], tuple[()]]:
        return type(self), ()


class Forbidden(ApiError):
    """Who asks may not do this."""

    status, code = 403, "forbidden"

    def __init__(self, role: str) -> None:
        super().__init__(f"this needs the role {role}", "ask the administrator of this server")
        self.role = role

    def __reduce__(self) -> tuple[type[Forbidden], tuple[str]]:
        return type(self), (self.role,)


class NotFound(ApiError):
    """There is no such thing, or not for who asks."""

    status, code = 404, "not_found"


class Conflict(ApiError):
    """It is there, but its state does not allow this."""

    status, code = 409, "conflict"


class TooLarge(ApiError):
    """More bytes than this server takes."""

    status, code = 413, "too_large"


class MethodNotAllowed(ApiError):
    """The address is right, the method is not."""

    status, code = 405, "method_not_allowed"


class TooLong(ApiError):
    """An address longer than any that this server gave."""

    status, code = 414, "uri_too_long"


class TooManyHeaders(ApiError):
    """More headers, or longer ones, than any client of ours sends."""

    status, code = 431, "headers_too_large"


class Misdirected(ApiError):
    """The request was meant for another server, or another page had it sent."""

    status, code = 403, "foreign_origin"


class Busy(ApiError):
    """Later, perhaps."""

    status, code = 429, "busy"


class ReadOnly(ApiError):
    """The studies are read, never written."""

    status, code = 405, "read_only"
