"""What the entries of an audit log say of every result: its bytes, and what people decided of them.

The state of a result is kept nowhere but derived from the entries, so a result that gets other
bytes is pending again by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from privdiff_infer.audit import Entry, Event
from privdiff_infer.release import Review

EVENTS = {Review.APPROVED: Event.APPROVED, Review.REJECTED: Event.REJECTED}
"""What a person can decide, and the event that tells of it."""

STATES = {
    Event.APPROVED: Review.APPROVED,
    Event.APPROVED_FIRST: Review.PENDING,
    Event.REJECTED: Review.REJECTED,
}
"""What an entry of a person's decision makes of a result."""


@dataclass(frozen=True)
class Result:
    """What the entries say of the bytes of one result.

    Attributes
    ----------
    sha256
        Of the file.
    preview_sha256
        Of its picture for browsers, or empty if it has none of its own.
    """

    sha256: str
    preview_sha256: str


@dataclass(frozen=True)
class Decision:
    """The state of one result.

    Attributes
    ----------
    state
        ``pending``, ``approved``, ``rejected`` or ``published``.
    sha256
        Of the bytes that it holds for.
    reviewer, time, comment
        Of the person's last decision; empty before the first. Private.
    approvers
        Who approved these bytes since they were last rejected. Where two people must, one name
        leaves the result pending. Private.
    """

    state: Review
    sha256: str
    reviewer: str = ""
    time: str = ""
    comment: str = ""
    approvers: tuple[str, ...] = ()


def results(entries: Iterable[Entry]) -> dict[str, Result]:
    """Return what the entries say of every result that is there, by its path below OUT."""
    found: dict[str, Result] = {}
    for entry in entries:
        output = entry.facts.get("output")
        if not output:
            continue
        if entry.event in (Event.IMAGE_RELEASED, Event.IMAGE_HELD):
            facts = entry.facts
            found[output] = Result(facts.get("sha256", ""), facts.get("preview_sha256", ""))
        elif entry.event is Event.APPROVED and output in found:
            # Who saw that there is no text approves a file of another header and the same pixels.
            found[output] = replace(found[output], sha256=entry.facts.get("sha256", ""))
        elif entry.event is Event.IMAGE_WITHDRAWN:
            found.pop(output, None)
    return found


def decisions_of(entries: Iterable[Entry]) -> dict[str, Decision]:
    """Return the state of every result by the entries of its log."""
    entries = tuple(entries)
    made: dict[tuple[str, str], Decision] = {}
    for entry in entries:
        facts = entry.facts
        which = (facts.get("output", ""), facts.get("sha256", ""))
        if entry.event in STATES:
            made[which] = _decided(entry, made.get(which))
        elif entry.event is Event.PUBLISHED and which in made:
            made[which] = replace(made[which], state=Review.PUBLISHED)
    return {
        output: made.get((output, result.sha256), Decision(Review.PENDING, result.sha256))
        for output, result in results(entries).items()
    }


def _decided(entry: Entry, before: Decision | None) -> Decision:
    facts = entry.facts
    reviewer = facts.get("reviewer", "")
    earlier = before.approvers if before else ()
    approvers = () if entry.event is Event.REJECTED else tuple(dict.fromkeys((*earlier, reviewer)))
    return Decision(
        STATES[entry.event],
        facts.get("sha256", ""),
        reviewer,
        entry.time,
        facts.get("comment", ""),
        approvers,
    )
