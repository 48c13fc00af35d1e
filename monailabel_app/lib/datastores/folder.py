"""Studies in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from monailabel_app.lib.datastores.studies import Listing, Studies
from monailabel_app.lib.errors import NotFound
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import OptionError
from privdiff_infer.sources import Source

SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".nii", ".nii.gz", ".nrrd")

MAX_AGE_SECONDS = 10.0

PREAMBLE, MAGIC = 128, b"DICM"
"""A DICOM file, whatever it is called (PS3.10 7.1)."""


class FolderStudies(Studies):
    """The images below a folder.

    Links that lead out of it are left out, as are hidden files and folders.

    Parameters
    ----------
    root
        The folder.
    pseudonyms
        What makes ids of relative paths.

    Raises
    ------
    OptionError
        If it is no folder.
    """

    def __init__(self, root: Path, pseudonyms: Pseudonyms) -> None:
        if not root.is_dir():
            raise OptionError(
                f"the studies {root} are no folder", "name a folder, or a URL of a DICOMweb service"
            )
        self._root = root.resolve()
        self._pseudonyms = pseudonyms
        self._listing = Listing(self._read, MAX_AGE_SECONDS)
        self._is_dicom: dict[Path, bool] = {}

    def entries(self) -> Mapping[str, Path]:
        """Return the file of every image id."""
        return self._listing.entries()

    def read_ahead(self) -> None:
        """Let a thread read the list."""
        self._listing.read_ahead()

    def check(self, image_id: str) -> None:
        """Raise `NotFound` unless there is such an image."""
        self._listing.find(image_id)

    def sources(self, image_id: str) -> list[Source]:
        """Return the file of an image, as the only one."""
        return [self.file(image_id)]

    def suffix(self, image_id: str) -> str:
        """Return the suffix of the file."""
        return suffix_of(self._listing.find(image_id).name)

    def file(self, image_id: str) -> Path:
        """Return the file of an image."""
        path = self._listing.find(image_id)
        if not self._is_inside(path):  # it has become a link since it was listed, or is gone
            raise NotFound("this image is no longer there", "list the images anew")
        return path

    def _read(self) -> dict[str, Path]:
        return {
            self._pseudonyms.image_id(path.relative_to(self._root).as_posix()): path
            for path in self._files()
        }

    def _files(self) -> Iterator[Path]:
        for parent, folders, names in os.walk(self._root):  # does not follow links to folders
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(parent) / name
                if not name.startswith(".") and self._is_inside(path) and self._is_image(path):
                    yield path

    def _is_inside(self, path: Path) -> bool:
        return path.is_file() and path.resolve().is_relative_to(self._root)

    def _is_image(self, path: Path) -> bool:
        if path.name.lower().endswith(SUFFIXES):
            return True
        if path not in self._is_dicom:
            self._is_dicom[path] = _has_magic(path)
        return self._is_dicom[path]


def suffix_of(name: str) -> str:
    """Return the suffix that tells the kind of an image; a file without one is DICOM.

    Examples
    --------
    >>> suffix_of("Doe.Jane.NII.GZ"), suffix_of("IM0001")
    ('.nii.gz', '.dcm')
    """
    lower = name.lower()
    return max((end for end in SUFFIXES if lower.endswith(end)), key=len, default=".dcm")


def _has_magic(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(PREAMBLE)
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False
