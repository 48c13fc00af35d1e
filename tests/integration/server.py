"""A real `privdiff serve` for tests: a process of its own, with its own STATE, on a free port."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.integration.orthanc import free_port

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (ROOT, ROOT / "training", ROOT / "slicer_extension" / "PrivDiff" / "PrivDiffLib")

START_SECONDS = 180
STOP_SECONDS = 60
ANSWER_SECONDS = 300
"""On a busy machine, where a worker has still to load the model."""

FINAL = frozenset({"awaiting_review", "held", "failed", "cancelled"})
"""States in which the machine leaves a job."""


@dataclass
class RunningServer:
    """A server that runs.

    Attributes
    ----------
    port
        On the loopback interface.
    state
        Its STATE.
    log
        What its processes wrote, in one file.
    process
        The server itself; its children are below it.
    token
        Sent with every request, or empty.
    certificate
        Of a server with TLS.
    """

    port: int
    state: Path
    log: Path
    process: subprocess.Popen[bytes]
    token: str = ""
    certificate: Path | None = None
    _children: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Of the server."""
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        """Of our own routes."""
        return f"{self.url}/privdiff/v1"

    def request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """Send a request; `path` begins with a slash."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= arguments.pop("headers", {})
        chosen = {
            "timeout": ANSWER_SECONDS,
            "verify": str(self.certificate or "") or True,
            **arguments,
        }
        return requests.request(method, f"{self.url}{path}", headers=headers, **chosen)

    def get(self, path: str, **arguments: Any) -> requests.Response:
        """Send a GET request."""
        return self.request("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> requests.Response:
        """Send a POST request."""
        return self.request("POST", path, **arguments)

    def wait_for_job(self, job_id: str, seconds: float = 120) -> dict[str, Any]:
        """Return a job once the machine is done with it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.get(f"/privdiff/v1/jobs/{job_id}").json()
            if job.get("state") in FINAL:
                return job
            time.sleep(0.2)
        raise AssertionError(f"job {job_id} is not done; {self.logs()[-4000:]}")

    def logs(self) -> str:
        """Return what its processes wrote, also in STATE/logs."""
        files = [self.log, *sorted((self.state / "logs").glob("*"))]
        return "\n".join(file.read_text(errors="replace") for file in files if file.is_file())

    def processes(self) -> list[psutil.Process]:
        """Return the server and all its children that live."""
        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.process.pid)
            for one in (server, *server.children(recursive=True)):
                self._children.setdefault(one.pid, one)
        return [one for one in self._children.values() if _lives(one)]

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """End the server as Ctrl-C does; return its exit code."""
        self.processes()
        self.process.send_signal(how)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End the server and all its children, at once."""
        for one in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait(STOP_SECONDS)


@contextmanager
def running_server(
    folder: Path,
    studies: Path | str,
    *options: str,
    bundle: Path | None = None,
    store: str = "",
    token_file: Path | None = None,
    token: str = "",
    certificate: Path | None = None,
    state: Path | None = None,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    health: str = "/privdiff/v1/health",
) -> Iterator[RunningServer]:
    """Start a server and wait until it answers; everything of it ends with the context.

    Parameters
    ----------
    folder
        For its log, and STATE unless `state` is given.
    studies
        Folder or URL of the originals.
    *options
        More options of `privdiff serve`.
    bundle
        Of the model; a tiny one where the picture does not matter.
    store
        DICOMweb URL that is published to.
    token_file, token
        File of hashed tokens, and the token that requests carry.
    certificate
        What requests trust, where `options` name one.
    state
        STATE, where one is to be kept over a restart.
    environment
        Variables besides those of this process.
    command
        What starts it instead of `privdiff serve`; ``{port}`` is replaced.
    health
        Route that tells that it is ready.
    """
    state = state or folder / "state"
    port = free_port()
    log = folder / f"server-{port}.log"
    chosen = ["--studies", str(studies), "--state", str(state), "--port", str(port), *options]
    chosen += ["--bundle", str(bundle)] if bundle else []
    chosen += ["--store", store] if store else []
    chosen += ["--auth", "tokens", "--token-file", str(token_file)] if token_file else []
    started = [part.format(port=port) for part in command or ()] or [
        *(sys.executable, "-m", "privdiff_infer", "serve"),
        *chosen,
    ]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, SOURCES)),
        "OMP_NUM_THREADS": "1",
        **(environment or {}),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            started, stdout=output, stderr=subprocess.STDOUT, env=variables, cwd=folder
        )
    server = RunningServer(port, state, log, process, token, certificate)
    try:
        _wait_until_ready(server, health)
        yield server
    finally:
        server.kill()


def _wait_until_ready(server: RunningServer, health: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        with contextlib.suppress(requests.ConnectionError):
            if server.get(health).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"the server did not start: {server.logs()[-4000:]}")


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
