"""Work that runs beside the interface."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PrivDiffLib.Background import Background


@pytest.fixture
def background():
    found = Background()
    yield found
    found.stop()


def test_unforeseen_error_is_told_without_what_it_names(background, caplog, tmp_path):
    failures = []
    missing: Path = tmp_path / "Doe_Jane.dcm"

    background.start(lambda ticket: missing.read_bytes(), lambda found: None, failures.append)
    end = time.monotonic() + 5
    while not failures and time.monotonic() < end:
        background.drain()
        time.sleep(0.01)

    assert "FileNotFoundError" in failures[0].message
    assert "FileNotFoundError" in caplog.text and "read_bytes" in caplog.text
    assert "Doe" not in caplog.text + str(failures[0])
