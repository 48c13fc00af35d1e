"""Gives sources to workers: few at once, again where a worker died, and each answered once."""

from __future__ import annotations

import itertools
import logging
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from distributed import Future, Worker, WorkerPlugin, get_worker
from distributed.scheduler import KilledWorker

from privdiff_infer.cluster import Workers
from privdiff_infer.errors import ClusterError, PrivDiffError, WorkersLost
from privdiff_infer.sources import Source

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Job = Callable[[Source], Result]

TASKS_A_WORKER = 2
"""One in work and one that waits beside it, so that no worker waits for us."""

DEATHS_IN_COMPANY = 2
"""As often as this, workers may die with a source before it is done alone: then it is the culprit,
or it is none."""

SECONDS_BETWEEN_LOOKS = 1.0
"""How late it is noticed that workers come, go or are lost."""


class JobKeeper(Generic[Result]):
    """Has one job done for many sources; a context manager.

    Parameters
    ----------
    workers
        Who do it.
    make_job
        Called once in each worker; returns what is called with every source. Must be picklable.
    check
        Called in each worker before `make_job`, and in all that are there before the first source.
    """

    def __init__(
        self, workers: Workers, make_job: Callable[[], Job[Result]], check: Callable[[], None]
    ) -> None:
        self._workers = workers
        self._name = f"privdiff-{secrets.token_hex(8)}"
        self._holder = _JobHolder(self._name, make_job, check)
        self._numbers = itertools.count()
        self._in_work: dict[tuple[str, int], tuple[Source, Future]] = {}
        self._answered: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._done: deque[tuple[Source, Result | None]] = deque()
        self._deaths: dict[Source, int] = {}
        self._again: deque[Source] = deque()
        self._suspects: deque[Source] = deque()
        self._counted, self._count = float("-inf"), 0

    def __enter__(self) -> JobKeeper[Result]:
        """Bring the job to the workers.

        Raises
        ------
        PrivDiffError
            Whatever `check` raised.
        ClusterError
            If this package is not installed in a worker.
        """
        try:
            self._workers.client.register_plugin(self._holder, name=self._name)
        except ImportError:
            raise ClusterError(
                "a worker has no privdiff, or another one", "install the same version everywhere"
            ) from None
        # Who does not answer now checks before its first source.
        answers = self._workers.client.run(_check, self._name, on_error="ignore")
        if errors := [answer for answer in answers.values() if answer is not None]:
            raise errors[0]
        return self

    def __exit__(self, *_: object) -> None:
        """Take the job away; what is in work is left undone."""
        for unfinished in self._in_work.values():
            unfinished[1].cancel()
        if self._workers.are_reached and not self._workers.own:  # our own workers end anyway
            self._workers.client.unregister_worker_plugin(self._name)

    def results(self, sources: Iterable[Source]) -> Iterator[tuple[Source, Result | None]]:
        """Yield (source, result) as they come; the result is None if workers died of it.

        Sources are taken as there is room for them.

        Raises
        ------
        PrivDiffError
            If `make_job` raised one.
        WorkersLost
            If the scheduler is gone.
        """
        yield from self._share(iter(sources), self._room)
        # Alone, for then nobody else can have killed the worker, or have taken its memory.
        while self._suspects:
            yield from self._share(iter([self._suspects.popleft()]), lambda: 1)

    def drain(self) -> Iterator[tuple[Source, Result]]:
        """Give no other source; yield what was not yielded, and what is in work once it is done."""
        if self._in_work:
            logger.warning(
                "finishing %d images; Ctrl-C again leaves them undone", len(self._in_work)
            )
        while self._in_work or self._done:
            while self._done:
                source, result = self._done.popleft()
                if result is not None:
                    yield source, result
            try:
                self._receive()
            except WorkersLost:
                return
            except PrivDiffError:  # told already by whom the run stopped
                continue

    def _share(
        self, sources: Iterator[Source], room: Callable[[], int]
    ) -> Iterator[tuple[Source, Result | None]]:
        self._hand_out(sources, room())
        while self._in_work:
            self._receive()
            self._hand_out(sources, room())  # before yielding: nobody waits for a slow consumer
            while self._done:
                yield self._done.popleft()

    def _room(self) -> int:
        now = time.monotonic()
        if now - self._counted >= SECONDS_BETWEEN_LOOKS:
            self._workers.replace_given_up()
            self._counted, self._count = now, self._workers.count()
        return TASKS_A_WORKER * max(self._count, 1)

    def _hand_out(self, sources: Iterator[Source], room: int) -> None:
        while len(self._in_work) < room:
            try:
                source = self._again.popleft() if self._again else next(sources)
            except StopIteration:
                return
            key = (self._name, next(self._numbers))
            order = _Order(self._name, source)
            future = self._workers.client.submit(_do, order, key=key, pure=False)
            self._in_work[key] = source, future
            future.add_done_callback(self._answered.put)

    def _receive(self) -> None:
        """Wait until something was answered, or a worker died."""
        if not self._in_work:
            return
        while True:
            try:
                future = self._answered.get(timeout=SECONDS_BETWEEN_LOOKS)
                break
            except queue.Empty:
                if not self._workers.are_reached:
                    raise WorkersLost from None
                self._workers.replace_given_up()
        source, _ = self._in_work.pop(future.key)
        try:
            answer = future.result()
        except KilledWorker as error:
            self._suspect(source, error.allowed_failures + 1)
        except (CancelledError, OSError):
            raise WorkersLost from None
        else:
            if isinstance(answer, PrivDiffError):
                raise answer
            self._deaths.pop(source, None)
            self._done.append((source, answer))

    def _suspect(self, source: Source, deaths: int) -> None:
        """Have a source done again; alone if that happened often, and no more if it was alone."""
        before = self._deaths.get(source, 0)
        self._deaths[source] = before + deaths
        if before >= DEATHS_IN_COMPANY:
            self._done.append((source, None))
        elif before + deaths >= DEATHS_IN_COMPANY:
            self._suspects.append(source)
        else:
            self._again.append(source)


@dataclass(frozen=True)
class _Order:
    """One source for one job; its text, which dask can log, tells nothing."""

    job: str
    source: Source = field(repr=False)


class _JobHolder(WorkerPlugin):
    """Lives in a worker and keeps the job, which is made for the first source."""

    def __init__(
        self, name: str, make_job: Callable[[], Job[Any]], check: Callable[[], None]
    ) -> None:
        self.name = name
        self.check = check
        self._make_job = make_job

    def setup(self, worker: Worker) -> None:
        """Prepare the process: dask logs the errors of tasks, which can quote a header."""
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self._turn = threading.Lock()  # a worker with several threads has one model all the same
        self._job: Job[Any] | None = None

    def do(self, source: Source) -> Any:
        """Return the result of a source, or the error for which none can be had."""
        with self._turn:
            if self._job is None:
                try:
                    self.check()
                    self._job = self._make_job()
                except PrivDiffError as error:
                    return error
            return self._job(source)


def _do(order: _Order) -> Any:
    holder: _JobHolder = get_worker().plugins[order.job]
    return holder.do(order.source)


def _check(name: str, dask_worker: Worker) -> PrivDiffError | None:
    """Return why a worker cannot do a job; dask runs this beside its tasks."""
    holder: _JobHolder = dask_worker.plugins[name]
    try:
        holder.check()
    except PrivDiffError as error:
        return error
    return None
