"""HTTP as DICOMweb needs it: who we are, how long we wait, how much we read, and no gossip.

What `requests` leaves open is closed here: every call has a timeout, every answer a largest size
and a longest duration, no redirect leads to another host, and TLS is verified always. What it and
its companions say of a failure names URLs, and these name patients' UIDs; so failures become
`StoreError` with texts of our own.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth

from privdiff_infer.errors import OptionError, StoreError
from privdiff_infer.radiograph import MAX_FILE_BYTES

Answer = TypeVar("Answer")

TOKEN = "PRIVDIFF_DICOMWEB_TOKEN"
USER = "PRIVDIFF_DICOMWEB_USER"
PASSWORD = "PRIVDIFF_DICOMWEB_PASSWORD"
CA = "PRIVDIFF_DICOMWEB_CA"
CLIENT_CERT = "PRIVDIFF_DICOMWEB_CLIENT_CERT"
CLIENT_KEY = "PRIVDIFF_DICOMWEB_CLIENT_KEY"
TIMEOUT = "PRIVDIFF_DICOMWEB_TIMEOUT"

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""Longest silence of a store before and within an answer, unless the environment says otherwise."""

WAIT_SECONDS = (0.5, 1.0, 2.0)
"""Before each new attempt."""

WHOLE_ANSWER = 10
"""An answer that trickles in may last this many times the longest silence."""

MAX_ANSWER_BYTES = MAX_FILE_BYTES + 2**20
"""The largest file that a reader takes, and what a multipart message puts around it."""

MAX_RETRY_AFTER_SECONDS = 30.0

PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that can be another one later (RFC 9110, RFC 6585)."""

WILDCARDS = {"%2A": "*", "%3F": "?"}
"""Of attribute matching (PS3.4 C.2.2.2.4), as `dicomweb_client` and as servers write them."""

GOSSIPS = ("dicomweb_client.web", "retrying", "urllib3.connectionpool", "urllib3.util.retry")
"""Loggers that write URLs, thus UIDs."""


@dataclass(frozen=True, repr=False)
class Access:
    """How a store knows us; None and no token mean netrc, or nobody.

    Attributes
    ----------
    auth
        Of every request, or None for what netrc says of the host.
    ca
        File of the certificates that are trusted instead of the usual ones.
    client_certificate
        (certificate, key) files, or None.
    answer_seconds
        Longest silence of the store.
    """

    auth: AuthBase | None = None
    ca: Path | None = None
    client_certificate: tuple[Path, Path] | None = None
    answer_seconds: float = ANSWER_SECONDS

    def __repr__(self) -> str:
        return "Access(<secret>)"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Access:
        """Read the variables ``PRIVDIFF_DICOMWEB_*``; an empty one counts as absent.

        Raises
        ------
        OptionError
            If they contradict each other or name a file that is not there. No value is quoted but
            names of files.
        """
        value = {name: text for name, text in environment.items() if text}
        ca = _file(value, CA)
        certificate, key = _file(value, CLIENT_CERT), _file(value, CLIENT_KEY)
        if key and not certificate:
            raise OptionError(f"{CLIENT_KEY} is set alone", f"set {CLIENT_CERT} too")
        return cls(
            auth=_auth(value),
            ca=ca,
            # A file can hold both, the key after the certificate.
            client_certificate=(certificate, key or certificate) if certificate else None,
            answer_seconds=_seconds(value),
        )


class DicomwebSession(requests.Session):
    """A session with the rules of this module.

    Parameters
    ----------
    access
        How the store knows us.
    """

    def __init__(self, access: Access) -> None:
        super().__init__()
        self.auth = access.auth
        self.verify = str(access.ca) if access.ca else True
        if access.client_certificate:
            self.cert = tuple(str(path) for path in access.client_certificate)  # type: ignore[assignment]
        self._waits: tuple[float, ...] = WAIT_SECONDS
        self.timeout = (CONNECT_SECONDS, access.answer_seconds)
        for scheme in ("http://", "https://"):
            self.mount(scheme, _BoundedAdapter(WHOLE_ANSWER * access.answer_seconds))

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Write wildcards as they are, which a query may (RFC 3986 3.4): Orthanc 1.10 wants it."""
        prepared = super().prepare_request(request)
        if prepared.url:
            address, mark, query = prepared.url.partition("?")
            for escaped, plain in WILDCARDS.items():
                query = query.replace(escaped, plain)
            prepared.url = address + mark + query
        return prepared

    def merge_environment_settings(self, *arguments: Any, **named: Any) -> Any:
        """Let our CA win over REQUESTS_CA_BUNDLE, which `requests` prefers otherwise."""
        settings = super().merge_environment_settings(*arguments, **named)
        if isinstance(self.verify, str):
            settings["verify"] = self.verify
        return settings

    def ask(self, call: Callable[[], Answer]) -> Answer:
        """Return what `call` returns; where that may help, try again after a while.

        `call` must be harmless when repeated. Once a store has failed to the end, later calls try
        only once until one succeeds: a long list of images must not wait minutes for each.

        Raises
        ------
        StoreError
            Without context: what `requests` raises quotes the URL.
        """
        answer = _explained(call)
        for wait in self._waits:
            if not isinstance(answer, StoreError) or not answer.is_passing:
                break
            time.sleep(max(wait, answer.retry_after))
            answer = _explained(call)
        if isinstance(answer, StoreError):
            if answer.is_passing:
                self._waits = ()
            raise answer
        self._waits = WAIT_SECONDS
        return answer

    def ask_once(self, call: Callable[[], Answer]) -> Answer:
        """Return what `call` returns, which is not harmless when repeated.

        Raises
        ------
        StoreError
            As `ask`.
        """
        answer = _explained(call)
        if isinstance(answer, StoreError):
            raise answer
        return answer

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Follow a redirect on the same host only: credentials and certificates were meant for it.

        Raises
        ------
        StoreError
            If the store sends us elsewhere, or from https to http.
        """
        target = super().get_redirect_target(resp)
        if target is None or resp.request.url is None:
            return target
        here, there = urlsplit(resp.request.url), urlsplit(target)
        same_host = there.hostname in (None, here.hostname)
        if not same_host or (here.scheme, there.scheme) == ("https", "http"):
            raise StoreError("the store redirects to another host", "name that host in the URL")
        return target


def _explained(call: Callable[[], Answer]) -> Answer | StoreError:
    """Call with HTTP libraries kept from logging; return the answer, or why there is none."""
    loggers = [logger for logger in map(logging.getLogger, GOSSIPS) if not logger.disabled]
    for logger in loggers:
        logger.disabled = True
    try:
        return call()
    except StoreError as error:
        return error
    except requests.RequestException as error:
        return _failure(error)
    finally:
        for logger in loggers:
            logger.disabled = False


def status_failure(response: requests.Response) -> StoreError:
    """Return the error that an answer of 3xx, 4xx or 5xx is."""
    status = response.status_code
    problem, remedy = STATUS_TEXTS.get(status, ("the store refuses the request", "see its log"))
    if 300 <= status < 400:
        problem, remedy = "the store redirects what is sent to it", "name the final URL"
    elif status in PASSING_STATUS:
        problem, remedy = "the store cannot answer now", "run again later, or look at its log"
    return StoreError(
        f"{problem} (HTTP {status})",
        remedy,
        is_passing=status in PASSING_STATUS,
        retry_after=_retry_after(response),
    )


STATUS_TEXTS = {
    401: (
        "the store refuses the credentials",
        f"set {TOKEN}, or {USER} and {PASSWORD}, or netrc",
    ),
    403: ("the store forbids this", "ask its administrator for the right"),
    404: ("the store has nothing at this address", "check the path of the URL"),
    413: ("the store refuses an instance of this size", "raise its limit"),
}


class _BearerAuth(AuthBase):
    """Sends a token; as `auth` of a session it wins over netrc, and does not follow redirects."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _BoundedAdapter(HTTPAdapter):
    """Answers whose size and duration have an end."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        super().__init__()

    def send(self, *arguments: Any, **named: Any) -> requests.Response:
        response = super().send(*arguments, **named)
        response.raw = _BoundedBody(response.raw, time.monotonic() + self._seconds)
        return response


class _BoundedBody:
    """The body of an answer, given up when it is too large or takes too long."""

    def __init__(self, raw: Any, deadline: float) -> None:
        self._raw = raw
        self._deadline = deadline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, amount: int, decode_content: bool | None = None) -> Iterator[bytes]:
        """Yield chunks; `requests` reads bodies by this method alone."""
        size = 0
        for chunk in self._raw.stream(amount, decode_content=decode_content):
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise StoreError(
                    f"the store's answer has more than {MAX_ANSWER_BYTES} bytes",
                    "retrieve this instance by other means",
                )
            if time.monotonic() > self._deadline:
                raise _silence()
            yield chunk


def _failure(error: requests.RequestException) -> StoreError:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return status_failure(error.response)
    if isinstance(error, requests.exceptions.SSLError):
        return StoreError(
            "no TLS connection to the store: its certificate is not trusted, or it wants yours",
            f"name its CA in {CA}, and your certificate in {CLIENT_CERT}",
        )
    if isinstance(error, requests.Timeout) or "timed out" in str(error):  # of a body: only text
        return _silence()
    passing = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)
    if isinstance(error, passing):
        return StoreError(
            "the store cannot be reached, or broke off the connection",
            "check its address and that it runs",
            is_passing=True,
        )
    return StoreError(
        "the store's answer cannot be understood",
        "check that the URL is that of a DICOMweb service",
    )


def _silence() -> StoreError:
    return StoreError(
        "the store does not answer in time",
        f"run again later, or give it more seconds in {TIMEOUT}",
        is_passing=True,
    )


def _retry_after(response: requests.Response) -> float:
    """Return the seconds that an answer asks us to wait; a date, which is rare, counts as 0."""
    try:
        seconds = float(response.headers.get("Retry-After", "0"))
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _auth(value: Mapping[str, str]) -> AuthBase | None:
    if TOKEN in value:
        if USER in value or PASSWORD in value:
            raise OptionError(f"both {TOKEN} and {USER} or {PASSWORD} are set", "unset one of them")
        if not value[TOKEN].isascii() or not value[TOKEN].isprintable():
            raise OptionError(f"{TOKEN} holds characters that no token has", "set it again")
        return _BearerAuth(value[TOKEN])
    if (USER in value) != (PASSWORD in value):
        raise OptionError(f"{USER} and {PASSWORD} belong together", "set both or none")
    # As bytes: `requests` would write them in Latin-1, and servers expect UTF-8 (RFC 7617).
    return HTTPBasicAuth(value[USER].encode(), value[PASSWORD].encode()) if USER in value else None


def _file(value: Mapping[str, str], name: str) -> Path | None:
    if name not in value:
        return None
    path = Path(value[name])
    if not path.is_file():
        raise OptionError(f"{name} names {path}, which is no file", "name a PEM file")
    return path


def _seconds(value: Mapping[str, str]) -> float:
    text = value.get(TIMEOUT, str(ANSWER_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise OptionError(f"{TIMEOUT} is {text!r}", "give seconds from above 0 to 3600")
    return seconds
