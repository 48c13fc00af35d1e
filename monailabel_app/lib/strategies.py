"""Which image is next: a clean one for annotators, or an original that nobody has queued."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from monailabel_app.lib.datastores.datastore import is_original
from monailabel_app.lib.server import Server


class First(Strategy):
    """The first approved result that has no label."""

    def __init__(self) -> None:
        super().__init__("The first approved image without a label")

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return ``{"id": ...}``, or None at the end."""
        unlabelled = clean_without_label(request, datastore)
        return {"id": unlabelled[0]} if unlabelled else None


class Random(Strategy):
    """Any approved result that has no label, so that several annotators rarely meet."""

    def __init__(self) -> None:
        super().__init__("A random approved image without a label")

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return ``{"id": ...}``, or None at the end."""
        unlabelled = clean_without_label(request, datastore)
        return {"id": random.choice(unlabelled)} if unlabelled else None


class NotAnonymized(Strategy):
    """The first original that nobody has queued.

    Parameters
    ----------
    server
        The parts of the server.
    """

    def __init__(self, server: Server) -> None:
        super().__init__("The next original that nobody has anonymized yet")
        self._server = server

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Return ``{"id": ...}``, or None at the end."""
        queued = self._server.jobs.images()
        following = (image for image in self._server.studies.entries() if image not in queued)
        image_id = next(following, None)
        return None if image_id is None else {"id": image_id}


def clean_without_label(request: Mapping[str, Any], datastore: Datastore) -> list[str]:
    """Return the approved results without a label of the tag that a request names."""
    images: list[str] = datastore.get_unlabeled_images(request.get("label_tag"))
    return [image_id for image_id in images if not is_original(image_id)]


def strategies(server: Server) -> dict[str, Strategy]:
    """Return all by the names that clients use."""
    return {"first": First(), "random": Random(), "not_anonymized": NotAnonymized(server)}
