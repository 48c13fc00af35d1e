"""Labels that annotators saved: files below STATE/labels, one an image and tag.

A label has the id of its image. Its file is ``<tag>/<id><suffix>``; beside it, ``<tag>/<id>.info``
is JSON that names the suffix. The latter is written last and read first, so that a label is there
as a whole or not at all. Facts about images, such as when they were handed out, are in ``.images``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from monailabel_app.lib.errors import BadRequest, NotFound
from monailabel_app.lib.state_folder import PRIVATE_FOLDER
from privdiff_infer.release import PRIVATE_MODE, json_bytes, reporting_disk_errors, write_private

SUFFIXES = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".png", ".dcm", ".json")

TAG = re.compile(r"[A-Za-z0-9_-]{1,64}")

INFO = ".info"
IMAGES = ".images"
LOCK = ".lock"

MAX_INFO_BYTES = 2**16


class Labels:
    """The labels of a server.

    Parameters
    ----------
    folder
        Where they lie. Image ids are checked by who calls: they must be none of a client's making.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def tags(self) -> list[str]:
        """Return the tags that have labels."""
        return sorted(path.name for path in self._folder.glob("*") if TAG.fullmatch(path.name))

    def images(self, tag: str) -> frozenset[str]:
        """Return the ids of the images that have a label of this tag."""
        return frozenset(path.stem for path in self._tag(tag).glob(f"*{INFO}"))

    def tags_of(self, image_id: str) -> list[str]:
        """Return the tags under which an image has a label."""
        return [tag for tag in self.tags() if (self._tag(tag) / f"{image_id}{INFO}").exists()]

    def save(self, image_id: str, tag: str, file: Path, name: str, info: Mapping[str, Any]) -> None:
        """Save a label; one of the same image and tag is replaced.

        Parameters
        ----------
        image_id
            Of the image.
        tag
            Such as ``final``.
        file
            Where the bytes are.
        name
            What the client called the file; only its suffix counts.
        info
            What else there is to say.

        Raises
        ------
        BadRequest
            If the tag, the suffix or the size of `info` is impossible.
        OutputError
            If it cannot be written.
        """
        folder = self._tag(tag)
        suffix = next((end for end in SUFFIXES if name.lower().endswith(end)), None)
        if suffix is None:
            raise BadRequest(
                "a label is no file of this kind", f"send one of: {', '.join(SUFFIXES)}"
            )
        record = _checked({**info, "suffix": suffix, "ts": int(time.time())})
        with reporting_disk_errors(), self._locked():
            folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            write_private(folder / f"{image_id}{suffix}", file.read_bytes())
            write_private(folder / f"{image_id}{INFO}", record)
            for other in set(SUFFIXES) - {suffix}:
                (folder / f"{image_id}{other}").unlink(missing_ok=True)

    def file(self, image_id: str, tag: str) -> Path:
        """Return the file of a label.

        Raises
        ------
        NotFound
            If there is none.
        """
        file = self._tag(tag) / f"{image_id}{self.info(image_id, tag)['suffix']}"
        if not file.is_file():  # it is being replaced or deleted
            raise _unknown()
        return file

    def info(self, image_id: str, tag: str) -> dict[str, Any]:
        """Return what is known of a label.

        Raises
        ------
        NotFound
            If there is none.
        """
        found = _read(self._tag(tag) / f"{image_id}{INFO}")
        if not found:
            raise _unknown()
        return found

    def update(self, image_id: str, tag: str, info: Mapping[str, Any]) -> None:
        """Add to what is known of a label.

        Raises
        ------
        NotFound
            If there is none.
        BadRequest
            If `info` is too large.
        """
        with reporting_disk_errors(), self._locked():
            known = self.info(image_id, tag)
            record = _checked({**known, **info, "suffix": known["suffix"]})
            write_private(self._tag(tag) / f"{image_id}{INFO}", record)

    def remove(self, image_id: str, tag: str) -> None:
        """Delete a label.

        Raises
        ------
        NotFound
            If there is none.
        """
        with reporting_disk_errors(), self._locked():
            suffix = self.info(image_id, tag)["suffix"]
            (self._tag(tag) / f"{image_id}{INFO}").unlink()
            (self._tag(tag) / f"{image_id}{suffix}").unlink(missing_ok=True)

    def image_info(self, image_id: str) -> dict[str, Any]:
        """Return what clients and strategies noted of an image; empty where they did not."""
        return _read(self._folder / IMAGES / f"{image_id}{INFO}")

    def noted_images(self) -> dict[str, dict[str, Any]]:
        """Return what is noted of all images of which anything is."""
        files = (self._folder / IMAGES).glob(f"*{INFO}")
        return {path.stem: _read(path) for path in files}

    def update_image(self, image_id: str, info: Mapping[str, Any]) -> None:
        """Add to what is noted of an image.

        Raises
        ------
        BadRequest
            If it is too large.
        """
        with reporting_disk_errors(), self._locked():
            record = _checked({**self.image_info(image_id), **info})
            (self._folder / IMAGES).mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            write_private(self._folder / IMAGES / f"{image_id}{INFO}", record)

    def _locked(self) -> FileLock:
        # Whoever changes anything, in whichever thread or process, has its turn: a label is two
        # files, and information is read before it is written.
        return FileLock(self._folder / LOCK, mode=PRIVATE_MODE)

    def _tag(self, tag: str) -> Path:
        if not isinstance(tag, str) or not TAG.fullmatch(tag):  # MONAI Label passes on anything
            raise BadRequest(
                "this is no tag", "use up to 64 letters, digits, _ and -, such as final"
            )
        return self._folder / tag


def _unknown() -> NotFound:
    return NotFound("there is no such label", "list the labels with GET /datastore/")


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return content


def _checked(record: Mapping[str, Any]) -> bytes:
    content = json_bytes(record)
    if len(content) > MAX_INFO_BYTES:
        raise BadRequest("there is too much information for one label or image", "send less")
    return content
