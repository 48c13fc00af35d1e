"""What a run was started with, kept beside its checkpoints: it continues with the same only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privdiff_infer.errors import ConfigError
from privdiff_training.config import Strict

RECORD = "run.json"
WITHOUT_EFFECT = frozenset({"checkpoint_every", "log_every", "data.cache_dir"})
"""Keys that change nothing in what is trained."""


@dataclass(frozen=True)
class RunRecord:
    """The resolved configuration of a run and the weights that it started from.

    `settings` maps dotted keys of the configuration, and ``--init-from``, to values of JSON.
    """

    settings: Mapping[str, Any]

    @classmethod
    def of(cls, config: Strict, started_from: str | None) -> RunRecord:
        """Describe a run by its configuration and the hash of its first weights, if it had any."""
        content = config.model_dump(mode="json")
        return cls({**dict(_dotted(content)), "--init-from": started_from})

    def write(self, run_dir: Path) -> None:
        """Write the record into the run's folder."""
        partial = run_dir / f"{RECORD}.partial"
        partial.write_text(json.dumps(self.settings, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, run_dir / RECORD)

    def refuse_another(self, run_dir: Path) -> None:
        """Raise `ConfigError` if the run in this folder was started with something else.

        More steps are allowed where the learning rate does not depend on their number. A folder
        of a version that wrote no record has nothing to compare with.
        """
        path = run_dir / RECORD
        if not path.exists():
            return
        recorded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key in (*self.settings, *(recorded.keys() - self.settings.keys())):
            before, now = recorded.get(key), self.settings.get(key)
            if before != now and not self._is_harmless(key, before, now):
                raise ConfigError(
                    f"{run_dir} holds checkpoints of a run with another {key}",
                    "name another --run-dir, or go back to what the run was started with",
                )

    def _is_harmless(self, key: str, before: Any, now: Any) -> bool:
        if key == "steps":
            return bool(self.settings["decay"] == "none" and now > before)
        return key in WITHOUT_EFFECT


def _dotted(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
