"""`privdiff review`: decisions are bound to bytes, and everything that tells of them agrees."""

from __future__ import annotations

import getpass
import hashlib
import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from typer.testing import CliRunner

from privdiff_infer.audit import Event, continued_log
from privdiff_infer.cli import app
from privdiff_infer.errors import AuditError, OptionError, OutputError
from privdiff_infer.journal import Journal
from privdiff_infer.records import write_records
from privdiff_infer.release import OutputFolders, Review
from privdiff_infer.result_states import decisions_of
from privdiff_infer.review import decisions, record
from privdiff_infer.verification import verify
from tests.unit.audited_run import add_result, open_log, output, write_run
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp
from tests.unit.outputs import AUDIT_KEY, open_journal, read_crosswalk

runner = CliRunner()
HELD = "private/held/cxr-ffffffffffffffff.png"


def review(*arguments: object):
    return runner.invoke(app, ["review", *map(str, arguments)])


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "out", b"one", b"two", b"three")


def reviews(run: Path) -> dict[str, str]:
    """Return the column `review` of the crosswalk, by output."""
    rows = read_crosswalk(run / "private/crosswalk.csv")
    return {row["output"]: row["review"] for row in rows}


def test_results_are_pending_until_a_person_decides(run):
    assert reviews(run) == {
        **{output(number): "pending" for number in range(3)},
        HELD: "pending",
        "": "",
    }


def test_decision_stands_in_log_crosswalk_page_and_report(run):
    result = review(run, "--approve", "cxr-0000000000000001", "--comment", "fine", "--reviewer=ada")
    assert result.exit_code == 0

    with open_log(run) as log:
        entry = log.entries[-2]
    assert entry.event is Event.APPROVED
    assert entry.facts == {
        "output": output(1),
        "sha256": hashlib.sha256(b"two").hexdigest(),
        "reviewer": "ada",
        "comment": "fine",
    }
    assert reviews(run)[output(1)] == "approved"
    page = (run / "private/review.html").read_text()
    assert f"by ada, <time>{entry.time}</time>: fine" in page
    report = json.loads((run / "release/report.json").read_text())
    assert [image["review"] for image in report["images"]] == ["pending", "approved", "pending"]
    assert verify(run, AUDIT_KEY).findings == []


def test_reviewer_and_comment_stay_private(run):
    review(run, "--reject", output(0), "--comment", "shows DOE", "--reviewer", "ada lovelace")
    for name in ("report.json", "report.html"):
        text = (run / "release" / name).read_text()
        assert "DOE" not in text
        assert "lovelace" not in text
        assert "rejected" in text


def test_reviewer_is_the_login_name_by_default(run):
    review(run, "--approve", output(0))
    assert decisions(run)[output(0)].reviewer == getpass.getuser()


@pytest.mark.parametrize("form", ["name", "file", "below OUT", "path"])
def test_image_is_named_by_name_or_path(run, form):
    named = {
        "name": "cxr-0000000000000001",
        "file": "cxr-0000000000000001.png",
        "below OUT": output(1),
        "path": str(run / output(1)),
    }[form]
    assert review(run, "--approve", named).exit_code == 0
    assert reviews(run)[output(1)] == "approved"


def test_all_means_what_is_pending_and_not_held(run):
    review(run, "--reject", output(0))
    assert review(run, "--approve", "--all").exit_code == 0
    assert reviews(run) == {
        output(0): "rejected",
        output(1): "approved",
        output(2): "approved",
        HELD: "pending",
        "": "",
    }


def test_changed_decision_is_a_new_entry(run):
    review(run, "--approve", output(0))
    review(run, "--reject", output(0))
    assert reviews(run)[output(0)] == "rejected"
    with open_log(run) as log:
        events = [e.event for e in log.entries if e.facts.get("output") == output(0)]
    assert events == [Event.IMAGE_RELEASED, Event.APPROVED, Event.REJECTED]


def test_without_a_decision_the_states_are_listed(run):
    review(run, "--approve", output(0), "--reviewer", "ada")
    before = (run / "private/audit.jsonl").read_bytes()
    lines = review(run).stdout.splitlines()
    assert lines[0] == f"{HELD}  pending"
    assert lines[1].startswith(f"{output(0)}  approved  ada  ")
    assert len(lines) == 4
    assert (run / "private/audit.jsonl").read_bytes() == before


def test_json(run):
    (decision,) = json.loads(review(run, "--approve", output(2), "--json").stdout)
    assert decision["output"] == output(2)
    assert decision["state"] == "approved"
    assert decision["sha256"] == hashlib.sha256(b"three").hexdigest()
    assert len(json.loads(review(run, "--json").stdout)) == 4


def test_held_result_can_be_rejected_but_not_approved(run):
    assert "is held and cannot be approved" in str(review(run, "--approve", HELD).exception)
    assert reviews(run)[HELD] == "pending"
    assert review(run, "--reject", HELD).exit_code == 0
    assert reviews(run)[HELD] == "rejected"


def test_bytes_that_are_not_those_of_the_log_are_not_approved(run):
    (run / output(1)).write_bytes(b"another image")
    result = review(run, "--approve", output(0), output(1))
    assert isinstance(result.exception, AuditError)
    assert "is not the file that was written" in str(result.exception)
    assert reviews(run)[output(0)] == "pending"


