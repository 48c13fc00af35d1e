"""Approved results as images for annotators: what may be labelled by people who see no original.

Such an image has the id of its job.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from monailabel_app.lib.errors import NotFound
from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.jobs.states import JobState
from monailabel_app.lib.jobs.store import JobStore
from monailabel_app.lib.state_folder import StateFolder

APPROVED = (JobState.APPROVED, JobState.PUBLISHED)

PAGE = 1000


class CleanImages:
    """The approved results of a queue.

    Parameters
    ----------
    jobs
        The queue.
    folder
        STATE.
    """

    def __init__(self, jobs: JobStore, folder: StateFolder) -> None:
        self._jobs = jobs
        self._folder = folder

    def __len__(self) -> int:
        counts = self._jobs.counts()
        return sum(counts[state] for state in APPROVED)

    def ids(self) -> list[str]:
        """Return their ids, in order of arrival."""
        return [job.id for job in self._all()]

    def file(self, image_id: str) -> Path:
        """Return the file of one.

        Raises
        ------
        NotFound
            If there is none, or it is not approved.
        """
        job = self._jobs.get(image_id)
        if job.state not in APPROVED:
            raise NotFound("this result is not approved", "ask a reviewer to look at it")
        return self._folder.job(job.id).root / job.output

    def _all(self) -> Iterator[Job]:
        after: int | None = 0
        while after is not None:
            page = self._jobs.page(states=APPROVED, after=after, limit=PAGE)
            yield from page.jobs
            after = page.next
