"""The whole command on a machine that denies something: permission, space, time."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import write_picture
from tests.unit.outputs import read_crosswalk

pytestmark = pytest.mark.slow

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
COMMAND = [sys.executable, "-m", "privdiff_infer", "anonymize", "--device", "cpu"]


MANY = 400
"""Images that no machine has done before it is interrupted, however busy it is."""


def obey_permissions() -> None:
    """Take from root, for the command to be run, what lets it pass over permissions."""
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def limit_files(size: int) -> None:
    """Let no file of the command to be run grow beyond a size."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [*map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        **options,
    )
    assert "Traceback" not in result.stderr
    return result


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prctl of Linux")
def test_what_must_not_be_read_is_a_row(tiny_bundle, pictures, tmp_path):
    locked_folder = pictures / "locked"
    locked_folder.mkdir()
    write_picture(locked_folder / "inside.png", 5)
    locked_file = pictures / "Doe_Jane_1.png"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_picture(elsewhere / "named.png", 6)
    for path in (locked_folder, locked_file, elsewhere):
        path.chmod(0)
    sources = (pictures, elsewhere / "named.png")
    result = run(
        *COMMAND, *sources, "--model", tiny_bundle, "-o", tmp_path / "out",
        preexec_fn=obey_permissions,
    )  # fmt: skip
    for path in (locked_folder, elsewhere):
        path.chmod(0o700)

    assert result.returncode == 1
    rows = read_crosswalk(tmp_path / "out/private/crosswalk.csv")
    reasons = {Path(row["source"]).name: row["reason"] for row in rows}
    assert reasons.pop("Doe_Jane_0.png") == reasons.pop("Doe_Jane_2.png") == ""
    assert "the folder cannot be listed" in reasons.pop("locked")
    assert reasons.keys() == {"Doe_Jane_1.png", "named.png"}
    assert all("no permission to read the file" in reason for reason in reasons.values())


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_results_that_cannot_be_written_are_rows_and_leave_nothing(tiny_bundle, pictures, tmp_path):
    out = tmp_path / "out"
    result = run(
        *COMMAND, pictures, "--model", tiny_bundle, "-o", out,
        preexec_fn=lambda: limit_files(4000),
    )  # fmt: skip

    assert result.returncode == 1
    assert "0 released, 0 held, 3 failed" in result.stdout
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("privdiff: ")]
    assert "crosswalk or reports are not up to date: the output folder cannot be written" in line
    rows = read_crosswalk(out / "private/crosswalk.csv")
    assert ["cannot be written" in row["reason"] for row in rows] == [True] * 3
    assert files_below(out) == [
        "private/audit.jsonl",
        "private/audit.lock",
        "private/crosswalk.csv",
        "private/journal.jsonl",
        "private/run.json",
        "release/report.json",
    ]


def may_mount() -> bool:
    """Tell whether a small file system can be had."""
    if not shutil.which("unshare"):
        return False
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="no file system of a limited size can be mounted")
def test_full_disk_keeps_what_fits_and_accounts_for_the_rest(tiny_bundle, pictures, tmp_path):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    script = (
        'mount -t tmpfs -o size=400k tmpfs "$0" || exit 9; kept=$1; shift; '
        '"$@"; code=$?; cp -r "$0/out" "$kept"; exit $code'
    )
    result = run(
        *("unshare", "--map-root-user", "--mount", "sh", "-c", script, disk, kept),
        *(*COMMAND, pictures, "--model", tiny_bundle, "-o", disk / "out"),
    )

    assert result.returncode == 1, result.stderr
    rows = read_crosswalk(kept / "private/crosswalk.csv")
    released = [row["output"] for row in rows if row["status"] == "released"]
    failed = [row["reason"] for row in rows if row["status"] == "failed"]
    assert released
    assert failed
    assert len(rows) == 3
    assert set(failed) == {"disk full; free space and run again with --resume"}
    assert [f"release/images/{name}" for name in files_below(kept / "release/images")] == released
    assert len(files_below(kept / "private/review")) == 3 * len(released)
    assert not [name for name in files_below(kept) if ".partial" in name]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
def test_interrupted_processes_finish_their_images(tiny_bundle, tmp_path):
    sources = tmp_path / "sources"
    sources.mkdir()
    for number in range(MANY):
        write_picture(sources / f"{number}.png", number)
    out = tmp_path / "out"
    command = [*COMMAND, sources, "--model", tiny_bundle, "-o", out, "--workers", "2"]
    process = subprocess.Popen(
        [*map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background, SIGINT is ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    while not (out / "private/journal.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=120)

    assert process.returncode == 130
    assert "Traceback" not in errors
    rows = read_crosswalk(out / "private/crosswalk.csv")
    assert 0 < len(rows) < MANY
    assert f"stopped with {MANY - len(rows)} images left; continue with --resume" in errors
    images = {f"release/images/{name}" for name in files_below(out / "release/images")}
    assert images == {row["output"] for row in rows}
    assert len(files_below(out / "private/review")) == 3 * len(rows)
