"""Where images are redrawn: workers of our own, or those of a dask scheduler elsewhere."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from distributed import Future
from distributed.scheduler import KilledWorker
from typing_extensions import Self

from monailabel_app.lib.jobs.turns import Turns
from monailabel_app.lib.jobs.worker import (
    PROGRESS_TOPIC,
    Redrawer,
    Redrawing,
    redraw,
    stop_redrawing,
)
from monailabel_app.lib.settings import ServerSettings
from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.anonymizer import AnonymizedImage, AnonymizerOptions
from privdiff_infer.cluster import Workers, own_workers, workers_of
from privdiff_infer.errors import WorkersLost
from privdiff_infer.model.bundle import BundleInfo
from privdiff_infer.radiograph import Radiograph

NICENESS = 10
"""Of our own workers: the server answers first."""

SECONDS_BETWEEN_LOOKS = 1.0
"""How late a lost connection to the scheduler can be noticed."""


class WorkerDied(Exception):
    """The process that had the image in work is gone."""


class Stop(BaseException):
    """A job is to be left as it is; no `Exception`, for it is no fault of the image."""


class StopSignal:
    """Asked of a job in work from another thread, and raised where it can stop."""

    def __init__(self) -> None:
        self._reason: Stop | None = None
        self._woken = threading.Event()

    def set(self, reason: Stop) -> None:
        """Stop the job; the first reason holds."""
        self._reason = self._reason or reason
        self._woken.set()

    def check(self) -> None:
        """Raise the reason, if there is one."""
        if self._reason is not None:
            raise self._reason

    def wait_for(self, future: Future) -> None:
        """Return as soon as a future is done, or raise the reason to stop."""
        future.add_done_callback(lambda _: self._woken.set())
        while not future.done():
            self.check()
            self._woken.wait(SECONDS_BETWEEN_LOOKS)
            self._woken.clear()
        self.check()


class Engine:
    """The workers; a context manager.

    Parameters
    ----------
    settings
        Scheduler, or number of workers and their threads.

    Raises
    ------
    WorkersLost
        If the scheduler that the settings name does not answer.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._listeners: dict[str, Callable[[int, int], None]] = {}
        self._turns = Turns()
        self._held = ExitStack()
        try:
            self._workers = self._held.enter_context(self._begun())
            self.client = self._workers.client
            niceness = 0 if settings.scheduler else NICENESS
            self.client.register_plugin(Redrawer(niceness))
            self.client.subscribe_topic(PROGRESS_TOPIC, self._hear)
        except BaseException:  # an interrupt too: nobody else would end the workers
            self._held.close()
            raise

    def __enter__(self) -> Self:
        """Return itself; it works since it was made."""
        return self

    def __exit__(self, *_: object) -> None:
        """End our own workers, or leave those of the scheduler alone."""
        self._held.close()

    @property
    def is_alive(self) -> bool:
        """Whether the scheduler can be reached and none of our own workers was given up."""
        return self._workers.are_reached and self._workers.are_complete

    @property
    def workers(self) -> int:
        """Images that can be redrawn at once; of a scheduler elsewhere, as it says now.

        Raises
        ------
        WorkersLost
            If it does not say so.
        """
        if not self._settings.scheduler:
            return self._settings.workers
        return sum(self._workers.threads().values())

    def redraw(
        self,
        bundle: BundleInfo,
        options: AnonymizerOptions,
        radiograph: Radiograph,
        image_seed: int,
        *,
        priority: int,
        stop: StopSignal,
        progress: Callable[[int, int], None],
    ) -> AnonymizedImage:
        """Redraw one image in a worker: wait for a turn, then for the result.

        Parameters
        ----------
        bundle, options, radiograph, image_seed
            As `worker.Redrawing` says.
        priority
            Lower numbers overtake what waits.
        stop
            Ends it at the next step.
        progress
            Called from another thread with (steps done, steps in all).

        Raises
        ------
        WorkerDied
            If its process died.
        WorkersLost
            If the scheduler is gone.
        Stop
            If it was stopped.
        Exception
            Whatever redrawing raised.
        """
        token = uuid.uuid4().hex
        order = Redrawing(token, bundle.path, bundle.sha256, options, radiograph, image_seed)
        with self._turns.taken(priority, lambda: self.workers, stop.check):
            return self._result(order, stop, progress)

    def _result(
        self, order: Redrawing, stop: StopSignal, progress: Callable[[int, int], None]
    ) -> AnonymizedImage:
        if not self.is_alive:
            raise WorkersLost
        self._listeners[order.token] = progress
        future = self.client.submit(redraw, order, key=f"redraw-{order.token}", pure=False)
        try:
            stop.wait_for(future)
            result: AnonymizedImage = future.result()
            return result
        except Stop:
            self._end(order.token, future)
            raise
        except KilledWorker:
            raise WorkerDied from None
        except CancelledError:
            raise WorkersLost from None
        finally:
            del self._listeners[order.token]
            future.release()

    def _end(self, token: str, future: Future) -> None:
        if self.is_alive:
            self.client.run(stop_redrawing, token, wait=False, on_error="ignore")
            future.cancel()

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        _, message = event
        listener = self._listeners.get(message["token"])
        if listener and message["steps"]:
            listener(message["step"], message["steps"])

    def _begun(self) -> AbstractContextManager[Workers]:
        settings = self._settings
        if settings.scheduler:
            return workers_of(settings.scheduler)
        folder = StateFolder(settings.state).engine
        return own_workers(settings.workers, threads=settings.threads, folder=folder)
