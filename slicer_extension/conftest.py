"""The client is tested with the rest; what runs in Slicer has an environment of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

HERE = Path(__file__).resolve().parent

if importlib.util.find_spec("slicer") is None:
    collect_ignore = [
        str(path.relative_to(HERE))
        for path in (HERE / "PrivDiff").rglob("*.py")
        if "privdiff_client" not in path.parts
    ]
