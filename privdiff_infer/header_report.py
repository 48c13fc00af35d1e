"""What is told of a run of `privdiff deidentify`: release/report.json and release/report.html."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from privdiff_infer.audit import Anchor
from privdiff_infer.journal import Outcome
from privdiff_infer.release import OutputFolders, Review, Status, json_bytes, write_released
from privdiff_infer.report import render

LIMITS = (
    "Headers follow the Basic Application Level Confidentiality Profile of PS3.15 with the options "
    "that are named. Conforming to it does not make an image anonymous.",
    "Nothing was redrawn: the pixels can be matched with other images of the same person.",
    "A detector of text can miss text: look at every image before it leaves.",
)


def header_report(
    run: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    reviews: Mapping[str, Review],
    anchor: Anchor,
) -> dict[str, Any]:
    """Return the content of ``release/report.json``; nothing in it tells of a source.

    Parameters
    ----------
    run
        Content of ``private/run.json``; its seed and the key's fingerprint stay there.
    outcomes
        Everything in the journal.
    reviews
        State of every result, by its path below OUT.
    anchor
        Of the audit log.
    """
    released = sorted(
        (o for o in outcomes if o.row.status is Status.RELEASED), key=lambda o: o.row.output
    )
    others = Counter(
        (o.row.status.value, o.public_reason)
        for o in outcomes
        if o.row.status is not Status.RELEASED
    )
    return {
        "run": {name: run[name] for name in ("command", "options", "software")},
        "counts": {
            status.value: sum(o.row.status is status for o in outcomes) for status in Status
        },
        "limits": list(LIMITS),
        "images": [
            {
                "file": Path(o.row.output).relative_to("release").as_posix(),
                "sha256": o.row.sha256,
                "text": "not checked" if o.public_reason else "checked",
                "review": reviews[o.row.output].value,
            }
            for o in released
        ],
        "not_released": [
            {"status": status, "reason": reason, "number": number}
            for (status, reason), number in sorted(others.items())
        ],
        "audit": asdict(anchor),
    }


def write_header_report(
    folders: OutputFolders,
    run: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    reviews: Mapping[str, Review],
    anchor: Anchor,
) -> None:
    """Write both files.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    report = header_report(run, outcomes, reviews, anchor)
    write_released(folders.release / "report.json", json_bytes(report))
    write_released(folders.report, render("header_report.html", report=report))
