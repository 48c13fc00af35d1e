"""Secrets in files of their own, which are made on first use and never shown."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path

import typer

from privdiff_infer.errors import SecretError

APPLICATION = "privdiff"

KEY_BYTES = 32
MIN_LENGTH = 32
"""Bytes of a key, without white space around: 256 random bits in any printable form have them."""

MAX_LENGTH = 4096
"""Bytes; something longer is no key but a file named by mistake."""


def load_key(variable: str, name: str) -> bytes:
    """Return the secret of a key file.

    The file is the one that an environment variable names. Without the variable it is `name` in
    the user's configuration folder, where it is created on first use with 256 random bits and mode
    0600. A file that was named is never created: its name may be a slip, and another key gives
    other pseudonyms.

    Parameters
    ----------
    variable
        Environment variable, such as ``PRIVDIFF_KEY_FILE``.
    name
        File in the configuration folder, such as ``key``.

    Returns
    -------
    bytes
        Content of the file without white space around it.

    Raises
    ------
    SecretError
        If the file cannot be read or created, other users may read or change it, or it is too
        short or too long.
    """
    if named := os.environ.get(variable):
        return _read(Path(named))
    path = Path(typer.get_app_dir(APPLICATION)) / name
    try:
        if not path.exists():
            _create(path)
    except OSError as error:
        raise SecretError(
            f"the key file {path} cannot be created ({error.strerror})",
            f"check permissions, or name a key file with {variable}",
        ) from error
    return _read(path)


def find_key(variable: str, name: str) -> bytes | None:
    """Return the secret as `load_key` does, but create none: None where there is no file of it.

    For what a new key is no use, such as checking what was made with the old one.

    Raises
    ------
    SecretError
        If a file was named and cannot be read, or the file is not as `load_key` wants it.
    """
    if not os.environ.get(variable) and not (Path(typer.get_app_dir(APPLICATION)) / name).exists():
        return None
    return load_key(variable, name)


def read_private(path: Path, most_bytes: int) -> bytes:
    """Return the content of a file that its owner alone may read or change.

    Parameters
    ----------
    path
        Of the file.
    most_bytes
        One more is read, and no more, so that a file named by mistake shows by its length.

    Raises
    ------
    SecretError
        If it cannot be read, or other users may read or change it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise SecretError(
            f"the key file {path} cannot be read ({type(error).__name__})",
            "check its name and permissions, or restore it from a backup",
        ) from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SecretError(f"the key file {path} is open to other users", f"type: chmod 600 {path}")
    return content


def _read(path: Path) -> bytes:
    key = read_private(path, MAX_LENGTH).strip()
    if not MIN_LENGTH <= len(key) <= MAX_LENGTH:
        raise SecretError(
            f"the key file {path} does not hold {MIN_LENGTH} to {MAX_LENGTH} bytes",
            "restore it from a backup, or make another with: openssl rand -hex 32",
        )
    return key


def _create(path: Path) -> None:
    """Write a new key whole or not at all; of several processes, the first one's stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    partial = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)  # unlike a rename, it leaves a file that is there
        except FileExistsError:
            return
    finally:
        partial.unlink()
