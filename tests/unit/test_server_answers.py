"""What clients send that Python reads as JSON and nobody can write, and disks that are full."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict

from monailabel_app.lib import answers, tasks
from monailabel_app.lib.datastores import routes
from monailabel_app.lib.datastores.datastore import PrivDiffDatastore
from monailabel_app.lib.errors import BadRequest, NotFound
from monailabel_app.lib.security.roles import Principal, Role
from monailabel_app.lib.strategies import strategies
from monailabel_app.main import PrivDiffApp
from privdiff_infer.errors import OutputError, StoreError
from tests.unit.job_house import House

ADA = Principal("ada", Role.ADMIN)

IMPOSSIBLE = ['{"x": "\\ud800"}', '{"\\ud800": 1}', '{"x": NaN}', '{"x": 1e999}']


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


@pytest.fixture
def house(tmp_path: Path, tiny_bundle: Path, audit_key: None) -> House:
    studies = tmp_path / "studies"
    studies.mkdir()
    (studies / "a.png").write_bytes(b"content")
    return House(tmp_path / "state", studies, tiny_bundle)


@pytest.fixture
def image(house: House) -> str:
    return next(iter(house.server.studies.entries()))


@pytest.fixture
def client(house: House) -> TestClient:
    app = FastAPI()
    app.include_router(routes.router)
    app.include_router(tasks.router)
    answers.install(app)
    app.state.server = house.server
    app.state.datastore = PrivDiffDatastore(house.server)

    @app.middleware("http")
    async def known(request: Request, call_next: Callable[..., Any]) -> Any:
        request.state.principal = ADA
        return await call_next(request)

    @app.post("/strict")
    def strict(body: Body) -> None: ...

    @app.get("/full")
    def full() -> None:
        raise OutputError("the disk at /secret is full", "free space")

    @app.get("/silent")
    def silent() -> None:
        raise StoreError("the store does not answer", "wait")

    return TestClient(app)


@pytest.mark.parametrize("text", IMPOSSIBLE)
def test_what_nobody_can_write_is_refused_and_not_kept(
    client: TestClient, image: str, text: str
) -> None:
    typed = {"content": text, "headers": {"Content-Type": "application/json"}}
    file = {"label": ("a.png", b"x")}

    refused = [
        client.put(f"/datastore/image/info?image={image}", data={"info": text}),
        client.put(f"/datastore/label?image={image}", data={"params": text}, files=file),
        client.post("/batch/infer/privdiff", **typed),  # type: ignore[arg-type]
        client.post("/train/privdiff", **typed),  # type: ignore[arg-type]
    ]

    assert [answer.status_code for answer in refused] == [400] * 4
    assert client.get(f"/datastore/image/info?image={image}").json() == {}
    assert client.get("/datastore/?output=all").status_code == 200


def test_a_field_with_half_a_character_can_be_named(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}

    assert client.post("/strict", content='{"\\ud800": 1}', headers=headers).status_code == 422


@pytest.mark.parametrize("key", ["strategy", "id", "name"])
def test_nobody_notes_what_active_learning_answers(
    client: TestClient, image: str, key: str
) -> None:
    info = json.dumps({key: 5})
    answer = client.put(f"/datastore/image/info?image={image}", data={"info": info})

    assert answer.status_code == 400
    assert client.get(f"/datastore/image/info?image={image}").json() == {}


@pytest.mark.parametrize(
    ("path", "status", "code"), [("/full", 507, "not_written"), ("/silent", 424, "store_failed")]
)
def test_trouble_of_the_server_is_told_without_places(
    client: TestClient, path: str, status: int, code: str
) -> None:
    answer = client.get(path)

    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"strategy": ["x"]}, NotFound),
        ({"strategy": "other"}, NotFound),
        ({"strategy": "first", "label_tag": 5}, BadRequest),
        ({"strategy": "first", "client_id": "\ud800"}, BadRequest),
    ],
)
def test_next_sample_refuses_what_is_impossible(
    house: House, request_: dict[str, Any], error: type[Exception]
) -> None:
    app: Any = SimpleNamespace(
        _strategies=strategies(house.server), _datastore=PrivDiffDatastore(house.server)
    )

    with pytest.raises(error):
        PrivDiffApp.next_sample(app, request_)
