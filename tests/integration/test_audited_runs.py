"""The audit log of real runs: finished, killed outright and continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from privdiff_infer.audit import Event
from privdiff_infer.release import Review
from privdiff_infer.review import decisions, record
from privdiff_infer.verification import Kind, verify
from tests.conftest import write_picture
from tests.unit.audited_run import open_log
from tests.unit.outputs import AUDIT_KEY


def anonymize(bundle: Path, sources: Path, out: Path, *options: str) -> list[str]:
    command = [sys.executable, "-m", "privdiff_infer", "anonymize", str(sources), "-o", str(out)]
    return [*command, "--model", str(bundle), "--device", "cpu", "--format", "png", *options]


@pytest.mark.slow
def test_killed_run_is_incomplete_and_continues_to_a_sealed_one(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    sources, out = tmp_path / "sources", tmp_path / "out"
    sources.mkdir()
    for number in range(40):
        write_picture(sources / f"DOE {number}.png", number)
    process = subprocess.Popen(
        anonymize(tiny_bundle, sources, out), start_new_session=True, stderr=subprocess.DEVNULL
    )
    log = out / "private/audit.jsonl"
    deadline = time.monotonic() + 100
    while not (log.exists() and log.read_bytes().count(b"\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    assert {finding.kind for finding in verify(out, AUDIT_KEY).findings} == {Kind.INCOMPLETE}
    done = subprocess.run(
        anonymize(tiny_bundle, sources, out, "--resume"), check=False, capture_output=True
    )
    assert done.returncode == 0
    assert verify(out, AUDIT_KEY).findings == []
    with open_log(out) as log_of_run:
        events = [entry.event for entry in log_of_run.entries]
    assert events.count(Event.RUN_STARTED) == 2
    assert events[-1] is Event.SEALED
    assert b"DOE" not in log.read_bytes()


@pytest.mark.slow
def test_decision_outlives_a_resumed_run(tiny_bundle: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    subprocess.run(anonymize(tiny_bundle, pictures, out), check=True, capture_output=True)
    first, second, _ = sorted(decisions(out))
    record(out, [first, second], Review.APPROVED, "ada")
    (out / second).unlink()
    resumed = anonymize(tiny_bundle, pictures, out, "--resume")
    subprocess.run(resumed, check=True, capture_output=True)

    states = {output: decision.state for output, decision in decisions(out).items()}
    assert states[first] is Review.APPROVED
    assert states[second] is Review.APPROVED  # redrawn with the same seed: the same bytes
    assert verify(out, AUDIT_KEY).findings == []
