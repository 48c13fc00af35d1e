"""Studies in a DICOMweb store: its series of chest X-rays, CR and DX unless a query says otherwise.

Nothing is fetched before somebody needs it, and then it is the very file that the store has: what
converts it first loses the header, and shows MONOCHROME1 inverted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from monailabel_app.lib.datastores.cache import forget_old_files
from monailabel_app.lib.datastores.studies import Listing, Studies
from monailabel_app.lib.errors import Conflict
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.dicom.web import SCHEME, WebSeries, find_series
from privdiff_infer.release import write_private
from privdiff_infer.sources import Source

MODALITIES = "Modality=DX,CR"

MAX_AGE_SECONDS = 30.0


class DicomwebStudies(Studies):
    """The series of a store.

    Parameters
    ----------
    url
        Of the service, with or without the prefix of `privdiff_infer`, with or without a query.
    cache
        Folder for what was fetched.
    pseudonyms
        What makes ids of UIDs.

    Raises
    ------
    OptionError
        If the URL is none, holds a secret, or its query names no attribute.
    """

    def __init__(self, url: str, cache: Path, pseudonyms: Pseudonyms) -> None:
        bare = url.removeprefix(SCHEME)
        self._url = f"{SCHEME}{bare}" if "?" in bare else f"{SCHEME}{bare}?{MODALITIES}"
        find_series(self._url)  # asks nobody yet, but refuses a URL that is none
        self._cache = cache
        self._pseudonyms = pseudonyms
        self._listing = Listing(self._read, MAX_AGE_SECONDS)

    def entries(self) -> Mapping[str, WebSeries]:
        """Return the series of every image id."""
        return self._listing.entries()

    def read_ahead(self) -> None:
        """Let a thread read the list."""
        self._listing.read_ahead()

    def check(self, image_id: str) -> None:
        """Raise `NotFound` unless there is such an image."""
        self._listing.find(image_id)

    def sources(self, image_id: str) -> list[Source]:
        """Return the instances of a series."""
        return list(self._listing.find(image_id).instances())

    def suffix(self, image_id: str) -> str:
        """Return that of DICOM."""
        self.check(image_id)
        return ".dcm"

    def file(self, image_id: str) -> Path:
        """Return the one instance of a series, fetched unless that was done lately."""
        forget_old_files(self._cache)
        path = self._cache / f"{image_id}.dcm"
        series = self._listing.find(image_id)
        if path.exists():
            return path
        instances = list(series.instances())
        if len(instances) != 1:
            raise Conflict(
                f"this image has {len(instances)} originals", "queue it, and look at its jobs"
            )
        [only] = instances
        write_private(path, only.read())
        return path

    def _read(self) -> dict[str, WebSeries]:
        return {
            self._pseudonyms.image_id(series.series): series for series in find_series(self._url)
        }
