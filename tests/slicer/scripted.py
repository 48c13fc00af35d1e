"""A panel by clicks, against a real HTTP server that answers as a test wrote down."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np
import pytest
from PrivDiffLib.Nrrd import encodeNrrd

from tests.slicer.driving import User
from tests.slicer.fixtures import MODULE, ROOT
from tests.unit.scripted_server import Reply, running

API = "/privdiff/v1"
CELL = {"linkage_auc": 0.746, "interval": [0.718, 0.778], "findings_auc": 0.581, "n": 239}
MODEL = {
    "id": "m-1",
    "default": True,
    "problem": "",
    "bundle": {
        "name": "m",
        "version": "1",
        "profiles": ["standard", "fast"],
        "operating_points": {"standard": {"strength": 0.7}, "fast": {"strength": 0.8}},
        "measured": {"standard": {"0.7": CELL}},
    },
}
OTHER = {
    **MODEL,
    "id": "n-2",
    "default": False,
    "bundle": {"name": "n", "version": "2", "profiles": ["standard", "fast"]},
}
FIGURES = {
    "identity_similarity": 0.31,
    "findings_before": {"Effusion": 0.81, "Mass": 0.1, "Edema": 0.7},
    "findings_after": {"Effusion": 0.32, "Mass": 0.12, "Edema": 0.72},
    "text_boxes": 1,
}
CONTENT = encodeNrrd(np.tile(np.linspace(0, 1, 256, dtype=np.float32), (256, 1)), (1.4, 1.4))
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def picture() -> bytes:
    """Return a grey PNG."""
    lines = b"".join(b"\0" + bytes(range(256)) for _ in range(256))
    header = struct.pack(">IIBBBBB", 256, 256, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


PICTURE = picture()


@pytest.fixture
def server():
    with running() as found:
        found.on(f"GET {API}/health", {"status": "ok", "version": "0.1"})
        found.on(f"GET {API}/me", {"name": "ann", "role": "reviewer", "store": True})
        found.on(f"GET {API}/models", {"default": "m-1", "models": [OTHER, MODEL]})
        found.on(f"GET {API}/jobs", {"jobs": [], "next": None, "counts": {"awaiting_review": 1}})
        found.on(f"POST {API}/jobs", Reply({"jobs": [job("queued")]}, 201))
        headers = {"X-PrivDiff-SHA256": SHA256}
        found.on(f"GET {API}/jobs/0f/result", Reply(CONTENT, headers=headers))
        for route in (f"GET {API}/jobs/0f", f"POST {API}/jobs/0f/claim"):
            found.on(route, job("awaiting_review", figures=FIGURES))
        yield found


@pytest.fixture
def user(application, scene, server, monkeypatch):
    monkeypatch.setattr("PrivDiffLib.privdiff_client.transport.WAIT_SECONDS", (0.01,))
    monkeypatch.setattr("PrivDiffLib.Anonymizing.POLL_SECONDS", 0.05)
    monkeypatch.setattr("PrivDiffLib.Anonymizing.SILENT_POLL_SECONDS", 0.05)
    application.userSettings().clear()
    widget = application.open(MODULE)
    yield User(application, widget, ROOT / "build" / "slicer" / "panel")
    if widget.panel is not None:
        application.close(widget)


@pytest.fixture
def ready(user, server):
    """A user who is connected, has consented, and has checked the first sample."""
    user.connect(server.url)
    user.tick("consentBox")
    user.click("sampleButton")
    user.check(0)
    return user


def job(state: str, **fields: object) -> dict[str, object]:
    known = {"id": "0f", "state": state, "batch": "", "sha256": SHA256, "linkage_limit": 0.6}
    return {**known, **fields}


def finish(server, state: str = "awaiting_review", **fields: object) -> None:
    server.on(f"GET {API}/jobs/0f", job(state, figures=FIGURES, **fields))


def anonymize(user, server) -> None:
    user.click("anonymizeButton")
    finish(server)
    user.waitFor(lambda: user.ui.approveButton.enabled)


def uploads(server) -> int:
    return len([r for r in server.requests if r.method == "POST" and r.path == f"{API}/jobs"])
