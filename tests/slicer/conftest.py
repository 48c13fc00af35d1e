"""Tests that need slicer-core and PySide6, in an environment of their own: `make test-slicer`."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("slicer") is None or importlib.util.find_spec("PySide6") is None:
    collect_ignore_glob = ["*"]
else:
    from tests.slicer.fixtures import *  # noqa: F403
    from tests.slicer.house import *  # noqa: F403
    from tests.slicer.scripted import *  # noqa: F403
