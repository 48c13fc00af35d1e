"""What is told of a run: report.json and report.html for release/, review.html for private/.

The release report holds redrawn pictures and figures only: no original, no difference picture (it
and the result give the original), no source name, no seed and no hash of a source. It has no time
of day either, so that equal runs give equal bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from privdiff_infer.audit import Anchor
from privdiff_infer.burned_in_text import TextState
from privdiff_infer.journal import Outcome
from privdiff_infer.release import (
    OutputFolders,
    Review,
    Status,
    json_bytes,
    preview_name,
    write_private,
    write_released,
)
from privdiff_infer.result_states import Decision
from privdiff_infer.review_pictures import BOX_COLOURS, KINDS

LIMITS = (
    "Redrawing lowers the linkage risk that was measured; it does not make an image anonymous.",
    "Burned-in text is looked for and filled where an image says so, but a detector misses some: "
    "look at every picture before it leaves.",
    "Findings come from the model's own reader, which it was trained with. They are a check of "
    "each image, not a measurement of diagnostic quality.",
    "Redrawn images are not for diagnosis.",
)


@dataclass(frozen=True)
class RunFacts:
    """What a report says of the run as a whole; nothing in it tells of a source.

    Attributes
    ----------
    model, model_version, model_sha256
        Of the bundle.
    profile, strength, num_inference_steps
        How it was sampled; steps are None where the profile's own number was used.
    output_format, output_size, side_markers, accept_unchecked_text
        As the user chose.
    software
        Name and version.
    """

    model: str
    model_version: str
    model_sha256: str
    profile: str
    strength: float
    num_inference_steps: int | None
    output_format: str
    output_size: str
    side_markers: str
    accept_unchecked_text: bool
    software: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RunFacts:
        """Take the facts out of ``private/run.json``.

        Raises
        ------
        KeyError
            If one is not there.
        """
        return cls(**{field.name: record[field.name] for field in fields(cls)})


def release_report(
    facts: RunFacts, outcomes: Sequence[Outcome], reviews: Mapping[str, Review], anchor: Anchor
) -> dict[str, Any]:
    """Return the content of ``release/report.json``.

    Images come in the order of their new names; what was not released is counted by the constant
    part of its reason, without what the header says. The anchor of the audit log alone differs
    between two equal runs.
    """
    released = [o for o in outcomes if o.row.status is Status.RELEASED and o.figures]
    others = Counter(
        (o.row.status.value, o.public_reason, _text(o))
        for o in outcomes
        if o.row.status is not Status.RELEASED
    )
    return {
        "run": vars(facts).copy(),
        "counts": {
            status.value: sum(o.row.status is status for o in outcomes) for status in Status
        },
        "limits": list(LIMITS),
        "images": [
            _image(o) | {"review": reviews[o.row.output].value}
            for o in sorted(released, key=lambda o: o.row.output)
        ],
        "not_released": [
            {"status": status, "reason": reason, "number": number, "text": text}
            for (status, reason, text), number in sorted(others.items())
        ],
        "audit": asdict(anchor),
    }


def write_release_report(
    folders: OutputFolders,
    facts: RunFacts,
    outcomes: Sequence[Outcome],
    reviews: Mapping[str, Review],
    anchor: Anchor,
) -> None:
    """Write ``release/report.json`` and ``release/report.html``.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    report = release_report(facts, outcomes, reviews, anchor)
    write_released(folders.release / "report.json", json_bytes(report))
    write_released(folders.report, render("report.html", report=report))


def write_review(
    folders: OutputFolders,
    facts: RunFacts,
    outcomes: Sequence[Outcome],
    decisions: Mapping[str, Decision],
) -> None:
    """Write ``private/review.html``.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    page = render(
        "review.html",
        run=vars(facts),
        rows=_review_rows(outcomes, decisions),
        kinds=KINDS,
        colours=BOX_COLOURS,
    )
    write_private(folders.review_page, page)


def _image(outcome: Outcome) -> dict[str, Any]:
    """Return what may leave of one image.

    What was read in the source, and its similarity to the result, do not: whoever holds an original
    could compute them again and find its row.
    """
    figures = outcome.figures
    assert figures is not None  # released images have figures
    file = Path(outcome.row.output).relative_to("release")
    return {
        "file": file.as_posix(),
        "preview": preview_name(file).as_posix(),
        "sha256": outcome.row.sha256,
        "strength": figures.strength,
        "attempts": figures.attempts,
        "findings": {name: round(value, 4) for name, value in figures.findings_after.items()},
        "text": figures.text_state.value,
        "text_boxes": figures.text_boxes,
        "markers_redrawn": figures.markers_redrawn,
    }


def _review_rows(
    outcomes: Sequence[Outcome], decisions: Mapping[str, Decision]
) -> list[dict[str, Any]]:
    rows = []
    for outcome in sorted(outcomes, key=lambda o: o.row.source):
        row, figures = outcome.row, outcome.figures
        rows.append(
            {
                "source": row.source,
                "status": row.status.value,
                "reason": row.reason,
                "name": Path(row.output).stem if row.output else "",
                "decision": decisions.get(row.output),
                "figures": figures,
                "changes": _changes(figures.findings_before, figures.findings_after)
                if figures
                else [],
                "text": _text(outcome),
            }
        )
    return rows


def _text(outcome: Outcome) -> str:
    """Return whether text was looked for to the end."""
    state = outcome.figures.text_state if outcome.figures else TextState.UNCHECKED
    return state.value


def _changes(before: dict[str, float], after: dict[str, float]) -> list[tuple[str, float, float]]:
    """Return (finding, before, after), largest change first."""
    changes = [(name, before[name], after[name]) for name in before]
    return sorted(changes, key=lambda change: -abs(change[2] - change[1]))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("privdiff_infer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **content: Any) -> bytes:
    """Return a page made from one of the templates."""
    text = _environment().get_template(template).render(**content)
    return text.encode(errors="backslashreplace")  # a file name can hold bytes that are no UTF-8
