"""The built-in tokens of a small team: one file, which holds their hashes alone.

A token is 256 random bits. Nobody guesses it and no dictionary holds it, so one SHA-256 protects it
as well as a slow, salted hash, which is made for what people think up, and every request can afford
it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Callable
from datetime import date, datetime, timezone
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from monailabel_app.lib.security.roles import Principal, Role
from privdiff_infer.errors import OptionError, SecretError
from privdiff_infer.keys import read_private
from privdiff_infer.release import PRIVATE_MODE, json_bytes, reporting_disk_errors, write_private

PREFIX = "privdiff_"
"""Before every token, so that scanners find one that was published by mistake."""

TOKEN_BYTES = 32
MOST_FILE_BYTES = 1_000_000
NAME = re.compile(r"\w[\w .@-]{0,79}")

logger = logging.getLogger(__name__)


class Token(BaseModel):
    """What the file says of one token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME.pattern, description="Whose it is; the audit log names it.")
    role: Role
    sha256: str = Field(pattern="[0-9a-f]{64}")
    created: date
    expires: date | None = Field(None, description="The last day on which it holds, in UTC.")

    def holds(self, today: date) -> bool:
        """Tell whether it has not expired."""
        return self.expires is None or today <= self.expires


class TokenFile:
    """The tokens in a file, as they are now; a change of the file is seen by the next request.

    Parameters
    ----------
    path
        Of the file.
    today
        The date in UTC.
    """

    def __init__(self, path: Path, today: Callable[[], date] | None = None) -> None:
        self._path, self._today = path, today or _today
        self._tokens: tuple[Token, ...] = ()
        self._stamp: tuple[int, ...] | None = None

    @classmethod
    def open(cls, path: Path) -> TokenFile:
        """Open a file that exists.

        Raises
        ------
        SecretError
            If it cannot be read, is open to other users, or holds something else.
        """
        file = cls(path)
        file.tokens()
        return file

    def tokens(self) -> tuple[Token, ...]:
        """Return what the file holds; it is read again where it was changed.

        Raises
        ------
        SecretError
            As `open`.
        """
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._tokens = _parse(self._path)
            self._stamp = stamp
        return self._tokens

    async def principal(self, token: str) -> Principal | None:
        """Return whose token it is; with a file that cannot be read, nobody's."""
        try:
            known = self.tokens()
        except SecretError as error:
            logger.error("token file unusable", extra={"facts": {"kind": type(error).__name__}})
            return None
        digest, found = _digest(token), None
        for one in known:  # all of them, so that the time tells nothing
            if hmac.compare_digest(one.sha256, digest) and one.holds(self._today()):
                found = Principal(one.name, one.role)
        return found

    def add(self, name: str, role: Role, expires: date | None = None) -> str:
        """Add a token and return it; it is not to be had again.

        Raises
        ------
        OptionError
            If the name is taken or is none.
        SecretError
            If there is a file that cannot be used.
        OutputError
            If it cannot be written.
        """
        if NAME.fullmatch(name) is None:
            raise OptionError(
                "this is no name for a token", "use letters, digits, spaces and . @ _ -"
            )
        token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        new = Token(
            name=name, role=role, sha256=_digest(token), created=self._today(), expires=expires
        )
        with self._locked():
            known = self.tokens() if self._path.exists() else ()
            if any(one.name == name for one in known):
                raise OptionError(f"{name} has a token", "remove it first, or choose another name")
            self._write([*known, new])
        return token

    def remove(self, name: str) -> None:
        """Remove a token; the next request with it is refused.

        Raises
        ------
        OptionError
            If nobody of this name has one.
        SecretError, OutputError
            As `add`.
        """
        with self._locked():
            known = self.tokens()
            kept = [one for one in known if one.name != name]
            if len(kept) == len(known):
                raise OptionError(f"{name} has no token", "see privdiff token list")
            self._write(kept)

    def _locked(self) -> FileLock:
        with reporting_disk_errors():
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return FileLock(self._path.with_name(self._path.name + ".lock"), mode=PRIVATE_MODE)

    def _write(self, tokens: list[Token]) -> None:
        content = {"tokens": [one.model_dump(mode="json") for one in tokens]}
        write_private(self._path, json_bytes(content))


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tokens: list[Token]


def _parse(path: Path) -> tuple[Token, ...]:
    content = read_private(path, MOST_FILE_BYTES)
    try:
        return tuple(_Content.model_validate_json(content).tokens)
    except ValidationError:
        raise SecretError(
            f"the token file {path} holds something else",
            "make another one with privdiff token add",
        ) from None


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes with the file or its mode; nothing of a file that is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_mode)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def _today() -> date:
    return datetime.now(timezone.utc).date()
