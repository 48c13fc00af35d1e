"""What `privdiff verify` finds: any change of the log, of release/ and of the records."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from privdiff_infer.audit import Entry, Event
from privdiff_infer.cli import app
from privdiff_infer.errors import OutputError
from privdiff_infer.release import Review
from privdiff_infer.review import record
from privdiff_infer.verification import Finding, Kind, verify
from tests.unit.audited_run import open_log, output, write_run
from tests.unit.outputs import AUDIT_KEY

runner = CliRunner()
LOG = "private/audit.jsonl"


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    """A finished and reviewed run with previews; tests put back what they change."""
    with tempfile.TemporaryDirectory() as folder:
        out = write_run(Path(folder) / "out", b"one", b"two", b"three", suffix=".nrrd")
        record(out, [output(0, ".nrrd")], Review.APPROVED, "ada")
        yield out


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    """Replace a file's bytes for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def findings(run: Path, key: bytes | None = AUDIT_KEY) -> list[Finding]:
    return list(verify(run, key).findings)


def told(run: Path, key: bytes | None = AUDIT_KEY) -> list[str]:
    return list(map(str, findings(run, key)))


def lines_of(run: Path) -> list[bytes]:
    return (run / LOG).read_bytes().splitlines(keepends=True)


def released(run: Path) -> list[str]:
    files = sorted(path for path in (run / "release").rglob("*") if path.is_file())
    return [path.relative_to(run).as_posix() for path in files]


def test_untouched_run_passes(run):
    verification = verify(run, AUDIT_KEY)
    assert verification.findings == []
    assert (verification.entries, verification.files) == (9, 8)
    assert verification.sealed == open_entries(run)[-1].time


def open_entries(run: Path) -> tuple[Entry, ...]:
    with open_log(run) as log:
        return log.entries


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(st.data())
def test_any_changed_byte_of_the_log_is_found_with_its_entry(run, data):
    content = (run / LOG).read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[position]))
    spoilt = content[:position] + bytes([byte]) + content[position + 1 :]
    index = content[:position].count(b"\n")

    with changed(run / LOG, spoilt):
        assert f"entry {index}" in {finding.subject for finding in findings(run)}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_changed_byte_of_a_released_file_is_found_with_its_name(run, data):
    name = data.draw(st.sampled_from(released(run)))
    content = (run / name).read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[position]))

    with changed(run / name, content[:position] + bytes([byte]) + content[position + 1 :]):
        assert f"changed: {name} is not the file that was written" in told(run)
        assert f"changed: {name} is not the file that was written" in told(run, key=None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_log_that_is_cut_anywhere_is_found(run, data):
    content = (run / LOG).read_bytes()
    with changed(run / LOG, content[: data.draw(st.integers(0, len(content) - 1))]):
        assert findings(run)
        assert len(findings(run, key=None)) > 1


@pytest.mark.parametrize("index", range(9))
def test_missing_entry_is_named(run, index):
    lines = lines_of(run)
    with changed(run / LOG, b"".join(lines[:index] + lines[index + 1 :])):
        assert any(
            finding.subject == f"entry {index}" and "is missing" in finding.problem
            for finding in findings(run)
        )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda e: [*e[:2], *e[5:]], "changed: each of entries 2 to 4 is missing"),
        (lambda e: [*e[:2], e[3], e[2], *e[4:]], "changed: entry 2 is out of order"),
        (lambda e: [*e[:3], e[1], *e[3:]], "changed: entry 1 is repeated"),
        (
            lambda e: [*e[:3], e[1].replace(b"-", b"+"), *e[3:]],
            "changed: private/audit.jsonl holds a line before entry 3 that is none",
        ),
        (lambda e: [*e[:3], b"\n", *e[3:]], "holds a line before entry 3 that is none"),
        (lambda e: e[:5], "each of entries 5 to 7 is missing at the end"),
        (lambda e: e[:8], "incomplete: entry 8 is missing, though release/report.json"),
        (lambda e: [], "each of entries 0 to 7 is missing at the end"),
    ],
    ids=["several", "swap", "repeat", "insert", "blank", "tail", "last line", "all"],
)
def test_change_of_lines_is_told(run, spoil, words):
    with changed(run / LOG, b"".join(spoil(lines_of(run)))):
        assert any(words in line for line in told(run))


def test_entry_of_another_log_under_the_same_key_does_not_fit(run, tmp_path):
    other = write_run(tmp_path / "other", b"one", suffix=".nrrd")
    lines = lines_of(run)
    with changed(run / LOG, b"".join([lines[0], lines_of(other)[1], *lines[2:]])):
        assert any("entry 1 does not follow the one before it" in line for line in told(run))


def test_whole_rewrite_is_found(run, tmp_path, monkeypatch):
    """Somebody with the software and a key of their own writes the whole folder anew."""
    monkeypatch.setattr("tests.unit.audited_run.AUDIT_KEY", b"6" * 64)
    forged = write_run(tmp_path / "forged", b"uno", b"dos", suffix=".nrrd")
    (finding,) = findings(forged)
    assert finding.kind is Kind.CHANGED
    assert "no entry that was made with this key" in finding.problem
    assert findings(forged, b"6" * 64) == []


def test_wrong_key_is_told(run):
    (finding,) = findings(run, b"6" * 64)
    assert "it is the key of another run, or the whole log was written anew" in finding.problem


def test_without_the_key_it_says_what_it_could_not_check(run):
    (finding,) = findings(run, key=None)
    assert finding.kind is Kind.UNCHECKED
    assert "was not checked against the audit key" in finding.problem


