"""What became of every source, kept on the disk."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from privdiff_infer.audit import AuditLog, Entry
from privdiff_infer.burned_in_text import TextState
from privdiff_infer.errors import ImageRejected
from privdiff_infer.journal import Figures, Journal, Outcome
from privdiff_infer.release import OutputFolders, Row, Status
from tests.unit.outputs import AUDIT_KEY, open_journal

NUMBER = 50


@pytest.fixture
def folders(tmp_path: Path) -> OutputFolders:
    folders = OutputFolders(tmp_path / "out")
    folders.create()
    return folders


def outcome(folders: OutputFolders, number: int, status: Status = Status.RELEASED) -> Outcome:
    row = Row(f"/sources/{number}.png", "", f"release/images/cxr-{number:016}.png", "0", status, "")
    figures = Figures(0.5, {"Mass": 0.25}, {"Mass": 0.5}, 0.7, 1, TextState.CHECKED, 0, 0)
    return Outcome(row, "", "0" * 64, figures)


def living(kind: type) -> int:
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


def test_rows_and_entries_stay_on_the_disk(folders):
    outcomes, entries = living(Outcome), living(Entry)
    with AuditLog(folders.audit, AUDIT_KEY) as log:
        journal = Journal(folders, log)
        for number in range(NUMBER):
            journal.add(outcome(folders, number))

        assert living(Outcome) <= outcomes
        assert living(Entry) <= entries + 1  # the last one
        assert len(journal) == len(list(journal)) == len(list(log)) == NUMBER


def test_outcomes_are_read_as_they_were_written_and_the_last_of_a_source_counts(folders):
    journal = open_journal(folders)
    for number in (0, 1, 0):
        journal.add(outcome(folders, number))
    failed = Outcome.without_result("/sources/1.png", Status.FAILED, ImageRejected("bad", "fix it"))
    journal.add(failed)

    assert journal.outcomes == [outcome(folders, 0), failed]
    assert open_journal(folders).outcomes == journal.outcomes
    assert journal.outputs == {outcome(folders, 0).row.output}


def test_source_is_known_however_its_name_is_spelled(folders):
    journal = open_journal(folders)
    journal.add(outcome(folders, 3))

    assert Path("/sources/../sources/3.png") in journal
    assert Path("/sources/4.png") not in journal


def test_outcomes_of_some_sources_come_in_the_order_of_the_journal(folders):
    journal = open_journal(folders)
    for number in range(4):
        journal.add(outcome(folders, number))
    named = [Path(f"/sources/{number}.png") for number in (3, 9, 1)]

    assert list(journal.of(named)) == [outcome(folders, 1), outcome(folders, 3)]


def test_torn_line_is_left_out_and_gone_once_the_journal_was_settled(folders):
    journal = open_journal(folders)
    journal.add(outcome(folders, 0))
    with folders.journal.open("ab") as file:
        file.write(b'{"row": {"source": "torn')
    again = open_journal(folders)
    assert len(again) == 1
    again.settle([])
    again.add(outcome(folders, 1))

    assert [o.row.source for o in open_journal(folders)] == ["/sources/0.png", "/sources/1.png"]
