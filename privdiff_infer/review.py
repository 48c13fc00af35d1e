"""Decisions of people: each is an entry of the audit log, bound to the bytes that are there now."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path

from privdiff_infer.audit import AuditLog, Event, continued_log, file_digest
from privdiff_infer.errors import AuditError, OptionError
from privdiff_infer.journal import Journal
from privdiff_infer.records import write_records
from privdiff_infer.release import OutputFolders, Review, is_released, write_released
from privdiff_infer.result_states import EVENTS, Decision, decisions_of

DICOM_SUFFIX = ".dcm"


def decisions(out: Path) -> dict[str, Decision]:
    """Return the state of every result of a run, by its path below OUT.

    Who holds the log already asks `result_states.decisions_of` instead.

    Raises
    ------
    OutputError
        If the folder holds no run with an audit log, or a command works in it.
    AuditError
        If the log was changed.
    SecretError
        If there is no audit key.
    """
    with continued_log(OutputFolders(out)) as log:
        return decisions_of(log.entries)


def record(
    out: Path,
    outputs: Collection[str],
    state: Review,
    reviewer: str,
    comment: str = "",
    *,
    without_text: bool = False,
    shown: Mapping[str, str] | None = None,
    people: int = 1,
) -> dict[str, Decision]:
    """Record one decision of a person on results; return the new state of these.

    All are checked before the first is recorded. Crosswalk, reports and review page follow, and
    the files of the run are sealed anew.

    Parameters
    ----------
    out
        Folder of the run.
    outputs
        Results, by their path below OUT.
    state
        ``approved`` or ``rejected``.
    reviewer
        Who decided.
    comment
        In the reviewer's words; stays in private/.
    without_text
        Whether the reviewer saw that no text is burned into the pixels. The file, which must be
        DICOM, is replaced by one that says so (BurnedInAnnotation NO, PS3.3 C.7.6.1) and holds the
        same pixels.
    shown
        SHA-256 of the bytes that the reviewer saw, by output; None: what is there.
    people
        How many different people must approve. With two, the first approval is recorded as such
        and leaves the result pending.

    Raises
    ------
    OptionError
        If a result is unknown, was published, is held and shall be approved, has other bytes than
        were shown, or is no DICOM object and `without_text` is given.
    AuditError
        If a result is not what the audit log says, or the log was changed.
    OutputError
        If the folder holds no run, a command works in it, or it cannot be written.
    SecretError
        If there is no audit key.
    """
    folders = OutputFolders(out)
    with continued_log(folders) as log:
        decided = decisions_of(log.entries)
        for output in outputs:
            _check(folders, output, state, decided, shown or {})
            if without_text and not output.endswith(DICOM_SUFFIX):
                raise OptionError(
                    f"{output} is no DICOM file, and no other states whether it holds text",
                    "leave out --no-text",
                )
        for output in outputs:
            if without_text:
                _record_without_text(folders, output, log, reviewer, comment)
            else:
                log.append(
                    _event(state, decided[output], reviewer, people),
                    output=output,
                    sha256=decided[output].sha256,
                    reviewer=reviewer,
                    comment=comment,
                )
        write_records(folders, Journal(folders, log).outcomes, log)
        now = decisions_of(log.entries)
        return {output: now[output] for output in outputs}


def _event(state: Review, before: Decision, reviewer: str, people: int) -> Event:
    if state is Review.APPROVED and len({*before.approvers, reviewer}) < people:
        return Event.APPROVED_FIRST
    return EVENTS[state]


def _check(
    folders: OutputFolders,
    output: str,
    state: Review,
    decided: dict[str, Decision],
    shown: Mapping[str, str],
) -> None:
    if output not in decided:
        raise OptionError(
            f"{output} is no result of this run", "name results as privdiff review OUT lists them"
        )
    if decided[output].state is Review.PUBLISHED:
        raise OptionError(
            f"{output} was published and cannot be taken back",
            "withdraw it where it was sent to",
        )
    if state is Review.APPROVED and not is_released(output):
        raise OptionError(
            f"{output} is held and cannot be approved",
            "redraw its source with other options in another folder",
        )
    if shown.get(output, decided[output].sha256) != decided[output].sha256:
        raise OptionError(
            f"{output} has other bytes than were shown", "look at it again before deciding"
        )
    if file_digest(folders.root / output) != decided[output].sha256:
        raise AuditError(
            f"{output} is not the file that was written",
            "redraw it with privdiff anonymize --resume",
        )


def _record_without_text(
    folders: OutputFolders,
    output: str,
    log: AuditLog,
    reviewer: str,
    comment: str,
) -> None:
    """Approve a file that says that no text is burned in, and put it in the place of the other.

    The log comes first: whatever stops this half-way, no bytes count as approved that are not.
    """
    from privdiff_infer.dicom.derived import without_burned_in_text

    shown = (folders.root / output).read_bytes()
    content = without_burned_in_text(shown)
    sha256 = hashlib.sha256(content).hexdigest()
    log.append(
        Event.APPROVED,
        output=output,
        sha256=sha256,
        shown_sha256=hashlib.sha256(shown).hexdigest(),
        pixels_sha256=_pixels_sha256(content),
        reviewer=reviewer,
        comment=comment,
        without_text=True,
    )
    write_released(folders.root / output, content)


def _pixels_sha256(content: bytes) -> str:
    """Return the SHA-256 of the stored pixels of a DICOM file."""
    import pydicom

    return hashlib.sha256(pydicom.dcmread(BytesIO(content)).PixelData).hexdigest()
