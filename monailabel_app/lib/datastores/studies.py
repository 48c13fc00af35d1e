"""The originals that a server lists: what a folder and a DICOMweb store have in common.

Clients know an image by a keyed pseudonym. Names of files hold names of patients, and UIDs lead to
them; ids stand in logs, in lists of jobs and in names of labels. A pseudonym is no path either, so
that none can be asked for.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from monailabel_app.lib.errors import NotFound
from monailabel_app.lib.settings import ServerSettings
from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.dicom.web import is_store_url
from privdiff_infer.errors import PrivDiffError, StoreError
from privdiff_infer.sources import Source

logger = logging.getLogger(__name__)

Entry = TypeVar("Entry")


class Studies(ABC):
    """The originals of a server, which it never changes."""

    @abstractmethod
    def entries(self) -> Mapping[str, object]:
        """Return what every image id stands for. The values are private.

        Raises
        ------
        StoreError
            If the store cannot be asked, and never could.
        """

    @abstractmethod
    def read_ahead(self) -> None:
        """Let a thread read the list, so that nobody has to wait for it."""

    @abstractmethod
    def check(self, image_id: str) -> None:
        """Raise `NotFound` unless there is such an image."""

    @abstractmethod
    def sources(self, image_id: str) -> list[Source]:
        """Return the originals of an image: one, or several of one series.

        Raises
        ------
        NotFound
            If there is no such image.
        StoreError
            If the store cannot be asked.
        """

    @abstractmethod
    def suffix(self, image_id: str) -> str:
        """Return the suffix that tells the kind of an image; nothing is fetched for it.

        Raises
        ------
        NotFound
            If there is no such image.
        """

    @abstractmethod
    def file(self, image_id: str) -> Path:
        """Return a file with the original of an image; nobody may change it.

        Raises
        ------
        NotFound
            If there is no such image.
        Conflict
            If it has several originals.
        StoreError
            If the store does not give it.
        """


def open_studies(settings: ServerSettings, folder: StateFolder) -> Studies:
    """Return the studies that the settings name.

    Raises
    ------
    OptionError
        If they are no folder and no URL of a DICOMweb service.
    SecretError
        If the key of the pseudonyms cannot be had.
    """
    from monailabel_app.lib.datastores.dicomweb import DicomwebStudies
    from monailabel_app.lib.datastores.folder import FolderStudies

    pseudonyms = Pseudonyms.load()
    if is_url(settings.studies):
        return DicomwebStudies(settings.studies, folder.cache, pseudonyms)
    return FolderStudies(Path(settings.studies), pseudonyms)


def is_url(studies: str) -> bool:
    """Tell whether studies lie in a store."""
    return is_store_url(studies) or studies.startswith(("http://", "https://"))


class Listing(Generic[Entry]):
    """A list that is read when somebody asks for it, and anew in the background when it is old.

    Who asks first reads it. A reading that failed is remembered and repeated in the background, so
    that a store that hangs holds one thread and not every one that asks.

    Parameters
    ----------
    load
        Reads it.
    max_age_seconds
        How old it, or the failure to read it, may be before it is read anew.
    """

    LOOK_AGAIN_SECONDS = 1.0
    """An id that is not there is looked for again, but not more often than this."""

    PATIENCE_SECONDS = 2.0
    """For what another thread reads."""

    def __init__(self, load: Callable[[], Mapping[str, Entry]], max_age_seconds: float) -> None:
        self._load = load
        self._max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        self._entries: Mapping[str, Entry] | None = None
        self._failure: PrivDiffError | None = None
        self._read = -math.inf

    def entries(self) -> Mapping[str, Entry]:
        """Return all entries.

        Raises
        ------
        PrivDiffError
            What `load` raised last, as long as it has never succeeded.
        StoreError
            If another thread still reads it for the first time.
        """
        if self._entries is None and self._failure is None:
            self._refresh(self._max_age_seconds)
        elif self._is_older_than(self._max_age_seconds) and not self._lock.locked():
            self.read_ahead()
        if self._entries is None:
            raise _unread() if self._failure is None else self._failure.with_traceback(None)
        return self._entries

    def read_ahead(self) -> None:
        """Let a thread read it where it is old."""
        threading.Thread(target=self._refresh, args=[self._max_age_seconds], daemon=True).start()

    def find(self, image_id: str) -> Entry:
        """Return one entry.

        Raises
        ------
        NotFound
            If there is none, even after another look.
        """
        entries = self.entries()
        if image_id not in entries and self._failure is None:
            self._refresh(self.LOOK_AGAIN_SECONDS)
            entries = self.entries()
        if image_id not in entries:
            raise NotFound(
                "there is no such image", "list the images with GET /datastore/?output=all"
            )
        return entries[image_id]

    def _refresh(self, max_age_seconds: float) -> None:
        if not self._lock.acquire(timeout=self.PATIENCE_SECONDS):
            return  # another thread reads it, and may wait for a store that does not answer
        try:
            if self._is_older_than(max_age_seconds):
                self._read_now()
        finally:
            self._lock.release()

    def _read_now(self) -> None:
        try:
            self._entries = self._load()
            self._failure = None
        except PrivDiffError as error:
            self._failure = error
            logger.warning("the studies cannot be listed: %s", error.problem)
        finally:
            self._read = time.monotonic()

    def _is_older_than(self, seconds: float) -> bool:
        return time.monotonic() - self._read > seconds


def _unread() -> StoreError:
    return StoreError("the images have not been listed yet", "try again in a few seconds")
