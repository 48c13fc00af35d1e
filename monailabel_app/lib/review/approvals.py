"""How many people must approve an image, and whose approval counts."""

from __future__ import annotations

from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.settings import ServerSettings
from privdiff_infer.result_states import Decision


def people_needed(settings: ServerSettings) -> int:
    """Return how many different people must approve."""
    return 2 if settings.two_person else 1


def approvers(settings: ServerSettings, job: Job, decision: Decision) -> tuple[str, ...]:
    """Return who approved and counts.

    Where two people must, who queued the image does not, even if they approved it while one person
    was enough.
    """
    if not settings.two_person:
        return decision.approvers
    return tuple(name for name in decision.approvers if name != job.submitter)
