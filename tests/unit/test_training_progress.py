"""What is kept of a fine-tuning, and what a client may say about one."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monailabel_app.lib.errors import BadRequest, Conflict, NotFound
from monailabel_app.lib.models.comparison import ModelReference
from monailabel_app.lib.security.roles import LOCAL
from monailabel_app.lib.server import Server
from monailabel_app.lib.settings import ServerSettings
from monailabel_app.lib.state_folder import StateFolder
from monailabel_app.lib.trainers.errors import TrainingFailed
from monailabel_app.lib.trainers.parameters import TrainingParameters
from monailabel_app.lib.trainers.privdiff import PrivDiffTrainTask
from monailabel_app.lib.trainers.progress import (
    POINTS,
    Process,
    Progress,
    RunFolder,
    TrainingState,
    latest,
    now,
    run_folder,
    run_folders,
)
from monailabel_app.lib.trainers.reporter import Reporter
from monailabel_app.lib.trainers.routes import stop_training
from monailabel_app.lib.trainers.told import (
    take_order,
    tell_of_killed,
    training_lock,
    write_order,
)


def begun(folder: RunFolder, steps: int = 40, **values: Any) -> Progress:
    progress = Progress(
        id=folder.id,
        parameters=TrainingParameters(steps=steps),
        base=ModelReference(id="tiny-1.0", sha256="0" * 64),
        started=now(),
        updated=now(),
        steps=steps,
        process=Process.this(),
    ).model_copy(update=values)
    folder.write(progress)
    return progress


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path)


def test_what_a_reporter_says_is_read_by_another_process(folder: RunFolder) -> None:
    reporter = Reporter(folder, begun(folder, steps=3))

    for step in (1, 2, 3):
        reporter.step(step, {"loss": 1 / step, "broken": float("nan")})
    read = RunFolder(folder.root).read()

    assert (read.state, read.step) == (TrainingState.RUNNING, 3)
    assert read.latest is not None
    assert read.latest.figures == {"loss": pytest.approx(1 / 3), "broken": None}
    assert read.eta_seconds == 0
    assert stat.S_IMODE((folder.root / "progress.json").stat().st_mode) == 0o600


def test_a_history_is_as_long_as_one_can_look_at_and_forgets_steps_that_are_done_again(
    folder: RunFolder,
) -> None:
    reporter = Reporter(folder, begun(folder, steps=5000))
    for step in range(1, 5001):
        reporter.progress = reporter.progress.after(step, {"loss": 1.0}, None)
    again = reporter.progress.after(2500, {"loss": 2.0}, None)

    assert len(reporter.progress.history) <= POINTS + 1
    assert max(point.step for point in again.history) <= 2500


@pytest.mark.parametrize(
    "process",
    [
        pytest.param(lambda: Process(pid=2**22 + 1, created=0.0), id="gone"),
        pytest.param(lambda: Process(pid=os.getpid(), created=1.0), id="another with its number"),
    ],
)
def test_a_run_whose_process_is_gone_was_interrupted(folder: RunFolder, process: Any) -> None:
    begun(folder, process=process())

    assert folder.read().state is TrainingState.INTERRUPTED


def test_a_run_that_has_ended_stays_as_it_was(folder: RunFolder) -> None:
    begun(folder, state=TrainingState.DONE, process=Process(pid=2**22 + 1, created=0.0))

    assert folder.read().state is TrainingState.DONE


def test_a_killed_process_is_told_from_a_living_one(folder: RunFolder) -> None:
    code = (
        "import sys, time; from monailabel_app.lib.trainers.progress import Process\n"
        "print(Process.this().model_dump_json(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        process = Process.model_validate_json(child.stdout.readline())
        assert process.is_alive
        child.kill()
    assert not process.is_alive


def test_the_newest_run_that_can_be_read_counts(tmp_path: Path) -> None:
    for name in ("20260101-000000-aaaaaa", "20260102-000000-aaaaaa", "20260103-000000-aaaaaa"):
        (tmp_path / name).mkdir()
    (tmp_path / "lock").touch()
    begun(RunFolder(tmp_path / "20260101-000000-aaaaaa"))
    begun(RunFolder(tmp_path / "20260102-000000-aaaaaa"))
    (tmp_path / "20260103-000000-aaaaaa" / "progress.json").write_text("{")

    newest = latest(tmp_path)

    assert newest is not None
    assert newest.id == "20260102-000000-aaaaaa"
    assert len(run_folders(tmp_path)) == 3


@pytest.mark.parametrize("name", ["..", "lock", "20260101-000000-aaaaaa/..", "", "a" * 300])
def test_a_name_that_is_no_id_is_no_run(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        run_folder(tmp_path, name)


@pytest.mark.parametrize("name", ["progress.json", "../progress.json", "step-1.png", "stop"])
def test_only_samples_are_samples(folder: RunFolder, name: str) -> None:
    begun(folder)

    with pytest.raises(NotFound):
        folder.sample(name)


def test_the_first_reason_to_stop_counts(folder: RunFolder) -> None:
    assert folder.stop_reason() == ""

    folder.ask_to_stop("first")
    folder.ask_to_stop("second")

    assert folder.stop_reason() == "first"


@pytest.mark.parametrize(
    "request_of_a_client",
    [{"folder": "/etc"}, {"steps": 0}, {"steps": "x"}, {"profile": "fast"}, {"seed": -1}],
)
def test_parameters_that_are_impossible_are_refused_without_being_quoted(
    request_of_a_client: dict[str, Any],
) -> None:
    with pytest.raises(BadRequest) as caught:
        TrainingParameters.of(request_of_a_client)

    assert "/etc" not in str(caught.value)


def test_what_monai_label_adds_to_a_request_is_left_out() -> None:
    request = {"model": "privdiff", "gpus": "all", "local_rank": 0, "client_id": "x", "steps": "7"}

    assert TrainingParameters.of(request) == TrainingParameters(steps=7)


def test_every_parameter_that_is_offered_is_taken() -> None:
    offered = TrainingParameters.choices()
    chosen = {key: value[0] if isinstance(value, list) else value for key, value in offered.items()}

    assert TrainingParameters.of(chosen) == TrainingParameters()


def test_only_a_run_that_still_trains_can_end_early(tmp_path: Path, tiny_bundle: Path) -> None:
    settings = ServerSettings(state=tmp_path, studies="", bundle=str(tiny_bundle))
    server = Server.open(settings)
    run = RunFolder.create(server.folder.training)
    begun(run)
    stop_training(run.id, LOCAL, server)
    assert run.stop_reason()
    assert run.stopped_by() == LOCAL.name

    begun(run, state=TrainingState.FAILED)
    with pytest.raises(Conflict, match="this training is failed"):
        stop_training(run.id, LOCAL, server)


def test_a_server_without_a_cohort_says_so(tmp_path: Path, tiny_bundle: Path) -> None:
    settings = ServerSettings(state=tmp_path, studies="", bundle=str(tiny_bundle))
    StateFolder(tmp_path).create()
    task = PrivDiffTrainTask(settings)

    with pytest.raises(TrainingFailed, match="no cohort"):
        task({}, None)
    assert task.stats() == {}


def test_the_end_of_a_killed_run_is_told_once_with_who_killed_it(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    server = Server.open(ServerSettings(state=tmp_path, studies="", bundle=str(tiny_bundle)))
    training = server.folder.training
    gone = Process(pid=os.getpid(), created=0.0)
    alive, killed = RunFolder.create(training), RunFolder.create(training)
    begun(alive)
    begun(killed, process=gone)

    tell_of_killed(training, server.audit, "ann")
    tell_of_killed(training, server.audit)

    entries = [json.loads(line) for line in server.folder.audit.read_bytes().splitlines()]
    told = [
        (one["training"], one["state"], one["by"])
        for one in entries
        if one["event"] == "training_ended"
    ]
    assert told == [(killed.id, "interrupted", "ann")]
    assert killed.read().state is TrainingState.INTERRUPTED
    assert alive.read().state is TrainingState.RUNNING


def test_while_a_run_is_at_work_nobody_else_tells_of_killed_ones(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    server = Server.open(ServerSettings(state=tmp_path, studies="", bundle=str(tiny_bundle)))
    killed = RunFolder.create(server.folder.training)
    begun(killed, process=Process(pid=os.getpid(), created=0.0))

    with training_lock(server.folder.training):
        tell_of_killed(server.folder.training, server.audit)

    assert killed.read().ended is None


def test_who_asked_for_a_run_is_read_once(tmp_path: Path) -> None:
    order = write_order(tmp_path, "Änn")

    assert "nn" not in order
    assert [take_order(tmp_path, order), take_order(tmp_path, order)] == ["Änn", ""]
    assert list(tmp_path.iterdir()) == []
