"""Fixtures of the unit tests."""

from __future__ import annotations

import pytest
from privdiff_training.stages.registry import STAGES

from tests.unit.workshop import Workshop


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A workshop in which every stage has run once; its bundle is for reading only."""
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    for name in STAGES:
        workshop.train(name)
    return workshop
