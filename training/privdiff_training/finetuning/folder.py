"""The folder of a fine-tuning: everything that shows or names patients stays in it."""

from __future__ import annotations

import json
import math
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privdiff_infer.release import json_bytes, write_private

PRIVATE_FOLDER = 0o700


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run. It is readable by its owner alone and must not leave."""

    root: Path

    def create(self) -> None:
        """Create the folder, whatever the umask says."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(PRIVATE_FOLDER)

    @property
    def originals(self) -> Path:
        """What was fetched of a store."""
        return self.root / "originals"

    @property
    def found(self) -> Path:
        """The manifest of everything that was named."""
        return self.root / "found.csv"

    @property
    def manifest(self) -> Path:
        """The manifest of what is used, with the role of every image as its split."""
        return self.root / "manifest.csv"

    @property
    def report(self) -> Path:
        """The page of the cohort, which shows originals."""
        return self.root / "cohort.html"

    @property
    def checks(self) -> Path:
        """What the checks found; written last of the three."""
        return self.root / "checks.json"

    @property
    def cache(self) -> Path:
        """Prepared pixels, latents and redrawn images."""
        return self.root / "cache"

    @property
    def components(self) -> Path:
        """What was trained, component by component."""
        return self.root / "components"

    @property
    def critics(self) -> Path:
        """What came of fitting the critics."""
        return self.root / "critics.json"

    @property
    def candidate(self) -> Path:
        """The bundle before it passed the memorization test."""
        return self.root / "candidate"

    @property
    def memorization(self) -> Path:
        """What the memorization test found."""
        return self.root / "memorization.json"

    @property
    def evaluation(self) -> Path:
        """Old and new side by side."""
        return self.root / "evaluation.json"

    def leg(self, name: str) -> Path:
        """Checkpoints, logs and judgements of one leg."""
        return self.root / "legs" / name

    def secret(self) -> int:
        """Return the seed of the noise of differential privacy: who knows it can take it away."""
        path = self.root / "noise-seed"
        if not path.exists():
            write_private(path, str(secrets.randbits(62)).encode())
        return int(path.read_text(encoding="utf-8"))


def write_record(path: Path, record: Any) -> None:
    """Write a record of a run as JSON, readable by its owner alone; NaN becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, json_bytes(finite(record)))


def read_record(path: Path) -> Any:
    """Read what `write_record` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def finite(value: Any) -> Any:
    """Return a value for JSON, which knows no NaN: what could not be measured becomes None."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
