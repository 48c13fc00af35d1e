"""What runs in a worker: one pipeline, kept between jobs, and the redrawing of one image.

Workers may be on other machines. All that they are sent is here: where the bundle lies, what the
client chose, the pixels and the few facts of the header that the model is told. The data set of the
source stays at home.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from distributed import Worker, WorkerPlugin, get_worker

from privdiff_infer.anonymizer import AnonymizedImage, Anonymizer, AnonymizerOptions
from privdiff_infer.errors import BundleError
from privdiff_infer.radiograph import Radiograph

PROGRESS_TOPIC = "privdiff-progress"
SECONDS_BETWEEN_EVENTS = 0.1

MEMORY_ERRORS = (torch.OutOfMemoryError, MemoryError)


@dataclass(frozen=True)
class Redrawing:
    """The order of one image; its text, which dask can log, tells nothing of it.

    Attributes
    ----------
    token
        Names it in events and when it is stopped.
    bundle
        Folder of the bundle, as the worker sees it.
    bundle_sha256
        Of its metadata, which names the hashes of its files.
    options
        What the client and the server chose.
    radiograph
        Without its data set.
    image_seed
        Seed of all noise.
    """

    token: str
    bundle: Path = field(repr=False)
    bundle_sha256: str = field(repr=False)
    options: AnonymizerOptions = field(repr=False)
    radiograph: Radiograph = field(repr=False)
    image_seed: int = field(repr=False)


class RedrawingStopped(Exception):
    """Nobody waits for this image any more."""


class Redrawer(WorkerPlugin):
    """Lives in a worker and keeps the pipeline of the last bundle.

    Parameters
    ----------
    niceness
        By how much the worker yields to other processes of its machine.
    """

    name = "privdiff-redrawer"

    def __init__(self, niceness: int) -> None:
        self._niceness = niceness
        self._kept: tuple[object, Anonymizer] | None = None
        self._stopped: deque[str] = deque(maxlen=1000)

    def setup(self, worker: Worker) -> None:
        """Prepare the process: dask logs the errors of tasks, which can quote a header."""
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        if self._niceness:
            os.nice(self._niceness)

    def stop(self, token: str) -> None:
        """Let a redrawing end at its next step, or before its first one."""
        self._stopped.append(token)

    def redraw(self, order: Redrawing, report: Callable[[int, int], None]) -> AnonymizedImage:
        """Redraw one image.

        Raises
        ------
        ImageHeld
            As `Anonymizer.anonymize`.
        BundleError
            If the bundle is not the one that was ordered.
        torch.OutOfMemoryError, MemoryError
            If memory ended; the pipeline is gone then, and its memory free for the next image.
        RedrawingStopped
            If it was stopped.
        """

        def progress(step: int, steps: int) -> None:
            if order.token in self._stopped:
                raise RedrawingStopped
            report(step, steps)

        try:
            progress(0, 0)
            return self._anonymizer(order).anonymize(order.radiograph, order.image_seed, progress)
        except MEMORY_ERRORS as error:
            kind = type(error)
        # Outside of the block: the error's frames would keep the tensors that are to go.
        self._kept = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise kind("the worker ran out of memory and let its model go")

    def _anonymizer(self, order: Redrawing) -> Anonymizer:
        """Return the kept networks with these options; strength and profile load nothing."""
        options = order.options
        wanted = (order.bundle_sha256, options.device, options.precision, options.threads)
        if self._kept is None or self._kept[0] != wanted:
            self._kept = None  # first: two models may not fit
            gc.collect()
            loaded = Anonymizer.from_bundle(order.bundle, options)
            if loaded.bundle.sha256 != order.bundle_sha256:
                raise BundleError(
                    "the worker sees another bundle than the server", "give both the same folder"
                )
            self._kept = wanted, loaded
        kept = self._kept[1]
        return Anonymizer(kept.pipeline, kept.bundle, options, kept.text_detector)


def redraw(order: Redrawing) -> AnonymizedImage:
    """Redraw an image in this worker; see `Redrawer.redraw`."""
    worker = get_worker()
    redrawer: Redrawer = worker.plugins[Redrawer.name]
    last = 0.0

    def report(step: int, steps: int) -> None:
        nonlocal last
        now = time.monotonic()
        if step == steps or now - last >= SECONDS_BETWEEN_EVENTS:
            last = now
            worker.log_event(PROGRESS_TOPIC, {"token": order.token, "step": step, "steps": steps})

    return redrawer.redraw(order, report)


def stop_redrawing(token: str, dask_worker: Any) -> None:
    """Stop an image wherever it is; dask runs this beside the task, in the worker's event loop."""
    dask_worker.plugins[Redrawer.name].stop(token)
