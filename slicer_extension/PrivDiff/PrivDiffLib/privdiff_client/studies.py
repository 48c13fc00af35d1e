"""Reader studies: pairs of original and redrawn image, and what readers say of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from .transport import Transport, accepted

ROUTE = "/privdiff/v1/reader-studies"


class ReaderStudies:
    """The reader studies of a server; answers are the JSON objects that it sends.

    Parameters
    ----------
    transport
        Of the server.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def plan(self, title: str, job_ids: Sequence[str], **chosen: Any) -> Any:
        """Plan a study; needs an administrator.

        Parameters
        ----------
        title
            Of the study.
        job_ids
            Jobs whose result passed the gates.
        **chosen
            ``findings`` and ``question``, where they are not the usual ones.
        """
        body = {"title": title, "jobs": list(job_ids), **chosen}
        return self._transport.json("POST", ROUTE, repeatable=False, json=body)

    def all(self) -> Any:
        """Return all studies, with what we have done of each."""
        return self._get("")

    def study(self, study_id: str) -> Any:
        """Return one study, with where we go on."""
        return self._get(f"/{_part(study_id)}")

    def item(self, study_id: str, position: int) -> Any:
        """Return what we said of a pair."""
        return self._get(f"/{_part(study_id)}/items/{position}")

    def picture(self, study_id: str, position: int, side: str) -> bytes:
        """Return one picture of a pair as PNG; nothing in it tells which one it is."""
        return self._bytes(f"/{_part(study_id)}/items/{position}/{_part(side)}")

    def answer(self, study_id: str, position: int, finding: str, answer: str) -> Any:
        """Save what we say of a finding of a pair."""
        path = f"{ROUTE}/{_part(study_id)}/items/{position}/answers"
        body = {"finding": finding, "answer": answer}
        return self._transport.json("PUT", path, repeatable=True, json=body)

    def answers_csv(self, study_id: str) -> bytes:
        """Return all answers as CSV; needs an administrator."""
        return self._bytes(f"/{_part(study_id)}/answers.csv")

    def statistics(self, study_id: str) -> Any:
        """Return adequacy and agreement with their intervals; needs an administrator."""
        return self._get(f"/{_part(study_id)}/statistics")

    def _get(self, path: str) -> Any:
        return self._transport.json("GET", ROUTE + path, repeatable=True)

    def _bytes(self, path: str) -> bytes:
        return accepted(self._transport.ask("GET", ROUTE + path, repeatable=True)).content


def _part(name: str) -> str:
    return quote(name, safe="")
