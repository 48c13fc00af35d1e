"""The chain of the audit log: what it holds, who may write, what a kill leaves behind."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privdiff_infer import audit as audit_module
from privdiff_infer.audit import AuditLog, Entry, Event, continued_log
from privdiff_infer.errors import AuditError, OutputError, SecretError
from privdiff_infer.journal import Journal
from privdiff_infer.records import write_records
from privdiff_infer.release import OutputFolders
from privdiff_infer.verification import Kind, verify
from tests.unit.audited_run import add_result, open_log, output, write_run
from tests.unit.outputs import AUDIT_KEY

APPEND = """
import sys
from pathlib import Path
from privdiff_infer.audit import AuditLog, Event
log = AuditLog(Path(sys.argv[1]), {key!r})
for number in range(int(sys.argv[2])):
    log.append(Event.IMAGE_FAILED, reason=sys.argv[3] * 50)
    print(number, flush=True)
"""


def appending(path: Path, number: int, reason: str) -> subprocess.Popen[str]:
    """Start a process that appends entries and prints the number of each."""
    command = [sys.executable, "-c", APPEND.format(key=AUDIT_KEY), path, str(number), reason]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "out", b"one", b"two", b"three")


def test_every_entry_carries_the_hmac_of_itself_and_of_the_one_before(path):
    log = AuditLog(path, AUDIT_KEY)
    log.append(Event.RUN_STARTED, options={"strength": 0.5})
    log.append(Event.IMAGE_FAILED, reason="no image")

    first, second = (json.loads(line) for line in path.read_bytes().splitlines())
    for entry in (first, second):
        own = entry.pop("hmac")
        content = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        assert own == hmac.new(AUDIT_KEY, content, hashlib.sha256).hexdigest()
        entry["hmac"] = own
    assert (first["index"], first["event"], first["previous"]) == (0, "run_started", "0" * 64)
    assert (second["index"], second["previous"]) == (1, first["hmac"])
    assert second["time"].endswith("+00:00")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_entries_of_a_run_name_no_source(run):
    text = (run / "private/audit.jsonl").read_text()
    assert "DOE" not in text
    assert "digest-" not in text
    assert "1.2.3" not in text
    assert "0.9" not in text
    assert [entry["event"] for entry in map(json.loads, text.splitlines())] == [
        "run_started",
        *["image_released"] * 3,
        "image_held",
        "image_failed",
        "sealed",
    ]


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.none()))
def test_line_round_trip(facts):
    reserved = {"index", "time", "event", "previous", "hmac"}
    reserved |= {*audit_module.TEXT_FACTS, *audit_module.DIGEST_FACTS}
    facts = {name: value for name, value in facts.items() if name not in reserved}
    entry = Entry(3, "now", Event.SEALED, facts, "0", "1")
    assert Entry.from_line(entry.line) == entry


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"[]\n",
        b"{}\n",
        b"null\n",
        b"[" * 100_000 + b"\n",
        b"\xff\n",
        b'{"event":"sealed","hmac":"","index":0,"previous":"","time":"","index":0}\n',
        b'{"event":"sealed","files":[1],"hmac":"","index":0,"previous":"","time":""}\n',
        b'{"event":"sealed","hmac":"","index":true,"previous":"","time":""}\n',
        b'{"event":"sealed","hmac":"","index":0,"output":["a"],"previous":"","time":""}\n',
        b'{"event":"other","hmac":"","index":0,"previous":"","time":""}\n',
        b'{"event":"sealed", "hmac":"","index":0,"previous":"","time":""}\n',
    ],
)
def test_line_that_is_no_entry_is_refused(line):
    with pytest.raises(ValueError):
        Entry.from_line(line)


def test_processes_that_append_at_once_make_one_chain(path):
    processes = [appending(path, 40, reason) for reason in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]

    with AuditLog(path, AUDIT_KEY) as log:
        reasons = [entry.facts["reason"][0] for entry in log.entries]
    assert sorted(reasons) == ["a"] * 40 + ["b"] * 40


def test_second_command_in_the_same_folder_is_refused(run, monkeypatch):
    monkeypatch.setattr(audit_module, "LOCK_SECONDS", 0.05)
    with (
        continued_log(OutputFolders(run)),
        pytest.raises(OutputError, match="another privdiff command works in this folder"),
        continued_log(OutputFolders(run)),
    ):
        pass


def test_killed_process_leaves_a_log_that_continues(path):
    process = appending(path, 100_000, "x")
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    log = AuditLog(path, AUDIT_KEY)
    log.append(Event.IMAGE_FAILED, reason="after")
    whole = path.read_bytes().splitlines(keepends=True)
    assert len(whole) >= 6
    assert [Entry.from_line(line).index for line in whole] == list(range(len(whole)))


@pytest.mark.parametrize("left", [1, 40, -1])
def test_write_that_did_not_end_is_put_aside_and_told_of(run, left):
    path = run / "private/audit.jsonl"
    whole = path.read_bytes()
    torn = Entry(7, "now", Event.APPROVED, {"output": output(0)}, "0", "1").line[:left]
    path.write_bytes(whole + torn)
    (finding,) = verify(run, AUDIT_KEY).findings
    assert finding.kind is Kind.INCOMPLETE
    assert finding.subject == "entry 7"

    folders = OutputFolders(run)
    with continued_log(folders) as log:
        write_records(folders, Journal(folders, log).outcomes, log)

    recovered = log.entries[7]
    assert recovered.event is Event.RECOVERED
    assert recovered.facts == {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
    assert (run / "private/audit-torn-7").read_bytes() == torn
    assert path.read_bytes().startswith(whole)
    verification = verify(run, AUDIT_KEY)
    assert verification.findings == []
    assert verification.recovered == 1


def test_torn_end_is_no_way_to_get_rid_of_entries(run):
    path = run / "private/audit.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:50])
    with (
        pytest.raises(AuditError, match="lost entries at its end"),
        continued_log(OutputFolders(run)),
    ):
        pass


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda lines: [lines[0].replace(b"run_s", b"run_S"), *lines[1:]], "entry 0 .* changed"),
        (lambda lines: [*lines[:2], *lines[3:]], "entry 2 .* out of order"),
        (lambda lines: [*lines[:1], lines[2], lines[1], *lines[3:]], "entry 1 .* out of order"),
        (lambda lines: lines[:2], "lost entries at its end"),
        (lambda lines: [], "lost entries at its end"),
    ],
)
def test_nothing_is_built_on_a_changed_log(run, spoil, words):
    path = run / "private/audit.jsonl"
    path.write_bytes(b"".join(spoil(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(AuditError, match=words), continued_log(OutputFolders(run)):
        pass


@pytest.mark.parametrize("name", ["journal.jsonl", "run.json"])
def test_nothing_is_built_on_changed_records(run, name):
    path = run / "private" / name
    path.write_bytes(path.read_bytes().replace(b"DOE", b"POE") + b"\n")
    with (
        pytest.raises(AuditError, match=f"private/{name} was changed after it was sealed"),
        continued_log(OutputFolders(run)),
    ):
        pass


def test_log_is_not_continued_with_another_key(run):
    with (
        pytest.raises(AuditError, match="another key"),
        AuditLog(run / "private/audit.jsonl", b"another key of at least 32 bytes"),
    ):
        pass


def test_log_is_not_continued_without_its_key(run, tmp_path, monkeypatch):
    monkeypatch.delenv("PRIVDIFF_AUDIT_KEY_FILE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    with (
        pytest.raises(SecretError, match="there is no audit key here"),
        continued_log(OutputFolders(run)),
    ):
        pass
    assert not list(tmp_path.rglob("audit-key"))


def test_failed_write_leaves_the_log_as_it_was(run, monkeypatch):
    path = run / "private/audit.jsonl"
    before = path.read_bytes()
    log = open_log(run)

    def full(_: int) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk full"):
        log.append(Event.IMAGE_FAILED, reason="x")
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert log.append(Event.IMAGE_FAILED, reason="x").index == 7


def test_result_that_has_no_row_any_more_is_withdrawn(run):
    folders = OutputFolders(run)
    with continued_log(folders) as log:
        outcomes = [o for o in Journal(folders, log).outcomes if o.row.output != output(1)]
        (run / output(1)).unlink()
        write_records(folders, outcomes, log)
    assert [e.facts["output"] for e in log.entries if e.event is Event.IMAGE_WITHDRAWN] == [
        output(1)
    ]


def test_result_that_only_the_journal_knows_is_done_again(run):
    folders = OutputFolders(run)
    slipped_in = Journal(folders, AuditLog(run / "other.jsonl", AUDIT_KEY))
    add_result(slipped_in, folders, 9, b"slipped in")

    journal = Journal(folders, open_log(run))
    journal.settle([])
    assert output(9) not in journal.outputs
    assert output(0) in journal.outputs
