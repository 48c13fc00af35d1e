"""Small finished runs with an audit log, made through the functions that real runs use."""

from __future__ import annotations

from pathlib import Path

from privdiff_infer.audit import AuditLog, Event
from privdiff_infer.burned_in_text import TextState
from privdiff_infer.journal import Figures, Journal, Outcome
from privdiff_infer.records import write_records
from privdiff_infer.release import (
    OutputFolders,
    Row,
    Status,
    json_bytes,
    write_private,
    write_released,
)
from tests.unit.outputs import AUDIT_KEY

FACTS = {
    "model": "tiny",
    "model_version": "1.0",
    "model_sha256": "0" * 64,
    "profile": "standard",
    "strength": 0.5,
    "num_inference_steps": None,
    "output_format": "auto",
    "output_size": "model",
    "side_markers": "redraw",
    "accept_unchecked_text": False,
    "software": "privdiff",
}
FIGURES = Figures(
    0.2, {"Edema": 0.1}, {"Edema": 0.2}, 0.5, 1, TextState.CHECKED, text_boxes=0, markers_redrawn=0
)


def output(number: int, suffix: str = ".png") -> str:
    """Return the result of the n-th source."""
    return f"release/images/cxr-{number:016x}{suffix}"


def open_log(out: Path) -> AuditLog:
    """Return the log of a run."""
    return AuditLog(OutputFolders(out).audit, AUDIT_KEY)


def write_run(out: Path, *contents: bytes, suffix: str = ".png", finished: bool = True) -> Path:
    """Write a run whose results are `contents`, one held result and one failed source."""
    folders = OutputFolders(out)
    folders.create()
    write_private(folders.run, json_bytes(FACTS | {"seed": "1"}))
    with open_log(out) as log:
        log.append(Event.RUN_STARTED, options=FACTS, resumed=False)
        journal = Journal(folders, log)
        for number, content in enumerate(contents):
            add_result(journal, folders, number, content, suffix)
        held = folders.held / "cxr-ffffffffffffffff.png"
        sha256 = write_private(held, b"held")
        name = held.relative_to(out).as_posix()
        row = Row("/in/DOE held.png", "", name, sha256, Status.HELD, "too similar: 0.9")
        journal.add(Outcome(row, "too similar", "d", FIGURES))
        failed = Row("/in/DOE letter.txt", "", "", "", Status.FAILED, "no image")
        journal.add(Outcome(failed, "no image", ""))
        if finished:
            write_records(folders, journal.outcomes, log)
    return out


def add_result(
    journal: Journal, folders: OutputFolders, number: int, content: bytes, suffix: str = ".png"
) -> None:
    """Add one released result, with a preview if browsers do not show it."""
    name = output(number, suffix)
    sha256 = write_released(folders.root / name, content)
    if preview := folders.preview(name):
        preview.parent.mkdir(exist_ok=True)
        write_released(preview, b"preview of " + content[:9])
    row = Row(f"/in/DOE JANE {number}.png", "1.2.3", name, sha256, Status.RELEASED, "")
    journal.add(Outcome(row, "", f"digest-{number}", FIGURES))