def test_replayed_old_state_of_the_whole_folder_is_not_found(tmp_path):
    """The limit that docs/explanation/audit.md states: only a copy kept elsewhere tells."""
    out = write_run(tmp_path / "out", b"one")
    record(out, [output(0)], Review.REJECTED, "ada")
    old = shutil.copytree(out, tmp_path / "old")
    record(out, [output(0)], Review.APPROVED, "ada")
    shutil.rmtree(out)
    shutil.move(old, out)
    assert findings(out) == []


def test_added_and_removed_files_are_named(run):
    added = run / "release/images/DOE.png"
    with changed_by_adding(added):
        assert told(run) == ["changed: release/images/DOE.png was added: no entry knows of it"]
    for name in released(run):
        content = (run / name).read_bytes()
        (run / name).unlink()
        assert f"changed: {name} is missing" in told(run)
        (run / name).write_bytes(content)


@contextmanager
def changed_by_adding(path: Path) -> Iterator[None]:
    path.write_bytes(b"new")
    try:
        yield
    finally:
        path.unlink()


def test_link_in_the_place_of_a_file_is_found(run, tmp_path):
    path = run / output(1, ".nrrd")
    content = path.read_bytes()
    (tmp_path / "elsewhere").write_bytes(content)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert told(run) == [f"changed: {output(1, '.nrrd')} is not the file that was written"]
    path.unlink()
    path.write_bytes(content)


def test_held_result_and_records_are_checked(run):
    with changed(run / "private/held/cxr-ffffffffffffffff.png", b"x"):
        assert told(run) == [
            "changed: private/held/cxr-ffffffffffffffff.png is not the file that was written"
        ]
    for name in ("run.json", "journal.jsonl", "crosswalk.csv", "review.html"):
        path = run / "private" / name
        with changed(path, path.read_bytes() + b"\n"):
            assert f"changed: private/{name} was changed after it was sealed" in told(run)


def test_sources_that_were_exchanged_in_the_crosswalk_are_found(run):
    path = run / "private/crosswalk.csv"
    text = path.read_bytes()
    exchanged = text.replace(b"JANE 0", b"*").replace(b"JANE 1", b"JANE 0").replace(b"*", b"JANE 1")
    with changed(path, exchanged):
        assert told(run) == ["changed: private/crosswalk.csv was changed after it was sealed"]


def test_decision_in_the_crosswalk_that_no_entry_tells_of_is_found(run):
    path = run / "private/crosswalk.csv"
    with changed(path, path.read_bytes().replace(b"pending", b"approved")):
        assert (
            f"changed: private/crosswalk.csv says of {output(1, '.nrrd')} what no entry says"
            in told(run)
        )


def test_change_does_not_pass_because_a_later_command_sealed_it(tmp_path):
    out = write_run(tmp_path / "out", b"one", b"two", suffix=".nrrd")
    (out / "release/previews/cxr-0000000000000001.png").write_bytes(b"another picture")
    (out / "release/images/letter.txt").write_bytes(b"slipped in")
    record(out, [output(0, ".nrrd")], Review.APPROVED, "ada")
    assert told(out) == [
        "changed: release/previews/cxr-0000000000000001.png is not the file that was written",
        "changed: release/images/letter.txt was added: no entry knows of it",
    ]


def test_interrupted_run_is_told_from_a_changed_one(tmp_path):
    out = write_run(tmp_path / "out", b"one", b"two", finished=False)
    (out / output(7)).write_bytes(b"written, but its entry was not")
    kinds = {finding.kind for finding in findings(out)}
    assert kinds == {Kind.INCOMPLETE}
    assert any("a command was stopped or is at work" in line for line in told(out))

    (out / output(0)).write_bytes(b"changed")
    assert f"changed: {output(0)} is not the file that was written" in told(out)


def test_log_that_is_gone_is_found(tmp_path):
    out = write_run(tmp_path / "out", b"one")
    (out / LOG).unlink()
    assert told(out) == [
        "changed: private/audit.jsonl is missing: nothing of this run can be checked"
    ]
    with pytest.raises(OutputError, match="holds no run"):
        verify(tmp_path, AUDIT_KEY)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                [
                    "index",
                    "time",
                    "event",
                    "previous",
                    "hmac",
                    "output",
                    "sha256",
                    "files",
                    "records",
                ]
            ),
            values | st.sampled_from([*Event]),
        ),
        max_size=4,
    )
)
def test_forged_lines_cause_no_traceback_without_the_key(run, entries):
    forged = b"".join(
        json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        for entry in entries
    )
    with changed(run / LOG, (run / LOG).read_bytes() + forged):
        assert findings(run, key=None)
        assert bool(findings(run)) == bool(forged)


class TestCommand:
    def test_exit_code_0_says_that_all_was_checked(self, run):
        result = runner.invoke(app, ["verify", str(run)])
        assert result.exit_code == 0
        assert result.stdout.startswith("9 entries, 8 files in release/; nothing was changed since")

    def test_json(self, run):
        with changed(run / LOG, b"".join(lines_of(run)[:-1])):
            result = runner.invoke(app, ["verify", str(run), "--json"])
        assert result.exit_code == 1
        record = json.loads(result.stdout)
        assert record["passed"] is False
        assert record["findings"][0]["kind"] == "incomplete"
        assert record["findings"][0]["subject"] == "entry 8"

    def test_without_a_key_it_fails_and_makes_none(self, run, tmp_path, monkeypatch):
        monkeypatch.delenv("PRIVDIFF_AUDIT_KEY_FILE")
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        result = runner.invoke(app, ["verify", str(run)])
        assert result.exit_code == 1
        assert result.stdout.startswith("unchecked: private/audit.jsonl was not checked")
        assert not list(tmp_path.rglob("audit-key"))