def test_published_image_cannot_be_taken_back(run):
    record(run, [output(0)], Review.APPROVED, "ada")
    folders = OutputFolders(run)
    with continued_log(folders) as log:
        sha256 = decisions_of(log.entries)[output(0)].sha256
        log.append(Event.PUBLISHED, output=output(0), sha256=sha256, target="http://store")
        write_records(folders, Journal(folders, log).outcomes, log)
    assert reviews(run)[output(0)] == "published"
    result = review(run, "--reject", output(0))
    assert "was published and cannot be taken back" in str(result.exception)
    assert verify(run, AUDIT_KEY).findings == []


def test_new_bytes_are_pending_again_and_the_same_bytes_are_not(run):
    record(run, [output(0), output(1)], Review.APPROVED, "ada")
    folders = OutputFolders(run)
    journal = open_journal(folders)
    add_result(journal, folders, 0, b"redrawn")
    add_result(journal, folders, 1, b"two")
    assert decisions(run)[output(0)].state is Review.PENDING
    assert decisions(run)[output(1)].state is Review.APPROVED


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--approve", "--reject", "cxr-0"], "exclude each other"),
        (["--reject", "--no-text", "cxr-0"], "add --approve"),
        (["--approve"], "no image was named"),
        (["cxr-0"], "no decision was given"),
        (["--approve", "cxr-0"], "'cxr-0' is no result of this run"),
        (["--approve", "--no-text", output(0)], "is no DICOM file"),
    ],
)
def test_wrong_usage_is_told_and_changes_nothing(run, arguments, words):
    before = (run / "private/audit.jsonl").read_bytes()
    result = review(run, *arguments)
    assert isinstance(result.exception, OptionError)
    assert words in str(result.exception)
    assert (run / "private/audit.jsonl").read_bytes() == before


def test_folder_without_a_run_is_refused(tmp_path):
    result = review(tmp_path)
    assert isinstance(result.exception, OutputError)
    assert "holds no run with an audit log" in str(result.exception)


def test_interrupted_run_can_be_reviewed(tmp_path):
    out = write_run(tmp_path / "out", b"one", finished=False)
    assert review(out, "--approve", output(0)).exit_code == 0
    assert verify(out, AUDIT_KEY).findings == []


class TestNoText:
    @pytest.fixture
    def shown(self) -> bytes:
        return dicom_bytes(radiograph_dataset(ramp(), BurnedInAnnotation="YES"))

    @pytest.fixture
    def run(self, tmp_path, shown) -> Path:
        return write_run(tmp_path / "out", shown, suffix=".dcm")

    def test_new_file_says_no_and_has_the_same_pixels(self, run, shown):
        assert review(run, "--approve", "--no-text", output(0, ".dcm")).exit_code == 0

        content = (run / output(0, ".dcm")).read_bytes()
        before, after = (pydicom.dcmread(BytesIO(c)) for c in (shown, content))
        assert after.BurnedInAnnotation == "NO"
        assert after.PixelData == before.PixelData
        with open_log(run) as log:
            facts = log.entries[-2].facts
        assert facts["sha256"] == hashlib.sha256(content).hexdigest()
        assert facts["shown_sha256"] == hashlib.sha256(shown).hexdigest()
        assert facts["pixels_sha256"] == hashlib.sha256(before.PixelData).hexdigest()
        (row,) = [r for r in read_crosswalk(run / "private/crosswalk.csv") if "dcm" in r["output"]]
        assert (row["sha256"], row["review"]) == (facts["sha256"], "approved")
        assert verify(run, AUDIT_KEY).findings == []

    def test_approval_survives_a_resumed_run(self, run):
        record(run, [output(0, ".dcm")], Review.APPROVED, "ada", without_text=True)
        journal = open_journal(OutputFolders(run))
        journal.settle([])
        assert output(0, ".dcm") in journal.outputs

    def test_interruption_approves_no_bytes_that_nobody_approved(self, run, monkeypatch):
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("privdiff_infer.review.write_released", interrupt)
        with pytest.raises(KeyboardInterrupt):
            record(run, [output(0, ".dcm")], Review.APPROVED, "ada", without_text=True)
        monkeypatch.undo()

        again = review(run, "--approve", output(0, ".dcm"))
        assert "is not the file that was written" in str(again.exception)
        journal = open_journal(OutputFolders(run))
        journal.settle([])  # as --resume does
        assert output(0, ".dcm") not in journal.outputs

    def test_interruption_after_the_new_file_loses_nothing(self, run, monkeypatch):
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("privdiff_infer.review.write_records", interrupt)
        with pytest.raises(KeyboardInterrupt):
            record(run, [output(0, ".dcm")], Review.APPROVED, "ada", without_text=True)
        monkeypatch.undo()

        assert review(run, "--reject", HELD).exit_code == 0
        assert decisions(run)[output(0, ".dcm")].state is Review.APPROVED
        assert verify(run, AUDIT_KEY).findings == []


def test_commands_load_neither_torch_nor_the_readers():
    code = (
        "import sys, privdiff_infer.review, privdiff_infer.verification\n"
        "sys.exit('torch' in sys.modules or 'SimpleITK' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
