"""What the user named, as a list of files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from privdiff_infer.errors import OptionError


def find_sources(named: Sequence[str]) -> list[Path]:
    """Return every file that was named, once, in a fixed order.

    Files are taken as they are, folders with all regular files below them, and patterns with what
    they match. Hidden files and folders are left out of folders; links are followed once.

    Raises
    ------
    OptionError
        If a name is neither a file nor a folder and matches nothing.
    """
    found: dict[Path, Path] = {}
    for name in named:
        for path in _expand(name):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _expand(name: str) -> Iterator[Path]:
    path = Path(name)
    if path.is_dir():
        yield from _files_below(path)
    elif path.exists() or path.is_symlink():
        yield path
    else:
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise OptionError(f"source {name!r} does not exist", "name files, folders or patterns")
        for match in matches:
            yield from _files_below(Path(match)) if Path(match).is_dir() else (Path(match),)


def _files_below(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link back to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent) / name for name in sorted(files) if not name.startswith("."))
