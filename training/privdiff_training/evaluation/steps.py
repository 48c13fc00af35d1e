"""Results of the steps of a run on disk: a run that was killed goes on after the last one.

A run may also be given its time. When that is over no further step begins, but what earlier legs
did is still read.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter

from privdiff_infer.errors import PrivDiffError
from privdiff_infer.release import write_json
from privdiff_training.evaluation.methods.method import hash_of
from privdiff_training.evaluation.record import for_json

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


NOT_REACHED = "not reached in the time that was given"
"""What a report says of a part that no leg has come to yet."""


class LegOver(PrivDiffError):
    """No further step begins, as the time of a run is over, and this one is not done yet."""


def of_most_seeds(seeds: int, measure: Callable[[int], ResultT]) -> ResultT:
    """Return a result of as many seeds as there is time for, or as earlier runs did.

    Parameters
    ----------
    seeds
        How many are asked for.
    measure
        Measures the result of so many seeds, counted from the first.

    Raises
    ------
    LegOver
        If not even one seed is done.
    """
    for fewer in range(seeds, 1, -1):
        try:
            return measure(fewer)
        except LegOver:
            continue
    return measure(1)


class Steps:
    """The folder of a run's steps.

    A file is named by its step and by a hash of all that decides its result, so another choice of
    options is another file, and what options leave as it was is not done again.

    Parameters
    ----------
    folder
        Where the files are.
    decided_by
        What decides every result of the run, such as images and seed.
    until
        Reading of ``time.monotonic`` from which on no further step begins: both methods then raise
        `LegOver` for what is not on disk.
    """

    def __init__(self, folder: Path, *decided_by: object, until: float = inf) -> None:
        self.folder = folder
        self.decided_by = decided_by
        self.until = until

    def record(
        self,
        name: str,
        kind: Any,
        make: Callable[[], ResultT],
        *decided_by: object,
        takes_seconds: bool = False,
    ) -> ResultT:
        """Return the result of a step, made now or by an earlier run.

        Parameters
        ----------
        name
            For people; part of the file's name.
        kind
            Type of the result: a dataclass of `record`, or a collection of such.
        make
            Does the step.
        decided_by
            What decides this result beside that of the run.
        takes_seconds
            Whether it is done after the time of the run too, out of other steps if they are done.
        """
        adapter: TypeAdapter[ResultT] = TypeAdapter(kind)
        path = self._path(name, ".json", decided_by)
        if not path.exists():
            if not takes_seconds:
                self._begin(name)
            result = make()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, for_json(adapter.dump_python(result)))
            return result
        return adapter.validate_python(json.loads(path.read_text(encoding="utf-8")))

    def arrays(
        self, name: str, make: Callable[[], dict[str, np.ndarray]], *decided_by: object
    ) -> dict[str, np.ndarray]:
        """Return arrays of a step by name; like `record`."""
        path = self._path(name, ".npz", decided_by)
        if not path.exists():
            self._begin(name)
            made = make()
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            with partial.open("wb") as file:
                np.savez_compressed(file, **made)  # type: ignore[arg-type]
            os.replace(partial, path)
        with np.load(path, allow_pickle=False) as content:
            return dict(content)

    @contextmanager
    def no_more(self) -> Iterator[None]:
        """Begin no further step inside, as if the time were over."""
        until, self.until = self.until, -inf
        try:
            yield
        finally:
            self.until = until

    def _begin(self, name: str) -> None:
        if time.monotonic() >= self.until:
            raise LegOver(
                f"the time of this run was over before: {name}",
                "give the same command again: it goes on there",
            )
        logger.info("%s", name)

    def _path(self, name: str, suffix: str, decided_by: tuple[object, ...]) -> Path:
        plain = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
        return self.folder / f"{plain}-{hash_of(*self.decided_by, *decided_by)}{suffix}"
