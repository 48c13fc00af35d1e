"""What the user named, as a list of files and of instances in DICOMweb stores."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from privdiff_infer.dicom.web import WebInstance, find_instances, is_store_url
from privdiff_infer.errors import ImageRejected, OptionError
from privdiff_infer.release import OutputFolders

Source = Path | WebInstance
"""One image. Its text is its name in the crosswalk, which is private."""


def read_source(source: Source) -> bytes:
    """Return the bytes of a source.

    Raises
    ------
    ImageRejected
        If they cannot be read.
    """
    if isinstance(source, WebInstance):
        return source.read()
    if os.path.isdir(source):  # `find_sources` names a folder that cannot be listed
        raise ImageRejected("the folder cannot be listed", "give permission to read it")
    from privdiff_infer.radiograph import read_file  # it loads numpy, which `--help` does not need

    return read_file(source)


def source_key(name: str) -> str:
    """Return what stays the same however the name of a source is spelled."""
    return name if is_store_url(name) else os.path.abspath(name)


def find_sources(named: Sequence[str], *, absolute: bool = False) -> list[Source]:
    """Return every file and every instance that was named, once, in a fixed order.

    Files are taken as they are, folders with all files below them, and patterns with what they
    match. Hidden files and folders are left out of folders; links are followed once. Outputs of
    earlier runs are left out of folders and patterns, for they hold pictures of their own.

    What cannot be looked at for want of permission, be it a file or a folder, is in the list too,
    so that it becomes a row.

    Queries of DICOMweb stores become what is found now; see `dicom.web.find_instances`.

    Parameters
    ----------
    named
        Files, folders, patterns and queries.
    absolute
        Whether files get absolute names, for workers that have other working folders.

    Raises
    ------
    OptionError
        If a name is neither a file nor a folder and matches nothing, holds no file, or lies in the
        output of a run; or is a URL that cannot be used.
    StoreError
        If a store cannot be asked, or finds nothing.
    """
    found: dict[str, Source] = {}
    for name in named:
        if is_store_url(name):
            found |= {str(instance): instance for instance in find_instances(name)}
        else:
            for path in find_files(os.path.abspath(name) if absolute else name):
                found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def find_files(name: str) -> list[Path]:
    """Return the files that one name of a file, a folder or a pattern means; see `find_sources`.

    Raises
    ------
    OptionError
        If there are none, or they lie in the output of a run.
    """
    paths = list(_expand(name))
    if not paths:
        raise OptionError(
            f"source {name!r} holds no files, or only the output of a run",
            "name a folder with images",
        )
    return paths


def _expand(name: str) -> Iterator[Path]:
    path = Path(name)
    if not _exists(path):
        yield from _matches(name)
        return
    if output := _output_around(path):
        raise OptionError(
            f"source {name!r} lies in the output of a run, {output}", "name the original images"
        )
    yield from _files_of(path)


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except PermissionError:
        return True  # as far as can be told; reading it gives the reason
    except (OSError, ValueError):
        return False  # nothing there, or a name that no file can have
    return True


def _matches(pattern: str) -> Iterator[Path]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise OptionError(f"source {pattern!r} does not exist", "name files, folders or patterns")
    for match in map(Path, matches):
        if not _output_around(match):
            yield from _files_of(match)


def _files_of(path: Path) -> Iterator[Path]:
    if os.path.isdir(path):
        yield from _files_below(path)
    else:
        yield path


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield files below a folder, then the folders that cannot be listed."""
    seen: set[str] = set()
    unreadable: list[Path] = []

    def keep_unreadable(error: OSError) -> None:
        unreadable.append(Path(error.filename))

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=keep_unreadable):
        real = os.path.realpath(parent)
        if real in seen or _is_output(Path(parent)):  # `seen`: a link back to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent) / name for name in sorted(files) if not name.startswith("."))
    yield from unreadable


def _output_around(path: Path) -> Path | None:
    """Return the output of a run that a path lies in or is."""
    real = Path(os.path.realpath(path))
    return next((folder for folder in (real, *real.parents) if _is_output(folder)), None)


def _is_output(folder: Path) -> bool:
    return os.path.isfile(OutputFolders(folder).run)
