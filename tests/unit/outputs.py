"""What a run wrote, read back for tests."""

from __future__ import annotations

import csv
from pathlib import Path

from privdiff_infer.audit import AuditLog
from privdiff_infer.journal import Journal
from privdiff_infer.release import OutputFolders

AUDIT_KEY = b"5" * 64
"""The key that `audit_key` of conftest.py puts in the place of the user's."""


def open_journal(folders: OutputFolders) -> Journal:
    """Return the journal of a run, with its audit log."""
    return Journal(folders, AuditLog(folders.audit, AUDIT_KEY))


def read_crosswalk(path: Path) -> list[dict[str, str]]:
    """Return the cells, without the quote that keeps spreadsheets from running them."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: cell.removeprefix("'") for name, cell in record.items()}
            for record in csv.DictReader(file)
        ]


def png_chunks(content: bytes) -> list[str]:
    """Return the kinds of all chunks of a PNG file."""
    kinds, position = [], 8
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        kinds.append(content[position + 4 : position + 8].decode("ascii"))
        position += 12 + length
    return kinds
