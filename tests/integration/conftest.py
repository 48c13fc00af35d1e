"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from privdiff_infer.dicom.web import open_store
from tests.integration.orthanc import Orthanc, running_orthanc


@pytest.fixture(scope="session")
def shared_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A store for all tests, in turn."""
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as store:
        yield store


@pytest.fixture
def orthanc(shared_orthanc: Orthanc) -> Orthanc:
    """An empty store; a test that wants it is marked `needs_orthanc`."""
    shared_orthanc.clear()
    return shared_orthanc


@pytest.fixture
def locked_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An empty store that wants a user name and a password."""
    folder: Path = tmp_path_factory.mktemp("orthanc")
    with running_orthanc(folder, credentials=("röntgen", "s3cret-pässword")) as store:
        yield store


@pytest.fixture(autouse=True)
def fresh_connections() -> None:
    """Let every test read the environment for itself."""
    open_store.cache_clear()
