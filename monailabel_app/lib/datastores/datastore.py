"""The datastore of MONAI Label: originals, approved results, and the labels of both.

Originals are the server's studies, with ids that begin with ``img-``; approved results have the ids
of their jobs. Neither is ever written.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from monailabel_app.lib.datastores.clean import CleanImages
from monailabel_app.lib.datastores.folder import suffix_of
from monailabel_app.lib.datastores.labels import Labels
from monailabel_app.lib.errors import ReadOnly
from monailabel_app.lib.server import Server
from privdiff_infer.errors import StoreError
from privdiff_infer.release import json_bytes

ORIGINAL_PREFIX = "img-"

DATALIST = "datalist.json"


def is_original(image_id: str) -> bool:
    """Tell whether an id is that of an original, which reviewers alone may see."""
    return image_id.startswith(ORIGINAL_PREFIX)


class PrivDiffDatastore(Datastore):
    """What MONAI Label lists, and where it saves labels.

    Parameters
    ----------
    server
        The parts of the server.
    """

    def __init__(self, server: Server) -> None:
        self._studies = server.studies
        self._clean = CleanImages(server.jobs, server.folder)
        self._labels = Labels(server.folder.labels)
        self._cache = server.folder.cache

    def name(self) -> str:
        """Return the name of the datastore."""
        return "PrivDiff-Net"

    def set_name(self, name: str) -> NoReturn:
        """Refuse: the name is constant."""
        raise _read_only()

    def description(self) -> str:
        """Return what is in it."""
        return "Originals by keyed pseudonyms, approved results by their jobs, labels of both"

    def set_description(self, description: str) -> NoReturn:
        """Refuse: the description is constant."""
        raise _read_only()

    def datalist(self) -> list[dict[str, Any]]:
        """Return pairs of an approved result and its final label, for training."""
        labelled = self._labels.images(DefaultLabelTag.FINAL.value)
        return [
            {
                "image": str(self._clean.file(image_id)),
                "label": str(self._labels.file(image_id, DefaultLabelTag.FINAL.value)),
            }
            for image_id in self._clean.ids()
            if image_id in labelled
        ]

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Return the id of the label under every tag; it is that of the image."""
        self._check(image_id)
        return dict.fromkeys(self._labels.tags_of(image_id), image_id)

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """Return the id of a label, or nothing where there is none."""
        self._check(image_id)
        return image_id if tag in self._labels.tags_of(image_id) else ""

    def get_image(self, image_id: str, params: Mapping[str, Any] | None = None) -> io.BytesIO:
        """Return the bytes of an image."""
        return io.BytesIO(self._file(image_id).read_bytes())

    def get_image_uri(self, image_id: str) -> str:
        """Return the file of an image.

        Raises
        ------
        NotFound
            If there is no such image.
        """
        return str(self._file(image_id))

    def get_label(
        self, label_id: str, label_tag: str, params: Mapping[str, Any] | None = None
    ) -> io.BytesIO:
        """Return the bytes of a label."""
        return io.BytesIO(Path(self.get_label_uri(label_id, label_tag)).read_bytes())

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Return the file of a label.

        Raises
        ------
        NotFound
            If there is no such label.
        """
        self._check(label_id)
        return str(self._labels.file(label_id, label_tag))

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return what is noted of an image; nothing of its header."""
        self._check(image_id)
        return self._labels.image_info(image_id)

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """Return what is known of a label."""
        self._check(label_id)
        return self._labels.info(label_id, label_tag)

    def get_labeled_images(
        self, label_tag: str | None = None, labels: Sequence[str] | None = None
    ) -> list[str]:
        """Return the images that have a label of this tag, `final` unless one is named."""
        labelled = self._labels.images(label_tag or DefaultLabelTag.FINAL.value)
        return [image_id for image_id in self.list_images() if image_id in labelled]

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: Sequence[str] | None = None
    ) -> list[str]:
        """Return the images that have no label of this tag, `final` unless one is named."""
        labelled = self._labels.images(label_tag or DefaultLabelTag.FINAL.value)
        return [image_id for image_id in self.list_images() if image_id not in labelled]

    def list_images(self) -> list[str]:
        """Return the ids of all originals, then of all approved results."""
        return [*self._studies.entries(), *self._clean.ids()]

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Write a ZIP archive of approved results that have a final label, with the labels.

        It lies in the cache; who asked for it deletes it.
        """
        pairs = self.datalist()[:limit_cases]
        names = [
            {kind: f"{kind}s/{Path(file).name}" for kind, file in pair.items()} for pair in pairs
        ]
        with (
            tempfile.NamedTemporaryFile(dir=self._cache, suffix=".zip", delete=False) as file,
            zipfile.ZipFile(file, "w") as archive,
        ):
            for pair, named in zip(pairs, names, strict=True):
                for kind, path in pair.items():
                    archive.write(path, named[kind])
            archive.writestr(DATALIST, json_bytes(names))
        return file.name

    def refresh(self) -> None:
        """Do nothing: lists are read anew when they are old."""

    def add_image(self, image_id: str, image_filename: str, image_info: Mapping[str, Any]) -> str:
        """Refuse: studies are read only."""
        raise _read_only()

    def remove_image(self, image_id: str) -> None:
        """Refuse: studies are read only."""
        raise _read_only()

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: Mapping[str, Any]
    ) -> str:
        """Save a label below STATE, whatever its tag; it goes to no store.

        Returns
        -------
        str
            Its id, which is that of the image.
        """
        file = Path(label_filename)
        self.save_upload(image_id, file, file.name, label_tag, label_info)
        return image_id

    def save_upload(
        self, image_id: str, file: Path, name: str, tag: str, info: Mapping[str, Any]
    ) -> None:
        """Save a label whose file has another name than the one that tells its kind."""
        self._check(image_id)
        self._labels.save(image_id, tag, file, name, info)

    def file_name(self, image_id: str) -> str:
        """Return what the file of an image is called when it is sent: its id and its kind."""
        if is_original(image_id):
            return f"{image_id}{self._studies.suffix(image_id)}"
        return f"{image_id}{suffix_of(self._clean.file(image_id).name)}"

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Delete a label."""
        self._check(label_id)
        self._labels.remove(label_id, label_tag)

    def update_image_info(self, image_id: str, info: Mapping[str, Any]) -> None:
        """Add to what is noted of an image."""
        self._check(image_id)
        self._labels.update_image(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: Mapping[str, Any]) -> None:
        """Add to what is known of a label."""
        self._check(label_id)
        self._labels.update(label_id, label_tag, info)

    def status(self) -> dict[str, Any]:
        """Return how many images and labels there are; quick, for every `/info` asks."""
        problem = ""
        originals = 0
        try:
            originals = len(self._studies.entries())
        except StoreError as error:
            problem = error.problem
        tags = {tag: len(self._labels.images(tag)) for tag in self._labels.tags()}
        return {
            "total": originals + len(self._clean),
            "completed": tags.get(DefaultLabelTag.FINAL.value, 0),
            "originals": originals,
            "clean": len(self._clean),
            "label_tags": tags,
            "train": [],
            **({"problem": problem} if problem else {}),
        }

    def json(self) -> dict[str, Any]:
        """Return all images with what is noted of them and of their labels."""
        tags = {tag: self._labels.images(tag) for tag in self._labels.tags()}
        noted = self._labels.noted_images()
        objects = {
            image_id: {
                "image": {"info": noted.get(image_id, {})},
                "labels": {
                    tag: {"info": self._labels.info(image_id, tag)}
                    for tag, labelled in tags.items()
                    if image_id in labelled
                },
            }
            for image_id in self.list_images()
        }
        return {"name": self.name(), "description": self.description(), "objects": objects}

    def _file(self, image_id: str) -> Path:
        owner = self._studies if is_original(image_id) else self._clean
        return owner.file(image_id)

    def _check(self, image_id: str) -> None:
        """Raise `NotFound` unless there is such an image; ids become names of files."""
        if is_original(image_id):
            self._studies.check(image_id)
        else:
            self._clean.file(image_id)


def _read_only() -> ReadOnly:
    return ReadOnly("the images of this server are read only", "add them to its folder or store")
