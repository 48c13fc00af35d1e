"""Sending one file to a DICOMweb store (STOW-RS, PS3.18 10.5)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from requests.auth import HTTPBasicAuth

from .errors import OptionError, StoreRefused
from .transport import ANSWER_SECONDS, Transport

FAILED, STORED = "00081198", "00081199"
FAILURE_REASON, WARNING_REASON = "00081197", "00081196"


@dataclass(frozen=True)
class StoreAnswer:
    """What a store said when it took an instance.

    Attributes
    ----------
    status
        Of HTTP.
    text
        The same for people; holds no UID.
    """

    status: int
    text: str


class DicomwebTarget:
    """A DICOMweb store that images are sent to.

    Parameters
    ----------
    url
        Of the service, such as ``https://host/dicom-web``.
    token
        Bearer token, or empty.
    user, password
        For basic authentication instead.
    ca
        File of the certificates that are trusted instead of the usual ones.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        user: str = "",
        password: str = "",
        ca: Path | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        if token and user:
            raise OptionError("both a token and a user are given", "give one of them")
        auth = HTTPBasicAuth(user.encode(), password.encode()) if user else None
        self._transport = Transport(url, token, ca, answer_seconds, auth)

    def __repr__(self) -> str:
        return f"DicomwebTarget({self.url!r})"

    @property
    def url(self) -> str:
        """Of the service."""
        return self._transport.url

    def store(self, content: bytes) -> StoreAnswer:
        """Send one file as it is, once.

        Raises
        ------
        StoreRefused
            If the store does not take it, or does not say that it did.
        Unreachable
            If there is no answer. The file may have arrived nevertheless; sending the same file
            again is harmless.
        """
        boundary = secrets.token_hex(16)
        body = b"".join(
            (
                f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(),
                content,
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )
        answer = self._transport.ask(
            "POST",
            "/studies",
            repeatable=False,
            data=body,
            headers={
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Accept": "application/dicom+json",
            },
        )
        return _verdict(answer.status, answer.json())


def _verdict(status: int, answer: Any) -> StoreAnswer:
    """Return what a store said, for one instance (PS3.18 table 10.5.3-1 and annex I)."""
    fields: Mapping[str, Any] = answer if isinstance(answer, Mapping) else {}
    failed, stored = _items(fields, FAILED), _items(fields, STORED)
    if status == 401 or status == 403:
        raise StoreRefused(
            "the store does not let us in (HTTP {status})",
            "check the user or the token",
            status=status,
        )
    if status >= 400 or failed:
        reason = _code(failed, FAILURE_REASON)
        raise StoreRefused(
            "the store refused the image (HTTP {status}{reason})",
            "ask whoever runs the store whether it takes derived DX and CR images",
            status=status,
            reason=reason,
        )
    if not stored:
        raise StoreRefused(
            "the store did not confirm the image (HTTP {status})",
            "check that the address is that of a DICOMweb service",
            status=status,
        )
    return StoreAnswer(status, f"HTTP {status}, stored{_code(stored, WARNING_REASON)}")


def _items(fields: Mapping[str, Any], tag: str) -> Sequence[Mapping[str, Any]]:
    element = fields.get(tag)
    items = element.get("Value") if isinstance(element, Mapping) else None
    return [item for item in items if isinstance(item, Mapping)] if items else []


def _code(items: Sequence[Mapping[str, Any]], tag: str) -> str:
    """Return ", code XXXX" for the first of the items that has one."""
    for item in items:
        values = item.get(tag, {}).get("Value") or [None]
        if isinstance(values[0], int):
            return f", code {values[0]:04X}"
    return ""
