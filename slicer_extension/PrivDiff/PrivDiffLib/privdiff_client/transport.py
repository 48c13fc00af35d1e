"""HTTP as the client needs it: who we are, how long we wait, what is tried again, and no gossip.

What `requests` says of a failure names URLs and proxies, so failures become errors of our own
without it. A redirect is never followed: an image or a token would go to where nobody consented.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from .errors import Cancelled, DigestMismatch, OptionError, UnexpectedAnswer, Unreachable, error_of

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""Longest silence before and within an answer."""

WHOLE_ANSWER = 10
"""An answer that trickles in may last this many times the longest silence."""

MAX_ANSWER_BYTES = 512 * 2**20
CHUNK_BYTES = 2**16

WAIT_SECONDS = (0.5, 1.0, 2.0)
"""Before each new attempt of a request that is harmless when repeated."""

PASSING_STATUS = frozenset({429, 502, 503, 504})
"""Answers that can be another one later."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

ShouldStop = Callable[[], bool]


class Token(AuthBase):
    """A bearer token; neither `repr` nor a copy of the session's headers shows it.

    Being the `auth` of a session it also keeps `requests` from asking netrc.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign a request."""
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def __repr__(self) -> str:
        return "Token(<secret>)"


@dataclass(frozen=True, repr=False)
class Answer:
    """A whole answer of a server, of any status."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """Return the body as JSON, or None if it is none."""
        try:
            return json.loads(self.content)
        except ValueError:
            return None


class Transport:
    """Requests to one server.

    Parameters
    ----------
    url
        Of the server; see `server_url`.
    token
        Bearer token, or empty.
    ca
        File of the certificates that are trusted instead of the usual ones.
    answer_seconds
        Longest silence of the server.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        ca: Path | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        auth: AuthBase | None = None,
    ) -> None:
        self.url = server_url(url)
        if (token or auth) and _is_open_network(self.url):
            raise OptionError(
                "over http:// everybody on the way could read the password or token",
                "use an https:// address",
            )
        self._auth = auth or Token(token)
        self._verify: str | bool = str(ca) if ca else True
        self._answer_seconds = answer_seconds
        self._session = requests.Session()
        if urlsplit(self.url).hostname in LOOPBACK:
            # A proxy would carry image and token over the network, in the clear where it is http.
            self._session.trust_env = False
            self._verify = str(ca) if ca else _authorities()

    def __repr__(self) -> str:
        return f"Transport({self.url!r})"

    def close(self) -> None:
        """End the connections."""
        self._session.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool,
        cancelled: ShouldStop = lambda: False,
        **request: Any,
    ) -> Answer:
        """Return the answer to a request.

        Parameters
        ----------
        method, path
            `path` begins with a slash and is put behind the server's URL.
        repeatable
            Whether a second arrival is harmless, so that it may be tried again.
        cancelled
            Asked before each attempt, and between pieces of an answer to GET. What another request
            did must be known, so its answer is read to the end.
        **request
            For `requests`: headers, params, data, files, json.

        Raises
        ------
        ApiError
            If the server refuses.
        Unreachable
            If there is no answer.
        Cancelled
            If the caller said so.
        """
        stop_reading = cancelled if method == "GET" else _never
        for wait in (*(WAIT_SECONDS if repeatable else ()), None):
            if cancelled():
                raise Cancelled
            try:
                answer = self._once(method, path, stop_reading, request)
            except Unreachable:
                if wait is None:
                    raise
            else:
                if wait is None or answer.status not in PASSING_STATUS:
                    return answer
            _sleep(wait, cancelled)
        raise AssertionError("the last attempt returns or raises")

    def json(self, method: str, path: str, *, repeatable: bool, **request: Any) -> Any:
        """Return the JSON of an answer that says yes; as `ask`.

        Raises
        ------
        UnexpectedAnswer
            If it is no JSON.
        """
        answer = accepted(self.ask(method, path, repeatable=repeatable, **request))
        found = answer.json()
        if found is None:
            raise UnexpectedAnswer(
                "the answer is no JSON", "check the address: another service may answer there"
            )
        return found

    def _once(
        self, method: str, path: str, cancelled: ShouldStop, request: Mapping[str, Any]
    ) -> Answer:
        deadline = time.monotonic() + WHOLE_ANSWER * self._answer_seconds
        try:
            with self._session.request(
                method,
                f"{self.url}{path}",
                auth=self._auth,
                verify=self._verify,
                timeout=(CONNECT_SECONDS, self._answer_seconds),
                allow_redirects=False,
                stream=True,
                **request,
            ) as response:
                content = _read(response, deadline, cancelled)
                return Answer(response.status_code, response.headers, content)
        except requests.exceptions.SSLError:
            raise Unreachable(
                "{url} has a certificate that is not trusted",
                "give the file of the certificate authority that your institution uses",
                url=self.url,
            ) from None
        except requests.Timeout:
            raise Unreachable(
                "{url} did not answer in time",
                "try again; ask whether the server runs",
                url=self.url,
            ) from None
        except requests.RequestException:
            raise Unreachable(
                "{url} cannot be reached",
                "check the address, and that the server runs",
                url=self.url,
            ) from None


def server_url(url: str) -> str:
    """Return the address of a server in the form in which it is compared and shown.

    Raises
    ------
    OptionError
        If it is no http(s) address, or holds a password.

    Examples
    --------
    >>> server_url("HTTPS://Example.org:8000/label/")
    'https://example.org:8000/label'
    """
    try:
        parts = urlsplit(url.strip())
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host = False
    if not has_host or parts.scheme not in ("http", "https"):
        raise OptionError("this is no address of a server", "write https://host:port")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise OptionError(
            "the address holds more than host, port and path", "give a password or token apart"
        )
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def accepted(answer: Answer) -> Answer:
    """Return an answer that says yes.

    Raises
    ------
    ApiError
        If it says no.
    UnexpectedAnswer
        If it leads elsewhere.
    """
    if answer.status >= 400:
        raise error_of(answer.status, answer.json())
    if answer.status >= 300:
        raise UnexpectedAnswer(
            "the server sends us to another address, which is not followed",
            "give the address that it really has",
        )
    return answer


def check_digest(content: bytes, sha256: str) -> None:
    """Compare bytes with their SHA-256.

    Raises
    ------
    DigestMismatch
        If they are others.
    """
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DigestMismatch(
            "the bytes that arrived are not those of the record",
            "fetch them again; if that does not help, redraw the image",
        )


def _read(response: requests.Response, deadline: float, cancelled: ShouldStop) -> bytes:
    pieces, size = [], 0
    for piece in response.iter_content(CHUNK_BYTES):
        pieces.append(piece)
        size += len(piece)
        if cancelled():
            raise Cancelled
        if time.monotonic() > deadline:
            raise requests.Timeout
        if size > MAX_ANSWER_BYTES:
            raise UnexpectedAnswer("the answer is too large", "check the address")
    return b"".join(pieces)


def _authorities() -> str | bool:
    """Return the certificates that the environment names, as `requests` reads it, or its own."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


def _never() -> bool:
    return False


def _sleep(seconds: float | None, cancelled: ShouldStop) -> None:
    end = time.monotonic() + (seconds or 0)
    while time.monotonic() < end:
        if cancelled():
            raise Cancelled
        time.sleep(0.05)


def _is_open_network(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in LOOPBACK
