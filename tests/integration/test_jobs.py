"""The queue with real processes: dispatcher, dask and workers, and what happens when they die."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.jobs.engine import Engine, Stop, StopSignal, WorkerDied
from monailabel_app.lib.jobs.job import Job, JobOptions, NewJob
from monailabel_app.lib.jobs.runner import JobRunner
from monailabel_app.lib.jobs.states import JobState, Priority
from monailabel_app.lib.jobs.supervisor import Supervisor
from monailabel_app.lib.server import Server
from monailabel_app.lib.settings import ServerSettings
from privdiff_infer.anonymizer import AnonymizerOptions
from privdiff_infer.audit import AuditLog
from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.radiograph import Radiograph, read_radiograph
from privdiff_infer.verification import verify
from privdiff_infer.vocabulary import Profile
from tests.conftest import tiny_metadata, write_picture
from tests.unit.outputs import AUDIT_KEY
from tests.unit.tiny import tiny_pipeline

SECONDS = 600
"""For everything that is waited for, on a busy machine."""


def wait_until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


@dataclass
class Hall:
    """A server without its web part."""

    server: Server
    picture: Path

    def add(self, count: int, priority: Priority = Priority.BATCH, **options: Any) -> list[str]:
        ids = []
        for _ in range(count):
            job_id = os.urandom(16).hex()
            path = self.server.folder.upload(job_id)
            path.write_bytes(self.picture.read_bytes())
            new = NewJob(path, "ann", JobOptions(**options), priority, id=job_id)
            ids.append(self.server.jobs.add(new)[0].id)
        return ids

    def get(self, job_id: str) -> Job:
        return self.server.jobs.get(job_id)

    def count(self, *states: JobState) -> int:
        counts = self.server.jobs.counts()
        return sum(counts[state] for state in states)

    def wait_for_all(self) -> None:
        wait_until(lambda: not self.count(JobState.QUEUED, JobState.RUNNING))

    def events(self) -> Counter[tuple[str, str]]:
        with AuditLog(self.server.folder.audit, AUDIT_KEY) as log:
            return Counter((entry.event.value, entry.facts.get("job", "")) for entry in log.entries)


@pytest.fixture
def hall(tmp_path: Path, tiny_bundle: Path) -> Hall:
    write_picture(tmp_path / "x.png", 0)
    settings = ServerSettings(
        state=tmp_path / "state", studies=str(tmp_path), bundle=str(tiny_bundle)
    )
    return Hall(Server.open(settings), tmp_path / "x.png")


@contextlib.contextmanager
def dispatching(hall: Hall) -> Iterator[Supervisor]:
    with Supervisor(hall.server.settings) as supervisor:
        yield supervisor


def children(pid: int | None) -> list[psutil.Process]:
    if pid is None:
        return []
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def workers(pid: int | None) -> list[psutil.Process]:
    found = []
    for child in children(pid):
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def test_nothing_is_lost_or_doubled_when_worker_and_dispatcher_are_killed(hall):
    added = hall.add(30)
    with dispatching(hall) as supervisor:
        wait_until(lambda: hall.count(JobState.AWAITING_REVIEW) >= 4)
        for worker in workers(supervisor.pid):
            kill(worker)
        wait_until(lambda: hall.count(JobState.AWAITING_REVIEW) >= 10)
        first, pid = workers(supervisor.pid), supervisor.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(worker.is_running() for worker in first), 20)
        wait_until(lambda: supervisor.pid not in (None, pid))
        (urgent,) = hall.add(1, Priority.INTERACTIVE)
        hall.wait_for_all()

    jobs = [hall.get(job_id) for job_id in (*added, urgent)]
    assert {job.state for job in jobs} == {JobState.AWAITING_REVIEW}
    for job in jobs:
        folders = hall.server.folder.job(job.id)
        assert [path.name for path in folders.images.iterdir()] == [Path(job.output).name]
        assert verify(folders.root, AUDIT_KEY).findings == []
    assert all(hall.events()["image_released", job.id] >= 1 for job in jobs)
    assert not list(hall.server.folder.uploads.iterdir())
    behind = [hall.get(job_id) for job_id in added if hall.get(job_id).started]
    overtaken = [job for job in behind if job.finished > hall.get(urgent).finished]
    assert len(overtaken) >= 10


def test_cancelling_frees_the_worker_and_a_closed_pipe_ends_everything(hall):
    slow = {"profile": Profile.PAPER, "strength": 1.0}
    with dispatching(hall) as supervisor:
        running, *queued = hall.add(8, Priority.INTERACTIVE, **slow)
        job = wait_until(lambda: (j := hall.get(running)).step > 0 and j)
        assert 0 < job.step <= job.steps
        asked = time.monotonic()
        assert hall.server.jobs.cancel(running).state is JobState.CANCELLED
        wait_until(lambda: not hall.server.folder.job(running).root.exists(), 20)
        assert time.monotonic() - asked < 10
        wait_until(lambda: hall.get(queued[0]).step > 0)
        family = [psutil.Process(supervisor.pid), *children(supervisor.pid)]

    wait_until(lambda: not any(one.is_running() for one in family), 10)
    # The first ones may have been done before the pipe was closed; the last ones cannot.
    left = [job for job in map(hall.get, queued) if job.state is not JobState.AWAITING_REVIEW]
    assert left
    assert {(job.state, job.attempts) for job in left} == {(JobState.QUEUED, 0)}
    assert hall.get(running).state is JobState.CANCELLED


def test_processes_end_when_the_server_is_killed(hall, tmp_path):
    """The server is a process that starts a supervisor and then is killed."""
    import subprocess
    import sys

    from monailabel_app.lib.settings import apply

    code = (
        "import time\n"
        "from monailabel_app.lib.jobs.supervisor import Supervisor\n"
        "from monailabel_app.lib.settings import load_settings\n"
        "Supervisor(load_settings()).start()\n"
        "time.sleep(600)\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code], env=apply(hall.server.settings))
    family: list[psutil.Process] = []
    try:
        (job_id,) = hall.add(1)
        wait_until(lambda: hall.get(job_id).state is JobState.AWAITING_REVIEW)
        family = children(server.pid)
        assert len(family) >= 2
    finally:
        server.kill()
        server.wait()
    try:
        wait_until(lambda: not any(one.is_running() for one in family), 40)
    finally:
        for one in family:
            kill(one)


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    state = tmp_path_factory.mktemp("engine")
    settings = ServerSettings(state=state, studies=str(state), bundle=str(tiny_bundle))
    with Engine(settings) as running:
        yield running


@pytest.fixture(scope="module")
def radiograph(tmp_path_factory: pytest.TempPathFactory) -> Radiograph:
    write_picture(tmp_path_factory.mktemp("source") / "x.png", 0)
    return read_radiograph(next(tmp_path_factory.getbasetemp().glob("source*/x.png")))


def redraw(engine: Engine, bundle: Path, radiograph: Radiograph, **facts: Any) -> Any:
    options = AnonymizerOptions(**facts.pop("options", {}))
    arguments: dict[str, Any] = {
        "priority": 0,
        "stop": StopSignal(),
        "progress": lambda *_: None,
        **facts,
    }
    return engine.redraw(read_bundle(bundle), options, radiograph, 7, **arguments)


def kept(dask_worker: Any) -> tuple[str, int] | None:
    """Return name and identity of the pipeline that a worker keeps."""
    redrawer = dask_worker.plugins["privdiff-redrawer"]
    if redrawer._kept is None:
        return None
    anonymizer = redrawer._kept[1]
    return anonymizer.bundle.name, id(anonymizer.pipeline)


def run_out_of_memory_once() -> None:
    """Let the next denoising of this process fail as a full device does."""
    from privdiff_infer.pipeline import PrivDiffPipeline

    works = PrivDiffPipeline.__call__

    def fails(*_: Any, **__: Any) -> Any:
        PrivDiffPipeline.__call__ = works
        raise torch.OutOfMemoryError("CUDA out of memory")

    PrivDiffPipeline.__call__ = fails


def in_worker(engine: Engine, function: Callable[..., Any]) -> Any:
    (answer,) = engine.client.run(function).values()
    return answer


def test_strength_and_profile_load_nothing_and_another_bundle_is_swapped_in(
    engine, tiny_bundle, radiograph, tmp_path
):
    from privdiff_training.assemble import write_metadata

    other = tmp_path / "other"
    tiny_pipeline(seed=1).save_pretrained(other)
    (other / "README.md").write_text("Another bundle.\n")
    write_metadata(other, tiny_metadata(name="other"))

    redraw(engine, tiny_bundle, radiograph)
    first = in_worker(engine, kept)
    options = {"profile": Profile.FAST, "strength": 0.5}
    redraw(engine, tiny_bundle, radiograph, options=options)
    second = in_worker(engine, kept)
    redraw(engine, other, radiograph)
    third = in_worker(engine, kept)

    assert first == second and first[0] == "tiny"
    assert third[0] == "other"


def test_a_worker_without_memory_lets_its_model_go_and_does_the_next_job(engine, tiny_bundle, hall):
    settings, server = hall.server.settings, hall.server
    runner = JobRunner(settings, server.jobs, ServerAudit.open(server.folder), engine, print)
    failing, working = hall.add(2)

    in_worker(engine, run_out_of_memory_once)
    runner.run(server.jobs.take(), StopSignal())
    emptied = in_worker(engine, kept)
    runner.run(server.jobs.take(), StopSignal())

    assert hall.get(failing).state is JobState.FAILED
    assert hall.get(failing).reason.startswith("not enough memory on the device")
    assert emptied is None
    assert hall.get(working).state is JobState.AWAITING_REVIEW


def test_steps_arrive_and_stopping_ends_the_task_in_the_worker(engine, tiny_bundle, radiograph):
    steps: list[tuple[int, int]] = []
    stop = StopSignal()

    def progress(step: int, in_all: int) -> None:
        steps.append((step, in_all))
        stop.set(Stop())

    options = {"profile": Profile.PAPER, "strength": 1.0}
    with pytest.raises(Stop):
        redraw(engine, tiny_bundle, radiograph, options=options, stop=stop, progress=progress)
    stopped = time.monotonic()
    redraw(engine, tiny_bundle, radiograph)

    assert steps and steps[0][0] < steps[0][1]
    assert time.monotonic() - stopped < 120


def test_a_worker_that_is_killed_is_told_of_and_replaced(engine, tiny_bundle, radiograph):
    import threading

    killed = threading.Event()

    def progress(*_: int) -> None:
        if not killed.is_set():
            killed.set()
            for worker in workers(os.getpid()):
                kill(worker)

    options = {"profile": Profile.PAPER, "strength": 1.0}
    with pytest.raises(WorkerDied):
        redraw(engine, tiny_bundle, radiograph, options=options, progress=progress)

    assert redraw(engine, tiny_bundle, radiograph).held_reason is None


def test_an_engine_whose_worker_was_given_up_is_lost(engine):
    """The last test of this module that uses the engine."""
    assert engine.is_alive
    cluster = engine.client.cluster
    (minder,) = cluster.workers.values()
    cluster.sync(minder.close)
    assert not engine.is_alive
