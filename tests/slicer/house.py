"""A server and a store of their own, which are made beside the tests that do not need them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from PrivDiffLib.privdiff_client import Job, Options, PrivDiffClient

from tests.integration.orthanc import Orthanc, needs_orthanc, running_orthanc
from tests.integration.server import RunningServer, running_server
from tests.slicer.drawn import drawn
from tests.slicer.fixtures import ROOT
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset

PYTHON = Path(os.environ.get("PRIVDIFF_SERVER_PYTHON", ROOT / ".venv" / "bin" / "python"))
"""Of the environment that has the server."""

COMMAND = [str(PYTHON), "-m", "privdiff_infer"]
EMBEDDED = ROOT / "privdiff_infer" / "bundles" / "privdiff-cxr-256"


@dataclass(frozen=True)
class House:
    """Server and store, and what a batch left on the server to be reviewed."""

    server: RunningServer
    store: Orthanc
    ofBatch: Job


def needsHouse(test: object) -> object:
    """Skip a test where there is no server or no store."""
    hasServer = pytest.mark.skipif(
        not PYTHON.exists(), reason="the environment of the server is absent"
    )
    return hasServer(needs_orthanc(test))


@pytest.fixture(scope="session", autouse=True)
def building(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[House] | None]:
    """The house, as soon as it stands; its server starts, and works, while other tests run."""
    wanted = any("house" in getattr(item, "fixturenames", ()) for item in request.session.items)
    if not wanted or not PYTHON.exists() or needs_orthanc.args[0]:
        yield None
        return
    folder = tmp_path_factory.mktemp("house")
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        yield pool.submit(stack.enter_context, runningHouse(folder))


@pytest.fixture(scope="session")
def house(building: Future[House]) -> House:
    """A server that knows one reviewer, and a store."""
    return building.result()


@contextmanager
def runningHouse(folder: Path) -> Iterator[House]:
    """Run server and store until the context ends."""
    studies, tokens = folder / "studies", folder / "tokens"
    studies.mkdir()
    keys = {"PRIVDIFF_LEDGER_FILE": str(folder / "published")}
    for name in ("PRIVDIFF_KEY_FILE", "PRIVDIFF_AUDIT_KEY_FILE"):
        path = folder / name
        path.touch(mode=0o600)
        path.write_text("0123456789abcdef" * 4 + "\n")
        keys[name] = str(path)
    token = _tokenOf("ann", tokens)
    with running_orthanc(folder) as store:
        options = ["--studies", str(studies), "--state", str(folder / "state")]
        options += ["--bundle", str(_withOpenGates(folder / "bundle"))]
        options += ["--store", store.url, "--auth", "tokens", "--token-file", str(tokens)]
        serve = [*COMMAND, "serve", "--port", "{port}", "--threads", "1", *options]
        with running_server(
            folder, studies, command=serve, token=token, environment=keys
        ) as server:
            client = PrivDiffClient(server.url, token)
            content = dicom_bytes(radiograph_dataset(**drawn(5)))
            ofBatch = client.submit([content], options=Options(profile="fast", strength=0.8))[0]
            yield House(server, store, ofBatch)


def _withOpenGates(bundle: Path) -> Path:
    """Copy the embedded bundle without gates of results: noise would decide what they hold."""
    shutil.copytree(EMBEDDED, bundle)
    path = bundle / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    metadata["gates"] = {"frontal_logit": metadata["gates"]["frontal_logit"]}
    path.write_text(json.dumps(metadata), encoding="utf-8")
    return bundle


def _tokenOf(name: str, tokens: Path) -> str:
    paths = [ROOT, ROOT / "training", ROOT / "slicer_extension" / "PrivDiff" / "PrivDiffLib"]
    return subprocess.run(
        [*COMMAND, "token", "add", name, "--role", "reviewer", "--token-file", str(tokens)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
