"""Ways to start the server: MONAI Label's own launcher, a read-only install, TLS and tokens."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from tests.integration.orthanc import free_port, needs_orthanc
from tests.integration.server import ROOT, SOURCES, running_server
from tests.integration.test_monai_label import make_studies, originals, tree

PACKAGES = (
    ROOT / "monailabel_app",
    ROOT / "privdiff_infer",
    ROOT / "training" / "privdiff_training",
    ROOT / "slicer_extension" / "PrivDiff" / "PrivDiffLib" / "privdiff_client",
)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    return make_studies(tmp_path)


@pytest.fixture
def read_only_install(tmp_path: Path) -> Path:
    """A copy of the packages that nobody may write to."""
    folder = tmp_path / "install"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "bundles")
        shutil.copytree(package, folder / package.name, ignore=ignored)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


def privdiff(*arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCES))}
    return subprocess.run(
        [sys.executable, "-m", "privdiff_infer", *arguments],
        capture_output=True,
        text=True,
        env=variables,
        check=False,
    )


def test_monai_labels_launcher_starts_it_and_nothing_is_written_into_the_install(
    studies: Path, tiny_bundle: Path, read_only_install: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    prepared = privdiff("serve", "--prepare", "--studies", str(studies), "--state", str(state))
    before = tree(read_only_install)
    command = [
        *(sys.executable, "-B", "-m", "monailabel.main", "start_server"),
        *("--app", str(state / "app"), "--studies", str(studies), "--host", "127.0.0.1"),
        *("--port", "{port}", "--uvicorn_app", "monailabel_app.lib.asgi:app"),
        *("--conf", "models", "privdiff", "--conf", "bundle", str(tiny_bundle)),
    ]
    environment = {
        "PYTHONPATH": str(read_only_install),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(tmp_path / "home"),
    }

    with running_server(
        tmp_path, studies, state=state, command=command, environment=environment
    ) as server:
        answer = server.post(f"/infer/privdiff?image={originals(server)[0]}")
        models = server.get("/privdiff/v1/models").text

    assert "monailabel_app.lib.asgi:app" in prepared.stdout
    assert answer.status_code == 200
    assert '"tiny"' in models
    assert tree(read_only_install) == before
    assert not (tmp_path / "home" / ".cache" / "monailabel").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the images are not named"),
        (["--studies", "/nowhere"], "are no folder"),
        (["--studies", "https://user:secret@pacs.example"], "holds a user name"),
        (["--studies", ".", "--host", "0.0.0.0"], "nobody would have to say who they are"),
        (
            ["--studies", ".", "--host", "0.0.0.0", "--auth", "tokens", "--token-file", "tokens"],
            "without TLS",
        ),
        (["--studies", ".", "--ssl-certfile", "cert.pem"], "belong together"),
        (["--studies", ".", "--database", "postgresql://a:b@db/x"], "holds a password"),
        (["--studies", ".", "--bundle", "nothing"], "there is no model bundle"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(
    tmp_path: Path, options: list[str], message: str
) -> None:
    refused = privdiff("serve", "--state", str(tmp_path / "state"), *options)

    assert refused.returncode == 2
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "secret" not in refused.stderr


def test_with_tls_and_tokens_people_say_who_they_are(
    studies: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    tokens = tmp_path / "tokens.json"
    given = {
        role: privdiff(
            "token", "add", role, "--role", role, "--token-file", str(tokens)
        ).stdout.strip()
        for role in ("user", "reviewer")
    }

    with running_server(
        tmp_path,
        studies,
        *("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)),
        bundle=tiny_bundle,
        token_file=tokens,
        token=given["user"],
        certificate=certificate,
    ) as server:
        listed = originals(server)
        as_reviewer = {"Authorization": f"Bearer {given['reviewer']}"}
        path = f"/datastore/image?image={listed[0]}"
        answers = [
            server.get("/info/", headers={"Authorization": "Bearer x"}).status_code,
            server.get(path).status_code,
            server.get(path, headers=as_reviewer).status_code,
            server.post("/batch/infer/privdiff").status_code,
        ]

    assert answers == [401, 403, 200, 403]


def test_an_administrator_finds_what_an_id_stands_for(studies: Path) -> None:
    listed = privdiff("studies", "--studies", str(studies)).stdout.splitlines()
    image = next(line.split(",")[0] for line in listed if "Doe_Jane_1978-01" in line)

    found = privdiff("studies", "--studies", str(studies), "--find", image).stdout

    assert "Doe_Jane_1978-01.png" in found
    assert len(listed) == 5


@needs_orthanc
def test_the_demo_serves_its_sample_and_leaves_nothing(tmp_path: Path) -> None:
    port = free_port()
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SOURCES))}
    command = [sys.executable, str(ROOT / "scripts" / "serve_demo.py"), "--port", str(port)]
    log = tmp_path / "log"
    with log.open("wb") as output:
        demo = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env=variables | {"TMPDIR": str(tmp_path)},
            start_new_session=True,  # Ctrl-C reaches all processes of a terminal
        )
    try:
        wait_for(lambda: "Review page" in log.read_text() or demo.poll() is not None)
        status = requests.get(f"http://127.0.0.1:{port}/info/", timeout=60).json()["datastore"]
        processes = [psutil.Process(demo.pid), *psutil.Process(demo.pid).children(recursive=True)]
    finally:
        os.killpg(demo.pid, signal.SIGINT)
        demo.wait(120)

    assert status["originals"] == 8
    assert psutil.wait_procs(processes, timeout=20)[1] == []
    assert list(tmp_path.iterdir()) == [log]


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
