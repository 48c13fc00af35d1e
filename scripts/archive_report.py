"""docs/results/archives.md from docs/results/archives.json."""

from __future__ import annotations

from pathlib import Path


def write_document(figures: Path) -> None:
    """Write the document beside the figures."""
