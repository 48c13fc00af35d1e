"""The server's chain: many writers, flat memory, and what a check of the whole state finds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.state_folder import StateFolder
from monailabel_app.lib.verification import verify_state
from privdiff_infer.audit import AuditChain, Event
from privdiff_infer.errors import AuditError
from privdiff_infer.verification import Kind
from tests.unit.audited_run import open_log, output
from tests.unit.audited_run import write_run as write_run_of_three
from tests.unit.outputs import AUDIT_KEY

RECORD = """
import sys
from pathlib import Path
from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.audit import Event
audit = ServerAudit.open(StateFolder(Path(sys.argv[1])))
for number in range(50):
    audit.record(Event.CLAIMED, job=f"{sys.argv[2]}-{number}", by="ann")
"""


MEMORY = """
import json, os, sys, tracemalloc
from pathlib import Path
from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.audit import Event
os.fsync = lambda handle: None
folder = StateFolder(Path(sys.argv[1]))
audit = ServerAudit.open(folder)

def grown(count):
    before = tracemalloc.get_traced_memory()[0]
    for number in range(count):
        audit.record(Event.CLAIMED, job=str(number), by="ann")
    return tracemalloc.get_traced_memory()[0] - before

tracemalloc.start()
grown(100)
kept = grown(2000)
before = tracemalloc.get_traced_memory()[0]
tracemalloc.reset_peak()
reopened = ServerAudit.open(folder)
opening = tracemalloc.get_traced_memory()[1] - before
print(json.dumps({"grown": kept, "opening": opening, "entries": reopened.anchor.entries}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


def entries(folder: StateFolder) -> list[dict[str, object]]:
    return [json.loads(line) for line in folder.audit.read_bytes().splitlines()]


def test_an_entry_names_job_bytes_and_person(folder):
    ServerAudit.open(folder).record(Event.APPROVED, job="7", by="ann", sha256="0" * 64)

    (entry,) = entries(folder)
    assert {name: entry[name] for name in ("event", "job", "by", "sha256")} == {
        "event": "approved",
        "job": "7",
        "by": "ann",
        "sha256": "0" * 64,
    }


def test_threads_and_processes_write_one_chain(folder):
    audit = ServerAudit.open(folder)
    command = [sys.executable, "-c", RECORD, str(folder.root)]
    processes = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: audit.record(Event.CLAIMED, job=f"t-{n}", by="ben"), range(100)))
    assert [process.wait(60) for process in processes] == [0, 0]

    assert len({entry["job"] for entry in entries(folder)}) == 200
    assert ServerAudit.open(folder).anchor.entries == 200
    assert not verify_state(folder.root, AUDIT_KEY).findings


def test_memory_does_not_grow_with_the_chain(folder):
    # In a process of its own: threads that other tests left behind would be counted too.
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder.root)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    memory = json.loads(done.stdout)
    assert memory["grown"] < 50_000  # less than 25 bytes an entry, which has over 250
    assert memory["opening"] < 300_000
    assert memory["entries"] == 2100


def test_opening_checks_the_whole_chain(folder):
    audit = ServerAudit.open(folder)
    for job in "123":
        audit.record(Event.JOB_QUEUED, job=job, by="ann")
    content = folder.audit.read_bytes()

    folder.audit.write_bytes(content.replace(b'"job":"2"', b'"job":"9"'))
    with pytest.raises(AuditError, match="entry 1"):
        ServerAudit.open(folder)
    with pytest.raises(AuditError):
        folder.audit.write_bytes(content[: content.index(b"\n") + 1])
        audit.record(Event.JOB_QUEUED, job="4")


def test_half_a_line_is_put_aside(folder):
    ServerAudit.open(folder).record(Event.JOB_QUEUED, job="1")
    with folder.audit.open("ab") as file:
        file.write(b'{"event":"app')

    audit = ServerAudit.open(folder)

    assert audit.anchor.entries == 2
    assert (folder.root / "audit-torn-1").read_bytes() == b'{"event":"app'


