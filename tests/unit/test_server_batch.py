"""Batch inference over a queue: whose work is known, what is refused, what a stop reaches."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from monailabel_app.lib import answers, tasks
from monailabel_app.lib.batch import BatchRequest, PrivDiffBatch
from monailabel_app.lib.datastores.datastore import PrivDiffDatastore
from monailabel_app.lib.jobs.job import JobOptions, NewJob
from monailabel_app.lib.jobs.states import JobState, Priority
from monailabel_app.lib.security.roles import Principal, Role
from tests.unit.job_house import House

ADA = Principal("ada", Role.ADMIN)


@pytest.fixture
def house(
    tmp_path: Path, tiny_bundle: Path, audit_key: None, monkeypatch: pytest.MonkeyPatch
) -> House:
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in ("a.png", "b.png"):
        (studies / name).write_bytes(b"content")
    # Nobody works here, so a batch would wait for ever.
    monkeypatch.setattr(PrivDiffBatch, "_follow", lambda *_: None)
    return House(tmp_path / "state", studies, tiny_bundle)


@pytest.fixture
def client(house: House) -> TestClient:
    app = FastAPI()
    app.include_router(tasks.router)
    answers.install(app)
    app.state.server = house.server

    @app.middleware("http")
    async def known(request: Request, call_next: Callable[..., Any]) -> Any:
        request.state.principal = ADA
        return await call_next(request)

    return TestClient(app)


def run(house: House, submitter: str = "ada") -> dict[str, Any]:
    """Queue everything; return the manifest."""
    batch = BatchRequest.of({}, "all", submitter).save(house.server.folder)
    datastore = PrivDiffDatastore(house.server)
    PrivDiffBatch(house.server)({"batch": batch}, datastore, print)
    content = json.loads((house.server.folder.batches / f"{batch}.json").read_text())
    assert content["batch"] == batch
    return dict(content)


def test_what_another_administrator_queued_is_not_queued_again(house: House) -> None:
    first, second = run(house, "ada"), run(house, "bea")

    assert [record["skipped"] for record in first["images"]] == [False, False]
    assert [record["skipped"] for record in second["images"]] == [True, True]
    assert house.jobs.counts()[JobState.QUEUED] == 2


def test_a_file_that_vanished_stops_no_batch(house: House, tmp_path: Path) -> None:
    house.server.studies.entries()
    (tmp_path / "studies" / "a.png").unlink()

    assert run(house)["counts"] == {"queued": 1, "refused": 1}


def test_an_error_of_the_file_system_stops_no_batch(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Path("missing.png")
    first = next(iter(house.server.studies.entries()))
    sources = house.server.studies.sources
    monkeypatch.setattr(
        house.server.studies, "sources", lambda i: [missing] if i == first else sources(i)
    )

    assert run(house)["counts"] == {"queued": 1, "refused": 1}


def test_there_is_a_manifest_even_of_a_batch_that_failed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrivDiffBatch, "_images", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(house)

    assert len(list(house.server.folder.batches.iterdir())) == 2


def test_a_batch_of_a_server_before_is_known_and_can_be_stopped(
    house: House, client: TestClient
) -> None:
    older = run(house)["batch"]
    os.utime(house.server.folder.batches / f"{older}.request.json", (0, 0))
    (Path(house.settings.studies) / "c.png").write_bytes(b"content")
    house.server.studies._listing._refresh(-1.0)  # type: ignore[attr-defined]
    newer = run(house)["batch"]
    named_by_client = house.jobs.add(
        NewJob(Path("x"), "ann", JobOptions(), Priority.BATCH, batch="mine", id="0" * 32)
    )[0]

    before = client.get("/batch/infer").json()
    stopped = client.delete("/batch/infer").json()

    assert (before["status"], before["request"]["batch"]) == ("RUNNING", newer)
    assert stopped["status"] == "DONE"
    assert house.jobs.counts()[JobState.QUEUED] == 1
    assert house.jobs.get(named_by_client.id).state is JobState.QUEUED
    assert client.get("/batch/infer?check_if_running=true").status_code == 404


def test_no_batch_is_not_found(client: TestClient) -> None:
    assert client.get("/batch/infer").status_code == 404
    assert client.delete("/batch/infer").json() is None
