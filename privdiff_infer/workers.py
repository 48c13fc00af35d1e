"""Processes that share sources: each does one at a time, and one that dies costs one."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

from privdiff_infer.errors import PrivDiffError
from privdiff_infer.sources import Source

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Job = Callable[[Source], Result]


class WorkerPool(Generic[Result]):
    """Processes that do one job for many sources.

    Parameters
    ----------
    make_job
        Called once in each process; returns what is called with every source. Must be picklable.
    count
        Number of processes.
    """

    def __init__(self, make_job: Callable[[], Job[Result]], count: int) -> None:
        self._make_job = make_job
        self._count = count
        self._idle: list[_Worker[Result]] = []
        self._busy: list[_Worker[Result]] = []
        self._done: deque[tuple[Source, Result]] = deque()
        self._orphans: list[Source] = []  # sources whose process died

    def __enter__(self) -> WorkerPool[Result]:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._idle + self._busy:
            worker.end()

    def results(self, sources: Sequence[Source]) -> Iterator[tuple[Source, Result | None]]:
        """Yield (source, result) as they come; the result is None if the process died of it.

        Raises
        ------
        PrivDiffError
            If `make_job` raised one.
        """
        yield from self._share(sources, self._count)
        # What ran as a process died runs again, alone: others may have taken its memory.
        suspects, self._orphans = self._orphans, []
        while self._idle:
            self._idle.pop().end()
        yield from self._share(suspects, 1)
        yield from ((source, None) for source in self._orphans)

    def drain(self) -> list[tuple[Source, Result]]:
        """Begin no other file; let those in work be finished and return what was not yielded."""
        if self._busy:
            logger.warning("finishing %d images; Ctrl-C again leaves them undone", len(self._busy))
        while self._busy:
            self._receive()
        return list(self._done)

    def _share(self, sources: Sequence[Source], count: int) -> Iterator[tuple[Source, Result]]:
        queue = deque(sources)
        self._hand_out(queue, count)
        while self._busy:
            self._receive()
            self._hand_out(queue, count)  # before yielding: no process waits for a slow consumer
            while self._done:
                yield self._done.popleft()

    def _hand_out(self, queue: deque[Source], count: int) -> None:
        while queue and len(self._busy) < count:
            worker = self._idle.pop() if self._idle else _Worker(self._make_job)
            self._busy.append(worker)
            worker.begin(queue.popleft())

    def _receive(self) -> None:
        """Wait until a process answers or dies."""
        ready = wait([worker.connection for worker in self._busy])
        for worker in [worker for worker in self._busy if worker.connection in ready]:
            self._busy.remove(worker)
            try:
                result = worker.result()
            except (EOFError, OSError):
                self._orphans.append(worker.source)
                worker.end()
            except PrivDiffError:
                worker.end()
                raise
            else:
                self._idle.append(worker)
                self._done.append((worker.source, result))


class _Worker(Generic[Result]):
    """One process, and the source that it has in work."""

    connection: Connection
    source: Source

    def __init__(self, make_job: Callable[[], Job[Result]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make_job), daemon=True)
        with _interrupts_held_back():
            self._process.start()
        theirs.close()  # the process alone holds this end, so that its death ends the connection

    def begin(self, source: Source) -> None:
        self.source = source
        with suppress(OSError):  # it died while idle, which `result` will tell
            self.connection.send(source)

    def result(self) -> Result:
        received: Result | PrivDiffError = self.connection.recv()
        if isinstance(received, PrivDiffError):
            raise received
        return received

    def end(self) -> None:
        self.connection.close()
        self._process.terminate()
        self._process.join()


def _serve(connection: Connection, make_job: Callable[[], Job[Result]]) -> None:
    """Answer every source with its result until the other side is gone."""
    with suppress(EOFError, OSError):
        source = connection.recv()
        try:
            job = make_job()
        except PrivDiffError as error:
            connection.send(error)
            return
        while True:
            connection.send(job(source))
            source = connection.recv()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: they finish their file while the run stops."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # or starting it, with the first process, ends the hold
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
