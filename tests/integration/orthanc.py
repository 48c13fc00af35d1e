"""A real DICOMweb store for tests: Debian's Orthanc with its own storage on a free port."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

PROGRAM = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MISSING = "Debian's packages orthanc and orthanc-dicomweb are absent; see `make test-tools`"

needs_orthanc = pytest.mark.skipif(not PROGRAM or not PLUGIN.exists(), reason=MISSING)

START_SECONDS = 20
ATTEMPTS = 3
"""Another process can take a free port before Orthanc has it."""


@dataclass(frozen=True)
class Orthanc:
    """A store that runs.

    Attributes
    ----------
    port
        On the loopback interface.
    credentials
        (user, password) that it wants, or None.
    """

    port: int
    credentials: tuple[str, str] | None

    @property
    def authentication(self) -> tuple[bytes, bytes] | None:
        """The credentials as `requests` sends them in UTF-8."""
        return (
            (self.credentials[0].encode(), self.credentials[1].encode())
            if self.credentials
            else None
        )

    @property
    def url(self) -> str:
        """Of its DICOMweb service."""
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def add(self, content: bytes) -> None:
        """Put a DICOM file in, past the code under test."""
        self._rest("POST", "/instances", content).raise_for_status()

    def files(self) -> list[bytes]:
        """Return all DICOM files that it holds, past the code under test."""
        return [
            self._rest("GET", f"/instances/{name}/file").content
            for name in self._rest("GET", "/instances").json()
        ]

    def clear(self) -> None:
        """Delete everything."""
        for name in self._rest("GET", "/patients").json():
            self._rest("DELETE", f"/patients/{name}").raise_for_status()

    def _rest(self, method: str, path: str, body: bytes | None = None) -> requests.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        return requests.request(method, url, data=body, auth=self.authentication, timeout=20)


@contextmanager
def running_orthanc(
    folder: Path, credentials: tuple[str, str] | None = None, **settings: object
) -> Iterator[Orthanc]:
    """Start a store whose files lie in `folder`; it ends with the context, however that ends.

    Parameters
    ----------
    folder
        An empty one.
    credentials
        (user, password) that it shall want.
    **settings
        More of Orthanc's configuration.
    """
    for attempt in range(ATTEMPTS):
        store = Orthanc(free_port(), credentials)
        configuration = folder / f"orthanc-{attempt}.json"
        configuration.write_text(json.dumps(_configuration(folder, store, settings)))
        with (folder / "orthanc.log").open("wb") as log:
            process = subprocess.Popen([str(PROGRAM), str(configuration)], stdout=log, stderr=log)
        try:
            if _is_ready(store, process):
                yield store
                return
        finally:
            process.kill()  # nothing of it is kept, and asking takes it seconds
            process.wait()
    raise RuntimeError((folder / "orthanc.log").read_text(errors="replace")[-2000:])


def free_port() -> int:
    """Return a port of the loopback interface that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _configuration(
    folder: Path, store: Orthanc, settings: Mapping[str, object]
) -> dict[str, object]:
    users = dict([store.credentials]) if store.credentials else {}
    return {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": store.port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": bool(users),
        "RegisteredUsers": users,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True},
        **settings,
    }


def _is_ready(store: Orthanc, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the store answers; tell whether it does."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            requests.get(f"{store.url}/studies", auth=store.authentication, timeout=5)
            return True
        except requests.ConnectionError:
            time.sleep(0.02)
    return False
