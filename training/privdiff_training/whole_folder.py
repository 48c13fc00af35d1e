"""Folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder to write into; once written, it takes the place of `target`.

    If writing fails or is killed, `target` is as it was. Its files may be read by whoever may read
    the folder: safetensors writes files that only their owner can read, but a server may be run by
    somebody else.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "component"
    >>> with whole_folder(target) as partial:
    ...     _ = (partial / "weights").write_text("1")
    >>> [path.name for path in target.parent.rglob("*")]
    ['component', 'weights']
    """
    partial = target.with_name(f".{target.name}.partial")
    replaced = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    mode = partial.stat().st_mode & 0o666  # what the umask leaves
    for path in partial.rglob("*"):
        if path.is_file():
            path.chmod(mode)
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        os.replace(target, replaced)  # a folder with files cannot be replaced in one step
    os.replace(partial, target)
    shutil.rmtree(replaced, ignore_errors=True)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder to `target`, whole or not at all; an existing one is replaced."""
    with whole_folder(target) as partial:
        shutil.copytree(source, partial, dirs_exist_ok=True)
