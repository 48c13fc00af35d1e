"""What the server lacks for a while is no fault of an image: the job waits and is tried again."""

from __future__ import annotations

from dataclasses import dataclass

from monailabel_app.lib.jobs.engine import Stop
from privdiff_infer.dicom.web import WebInstance
from privdiff_infer.errors import StoreError
from privdiff_infer.sources import Source

DATABASE_AWAY = "the database does not answer"
KEY_AWAY = "a key of the server cannot be read"
MODEL_AWAY = "the model cannot be read"
WORKERS_AWAY = "the workers cannot be reached"


class ServerFault(Stop):
    """Something that jobs need is away; it passes through what turns errors into rows.

    Parameters
    ----------
    problem
        What is away, in constant words that may leave.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.reason = f"{problem}; the job waits and is tried again"


@dataclass(frozen=True, repr=False)
class _PatientInstance(WebInstance):
    """An instance whose store may be away for a while."""

    def read(self) -> bytes:
        """Fetch the file.

        Raises
        ------
        ServerFault
            If the store cannot give it now.
        ImageRejected
            If it does not give it at all.
        """
        try:
            return self.fetch()
        except StoreError as error:
            away = ServerFault(error.problem) if error.is_passing else self.rejected(error)
        raise away


def patient(source: Source) -> Source:
    """Return a source of a job; reading it raises `ServerFault` while its store is away."""
    if isinstance(source, WebInstance):
        return _PatientInstance(source.store_url, source.study, source.series, source.instance)
    return source