def add_job(folder: StateFolder, audit: ServerAudit, name: str) -> None:
    """A job that the machine is done with: its run, and what the server's chain says."""
    audit.record(Event.JOB_QUEUED, job=name, by="ann")
    root = write_run_of_one(folder, name)
    sha256 = next(iter(root.values()))
    audit.record(Event.IMAGE_RELEASED, job=name, sha256=sha256)


def write_run_of_one(folder: StateFolder, name: str) -> dict[str, str]:
    """Write the run of a job; return the SHA-256 of its one result."""
    from privdiff_infer.journal import Journal
    from privdiff_infer.records import write_records
    from privdiff_infer.release import json_bytes, write_private
    from privdiff_infer.result_states import results
    from tests.unit.audited_run import FACTS, add_result

    folders = folder.job(name)
    folders.root.mkdir()
    folders.create()
    write_private(folders.run, json_bytes(FACTS | {"seed": "1"}))
    with open_log(folders.root) as log:
        log.append(Event.RUN_STARTED, options=FACTS, resumed=False)
        journal = Journal(folders, log)
        add_result(journal, folders, 0, name.encode())
        write_records(folders, journal.outcomes, log)
        return {path: result.sha256 for path, result in results(log.entries).items()}


@pytest.fixture
def state(folder: StateFolder) -> StateFolder:
    """Three jobs with results, one that failed without a folder, one that expired."""
    audit = ServerAudit.open(folder)
    for name in ("a", "b", "c"):
        add_job(folder, audit, name)
    audit.record(Event.JOB_QUEUED, job="d", by="ann")
    audit.record(Event.IMAGE_FAILED, job="d")
    audit.record(Event.IMAGE_RELEASED, job="e", sha256="0" * 64)
    audit.record(Event.JOB_EXPIRED, job="e")
    return folder


def test_a_state_that_was_left_alone_passes(state):
    found = verify_state(state.root, AUDIT_KEY)
    assert (found.findings, found.jobs, found.unfinished) == ([], 3, 0)


def replace_job(state: StateFolder) -> None:
    """Put another whole run, made with the key, into the place of a job."""
    shutil.rmtree(state.job("b").root)
    write_run_of_three(state.job("b").root, b"x")


def cut_end(state: StateFolder) -> None:
    lines = state.audit.read_bytes().splitlines(keepends=True)
    state.audit.write_bytes(b"".join(lines[:4]))


CHANGES: dict[str, Callable[[StateFolder], object]] = {
    "a job is deleted": lambda state: shutil.rmtree(state.job("b").root),
    "a result is changed": lambda state: (state.job("b").root / output(0)).write_bytes(b"other"),
    "a job is emptied": lambda state: shutil.rmtree(state.job("b").private),
    "a job is replaced": replace_job,
    "a job is added": lambda state: write_run_of_one(state, "z"),
    "an entry is deleted": lambda state: state.audit.write_bytes(
        b"".join(state.audit.read_bytes().splitlines(keepends=True)[1:])
    ),
    "the end is cut off": cut_end,
    "the chain is deleted": lambda state: state.audit.unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_is_found(state, change):
    change(state)
    assert Kind.CHANGED in [found.kind for found in verify_state(state.root, AUDIT_KEY).findings]


def test_a_job_at_work_is_no_finding(state):
    ServerAudit.open(state).record(Event.JOB_QUEUED, job="w", by="ann")
    write_run_of_three(state.job("w").root, b"x", finished=False)

    found = verify_state(state.root, AUDIT_KEY)

    assert (found.findings, found.unfinished) == ([], 1)


def test_without_the_key_it_says_so_once(state):
    kinds = [found.kind for found in verify_state(state.root, None).findings]
    assert kinds == [Kind.UNCHECKED]


def test_another_key_is_told_from_a_change(state):
    found = verify_state(state.root, b"another key of at least 32 bytes").findings
    assert "no entry that was made with this key" in str(found[0])


def test_a_chain_and_a_log_are_the_same_file(folder):
    chain = AuditChain(folder.audit, AUDIT_KEY)
    chain.append(Event.CLAIMED, job="1")
    from privdiff_infer.audit import AuditLog

    with AuditLog(folder.audit, AUDIT_KEY) as log:
        assert [entry.facts for entry in log.entries] == [{"job": "1"}]
        assert log.anchor == chain.anchor
