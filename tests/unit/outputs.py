"""What a run wrote, read back for tests."""

from __future__ import annotations

import csv
from pathlib import Path


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
