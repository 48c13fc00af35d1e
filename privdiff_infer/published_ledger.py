"""Which version of a source was published under the key, whatever becomes of OUT.

Redrawn versions of one image can be averaged, which brings back what each of them hides. So one
version of a source may leave, and this remembers which. A line is an HMAC of the source and the SOP
Instance UID of the version: without the key it names nobody.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import typer

from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import OutputError
from privdiff_infer.keys import APPLICATION

VARIABLE = "PRIVDIFF_LEDGER_FILE"
LEDGER_NAME = "published"

LOCK_SECONDS = 30.0

TABLE = """
CREATE TABLE IF NOT EXISTS published (
    source TEXT PRIMARY KEY,    -- keyed
    instance TEXT NOT NULL,     -- SOP Instance UID of the version that is, or may be, out there
    confirmed INTEGER NOT NULL  -- whether a store said that it has it
)
"""


class PublishedLedger:
    """The ledger of one user; several processes may use it at once.

    Parameters
    ----------
    path
        SQLite file; created, with its folder, for its owner alone.
    pseudonyms
        Of the key that sources are remembered under.

    Raises
    ------
    OutputError
        If the file cannot be created or is something else.
    """

    def __init__(self, path: Path, pseudonyms: Pseudonyms) -> None:
        self._path, self._pseudonyms = path, pseudonyms
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise _unusable(path) from error
        with self._transaction() as database:
            database.execute(TABLE)

    @classmethod
    def load(cls, pseudonyms: Pseudonyms) -> PublishedLedger:
        """Open the file that ``PRIVDIFF_LEDGER_FILE`` names, else the user's own.

        Raises
        ------
        OutputError
            If it cannot be used.
        """
        named = os.environ.get(VARIABLE)
        return cls(
            Path(named) if named else Path(typer.get_app_dir(APPLICATION)) / LEDGER_NAME, pseudonyms
        )

    def claim(self, source: str, instance: str) -> bool:
        """Remember that a version is about to be published; False if another one is out there.

        Parameters
        ----------
        source
            SOP Instance UID of the source, or the hash of its file.
        instance
            SOP Instance UID of the version.

        Raises
        ------
        OutputError
            If the ledger cannot be used.
        """
        keyed = self._keyed(source)
        with self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO published VALUES (?, ?, 0)", (keyed, instance))
            (claimed,) = database.execute(
                "SELECT instance FROM published WHERE source = ?", (keyed,)
            ).fetchone()
        return bool(claimed == instance)

    def confirm(self, source: str, instance: str) -> None:
        """Remember that a store has the version.

        Raises
        ------
        OutputError
            If the ledger cannot be used.
        """
        with self._transaction() as database:
            database.execute(
                "UPDATE published SET confirmed = 1 WHERE source = ? AND instance = ?",
                (self._keyed(source), instance),
            )

    def give_up(self, source: str, instance: str) -> None:
        """Forget a version that a store refused, unless it is in another one.

        Raises
        ------
        OutputError
            If the ledger cannot be used.
        """
        with self._transaction() as database:
            database.execute(
                "DELETE FROM published WHERE source = ? AND instance = ? AND confirmed = 0",
                (self._keyed(source), instance),
            )

    def _keyed(self, source: str) -> str:
        return self._pseudonyms.instance_uid(source, "published")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the file for oneself; what was done counts as a whole or not at all."""
        try:
            with (
                closing(
                    sqlite3.connect(self._path, LOCK_SECONDS, isolation_level=None)
                ) as database,
                database,
            ):
                database.execute("BEGIN IMMEDIATE")
                yield database
        except sqlite3.Error as error:
            raise _unusable(self._path) from error


def _unusable(path: Path) -> OutputError:
    return OutputError(
        f"the ledger of what was published, {path}, cannot be used",
        f"check its permissions, restore it from a backup, or name another one with {VARIABLE}",
    )
