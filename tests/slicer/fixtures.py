"""Fixtures of the Slicer tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slicer.harness.application import Application, installModules

ROOT = Path(__file__).resolve().parents[2]

SOURCE = ROOT / "slicer_extension" / "PrivDiff" / "PrivDiff.py"

MODULE = Path(os.environ.get("PRIVDIFF_MODULE", SOURCE))
"""The module under test: in the installed tree if the environment names one."""

# Slicer has the folder of each module in its path, and these modules in itself.
sys.path.insert(0, str(MODULE.parent))
installModules()


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The one application of this process."""
    yield Application(tmp_path_factory.mktemp("application"))


@pytest.fixture(autouse=True)
def escaped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """What escapes from slots and observers: a test in which something does has failed."""
    found: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: found.append(error))
    yield found
    assert found == []


@pytest.fixture
def scene(application: Application) -> Iterator[Any]:
    """The scene, empty; each test leaves it so."""
    yield application.scene
    application.scene.Clear(0)
    application.processEvents()
