"""Whole runs by several processes: whatever is killed on the way, the result is that of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from privdiff_infer.anonymizer import AnonymizerOptions
from privdiff_infer.audit import Event
from privdiff_infer.errors import ClusterError, WorkersLost
from privdiff_infer.run import Run, RunOptions
from privdiff_infer.sources import find_sources
from privdiff_infer.verification import verify
from tests.conftest import write_picture
from tests.unit.audited_run import open_log
from tests.unit.outputs import AUDIT_KEY, read_crosswalk

pytestmark = pytest.mark.slow

NUMBER = 24
MANY = 400
"""Images that no machine has done before it is interrupted, however busy it is."""

SECONDS = 300
"""Far more than anything here takes: a test that waits longer hangs."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small pictures with telling names, one of which is none."""
    folder = tmp_path_factory.mktemp("archive") / "sources"
    folder.mkdir()
    for number in range(NUMBER):
        write_picture(folder / f"Doe_Jane_{number}.png", number)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory, tiny_bundle: Path, sources: Path) -> dict[str, bytes]:
    """What one process writes."""
    out = tmp_path_factory.mktemp("archive") / "one"
    finish(options(out, tiny_bundle), sources)
    return written(out)


def options(out: Path, bundle: Path) -> RunOptions:
    return RunOptions(out, bundle, AnonymizerOptions(device="cpu"), seed=1)


def finish(chosen: RunOptions, sources: Path) -> None:
    """Do a run in this process."""
    with Run(chosen) as run:
        list(run.outcomes(find_sources([str(sources)])))
        run.finish()


def written(out: Path) -> dict[str, bytes]:
    """Return what a run wrote for others and its crosswalk; the anchor of its log is its own."""
    files = {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in (out / "release").rglob("*")
        if path.is_file()
    }
    report = json.loads(files["release/report.json"])
    del report["audit"]
    files["release/report.json"] = json.dumps(report).encode()
    return files | {"crosswalk": (out / "private/crosswalk.csv").read_bytes()}


def assert_whole(out: Path, expected: dict[str, bytes]) -> None:
    """Check that a run has what it should have, once, and that its chain is whole."""
    assert written(out) == expected
    assert verify(out, AUDIT_KEY).findings == []
    with open_log(out) as log:
        told = [
            (e.facts["output"], e.facts["sha256"]) for e in log if e.event is Event.IMAGE_RELEASED
        ]
    assert len(set(told)) == len({output for output, _ in told}) == NUMBER
    assert len(told) <= NUMBER + 1  # once more if the driver was killed between log and journal


def command(sources: Path, bundle: Path, out: Path, *more: str) -> list[str]:
    chosen = ["--model", str(bundle), "--device", "cpu", "--seed", "1", "--workers", "2", *more]
    return [
        sys.executable,
        "-m",
        "privdiff_infer",
        "anonymize",
        str(sources),
        "-o",
        str(out),
        *chosen,
    ]


@contextmanager
def started(*arguments: str, **how: object) -> Iterator[subprocess.Popen[str]]:
    """Run a command, and end it with the test."""
    process = subprocess.Popen([*arguments], stderr=subprocess.PIPE, text=True, **how)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def wait_for_rows(out: Path, number: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many images are in the journal, or the run is over."""
    journal = out / "private/journal.jsonl"
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= number:
            return
        time.sleep(0.02)


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes that were started for the work."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_two_workers_of_which_one_is_killed_write_what_one_process_writes(
    tmp_path, tiny_bundle, sources, expected
):
    out = tmp_path / "out"
    with started(*command(sources, tiny_bundle, out)) as process:
        wait_for_rows(out, 3, process)
        workers_of(process)[0].kill()
        process.communicate(timeout=SECONDS)

        assert process.returncode == 1  # for the file that is none
    assert_whole(out, expected)


def test_killed_driver_leaves_no_worker_and_its_run_continues(
    tmp_path, tiny_bundle, sources, expected
):
    out = tmp_path / "out"
    with started(*command(sources, tiny_bundle, out)) as process:
        wait_for_rows(out, 3, process)
        workers = workers_of(process)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=SECONDS)
    finish(replace(options(out, tiny_bundle), workers=2, resume=True), sources)

    assert not alive
    assert_whole(out, expected)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_run_in_order_even_if_it_was_started_deaf_to_it(
    tmp_path, tiny_bundle, number
):
    many, out = tmp_path / "sources", tmp_path / "out"
    many.mkdir()
    for seed in range(MANY):
        write_picture(many / f"{seed}.png", seed)

    def be_deaf() -> None:
        signal.signal(number, signal.SIG_IGN)

    with started(*command(many, tiny_bundle, out), preexec_fn=be_deaf) as process:
        wait_for_rows(out, 1, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=SECONDS)

    assert process.returncode == 130
    assert "Traceback" not in errors
    rows = read_crosswalk(out / "private/crosswalk.csv")
    assert f"stopped with {MANY - len(rows)} images left; continue with --resume" in errors
    images = {f"release/images/{path.name}" for path in (out / "release/images").iterdir()}
    assert images == {row["output"] for row in rows}
    assert verify(out, AUDIT_KEY).findings == []


@contextmanager
def running_scheduler(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a scheduler with one worker; give its address and its process."""
    file = folder / "scheduler.json"
    module = [sys.executable, "-m"]
    there = {"cwd": folder, "env": os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}}
    begin = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    work = ["distributed.cli.dask_worker", "--host", "127.0.0.1", "--nthreads", "2"]
    common = ["--no-dashboard", "--scheduler-file", str(file)]
    with started(*module, *begin, *common, **there) as process:
        while not file.exists() or not file.read_text().rstrip().endswith("}"):
            assert process.poll() is None
            time.sleep(0.05)
        with started(*module, *work, *common, **there):
            yield json.loads(file.read_text())["address"], process


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with one worker, which nobody of ours started."""
    with running_scheduler(tmp_path_factory.mktemp("scheduler")) as (address, _):
        yield address


def test_workers_of_a_scheduler_elsewhere_write_what_one_process_writes(
    tmp_path, tiny_bundle, sources, expected, scheduler
):
    out = tmp_path / "out"
    finish(replace(options(out, tiny_bundle), scheduler=scheduler), sources)

    assert_whole(out, expected)


def test_worker_with_another_key_is_refused_before_it_does_anything(
    tmp_path, tiny_bundle, sources, scheduler, monkeypatch
):
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("another key of tests, which is no secret")
    monkeypatch.setenv("PRIVDIFF_KEY_FILE", str(key))
    out = tmp_path / "out"
    with pytest.raises(ClusterError, match="a worker has another pseudonym key"):
        finish(replace(options(out, tiny_bundle), scheduler=scheduler), sources)

    assert not list((out / "release/images").iterdir())


def test_run_whose_scheduler_ends_says_so_and_continues(tmp_path, tiny_bundle, sources, expected):
    chosen = options(tmp_path / "out", tiny_bundle)
    with running_scheduler(tmp_path) as (address, process):
        with (
            Run(replace(chosen, scheduler=address)) as run,
            pytest.raises(WorkersLost, match="continue with --resume"),
        ):
            for _ in run.outcomes(find_sources([str(sources)])):
                process.kill()
    finish(replace(chosen, resume=True), sources)

    assert_whole(chosen.out, expected)
