"""The routes of the server as a whole, from its own description; nothing is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from monailabel_app.lib.errors import ApiError
from monailabel_app.lib.security.policy import is_public, needed_role

SCRIPT = """
import asyncio, json, os, pathlib, subprocess, sys, tempfile, types
from monailabel_app.lib import asgi
from monailabel_app.lib.asgi import app
from starlette.middleware.cors import CORSMiddleware
cors = any(one.cls is CORSMiddleware for one in app.user_middleware)
async def is_tidying_still():
    asgi.TIDY_SECONDS = 0
    missing = pathlib.Path("missing")
    tidying = asyncio.create_task(
        asgi._tidy(types.SimpleNamespace(sessions=missing, cache=missing))
    )
    await asyncio.sleep(0.2)
    is_running = not tidying.done()
    tidying.cancel()
    return is_running
tidying = asyncio.run(is_tidying_still())
print(json.dumps({"openapi": app.openapi(), "cors": cors, "tidying": tidying,
    "state": os.environ["PRIVDIFF_SERVER_STATE"], "temporary": tempfile.gettempdir(),
    "child": subprocess.check_output(
        [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"], text=True
    ).strip(),
    "left": os.listdir(tempfile.gettempdir()), "mode": os.stat(tempfile.gettempdir()).st_mode,
}))
"""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> dict[str, Any]:
    """What the application says of itself, in a process that is started as the server's is."""
    state = tmp_path_factory.mktemp("state")
    (state / "tmp" / "folder").mkdir(parents=True)
    (state / "tmp" / "folder" / "file").touch()
    (state / "tmp" / "left by a server before").touch()
    environment = {
        **os.environ,
        "PRIVDIFF_SERVER_STATE": str(state),
        "PRIVDIFF_SERVER_STUDIES": str(tiny_bundle),
        "PRIVDIFF_SERVER_BUNDLE": str(tiny_bundle),
        "MONAI_LABEL_APP_DIR": str(state / "app"),
        "MONAI_LABEL_STUDIES": str(tiny_bundle),
    }
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    content: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return content


def operations(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, methods in described["openapi"]["paths"].items()
        for method, operation in methods.items()
    ]


def filled(path: str) -> str:
    """Return the path with something in the place of its parameters."""
    path = path.replace("{model}", "privdiff")
    return "/".join("x" if part.startswith("{") else part for part in path.split("/"))


def test_every_route_has_a_role_or_is_public(described: dict[str, Any]) -> None:
    for method, path, _ in operations(described):
        assert is_public(method, filled(path)) or needed_role(method, filled(path))


def test_every_route_says_what_it_does(described: dict[str, Any]) -> None:
    for method, path, operation in operations(described):
        assert operation.get("summary"), (method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/infer/{model}"),
        ("POST", "/batch/infer/{model}"),
        ("GET", "/batch/infer"),
        ("POST", "/train/{model}"),
        ("GET", "/train/"),
        ("DELETE", "/train/"),
        ("GET", "/info/"),
        ("POST", "/activelearning/{strategy}"),
        ("PUT", "/datastore/label"),
        ("PUT", "/session/"),
        ("GET", "/privdiff/v1/jobs"),
        ("POST", "/privdiff/v1/review/next"),
        ("GET", "/privdiff/review"),
    ],
)
def test_each_route_is_there_once(described: dict[str, Any], method: str, path: str) -> None:
    assert method.lower() in described["openapi"]["paths"][path]


@pytest.mark.parametrize(
    "path", ["/model/x", "/proxy/dicom/x", "/reload", "/ohif/x", "/logs", "/infer/wsi/x"]
)
def test_what_is_dangerous_is_not_there(described: dict[str, Any], path: str) -> None:
    assert not any(filled(known) == path for _, known, _ in operations(described))
    with pytest.raises(ApiError):
        needed_role("POST", path)


def test_what_is_spooled_stays_in_state(described: dict[str, Any]) -> None:
    assert described["temporary"] == described["child"] == f"{described['state']}/tmp"
    assert described["mode"] & 0o077 == 0


def test_what_a_server_before_left_there_is_deleted(described: dict[str, Any]) -> None:
    assert described["left"] == []


def test_tidying_goes_on_after_an_error(described: dict[str, Any]) -> None:
    assert described["tidying"] is True


def test_no_origin_is_let_in(described: dict[str, Any]) -> None:
    assert described["cors"] is False
