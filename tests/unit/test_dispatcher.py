"""The process that minds jobs ends in time, whatever its jobs do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from monailabel_app.lib.jobs.job import NewJob
from monailabel_app.lib.jobs.states import JobState
from monailabel_app.lib.server import Server
from monailabel_app.lib.settings import ServerSettings, apply
from tests.conftest import write_picture

HANGS = """
import sys, time
from monailabel_app.lib.jobs import dispatcher

class Workers:
    workers, is_alive = 1, True
    def __init__(self, settings): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def redraw(self, *_, **__):
        {loses}
        time.sleep(600)

dispatcher.Engine, dispatcher.SECONDS_TO_END = Workers, 0.2
dispatcher._wait_for_server_to_end = lambda ended: None
sys.exit(dispatcher.main())
"""
"""A dispatcher one of whose jobs hangs for ten minutes, whatever it is told."""


@pytest.mark.parametrize(
    "loses",
    ["Workers.is_alive = False", "Workers.is_alive = property(lambda _: 1 / 0)"],
    ids=["the workers are lost", "it fails in another way"],
)
def test_it_ends_although_a_job_hangs(tmp_path: Path, tiny_bundle: Path, loses: str) -> None:
    write_picture(tmp_path / "x.png", 0)
    settings = ServerSettings(
        state=tmp_path / "state", studies=str(tmp_path), bundle=str(tiny_bundle)
    )
    jobs = Server.open(settings).jobs
    job, _ = jobs.add(NewJob(tmp_path / "x.png", "ann"))

    done = subprocess.run(
        [sys.executable, "-c", HANGS.format(loses=loses)],
        env=apply(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 1, done.stderr
    assert jobs.get(job.id).state is JobState.RUNNING  # for the next dispatcher to queue again
