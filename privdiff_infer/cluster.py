"""Worker processes through dask: our own on this machine, or those of a scheduler elsewhere.

Whoever reaches a dask scheduler can run any code as its user, so ours listens on loopback alone and
speaks TLS with a certificate that nobody else has.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

import dask
from distributed import Client, LocalCluster, Security
from distributed.core import Status

from privdiff_infer.errors import WorkersLost

SECONDS_TO_CONNECT = 30

GIVEN_UP = (Status.closed, Status.closing, Status.failed)
"""States of dask's minder of a worker in which it starts no other one."""

DASK = {
    # A worker that dies fails its task at once: how often a task is given again is our affair.
    "distributed.scheduler.allowed-failures": 0,
    # A worker that died is waited for; dask gives one up that is not there again after 15 seconds,
    # which on a busy machine it is not.
    "distributed.deploy.lost-worker-timeout": "1 hour",
    "distributed.scheduler.http.routes": [],  # nobody is answered there
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.system-monitor.log-length": 100,
    "distributed.admin.large-graph-warning-threshold": "1GB",  # pixels can be part of a task
    # What dask sets makes glibc map every large tensor anew, page by page: a third more time.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}


@dataclass(frozen=True)
class Workers:
    """Workers that were begun.

    Attributes
    ----------
    client
        Gives them work.
    own
        How many of them are ours, on this machine; 0: all are a scheduler's elsewhere.
    """

    client: Client
    own: int

    @property
    def are_reached(self) -> bool:
        """Whether the scheduler answers."""
        return bool(self.client.status == "running")

    @property
    def are_complete(self) -> bool:
        """Whether each of our own workers lives, or is being started anew."""
        return not self.own or len(self.client.cluster.workers) - len(self._given_up()) >= self.own

    def replace_given_up(self) -> None:
        """Start others for those of our own that dask starts no more: they died as they began."""
        if self.own and (given_up := self._given_up()):
            cluster = self.client.cluster
            for name in given_up:
                cluster.workers.pop(name, None)
            cluster.scale(self.own)

    def _given_up(self) -> list[object]:
        minders = dict(self.client.cluster.workers)
        return [name for name, minder in minders.items() if minder.status in GIVEN_UP]

    def count(self) -> int:
        """Return how many there are; of a scheduler elsewhere, as it says now.

        Raises
        ------
        WorkersLost
            If it does not say so.
        """
        return self.own or len(self.threads())

    def threads(self) -> dict[str, int]:
        """Return how many threads each worker has.

        Raises
        ------
        WorkersLost
            If the scheduler does not say so.
        """
        try:
            return dict(self.client.nthreads())
        except OSError:
            raise WorkersLost from None


@contextmanager
def own_workers(count: int, *, threads: int = 1, folder: Path | None = None) -> Iterator[Workers]:
    """Start workers on this machine, each a process that does one task at a time.

    One that dies is replaced. Ctrl-C does not reach them, and they end when this process does,
    however it ends.

    Parameters
    ----------
    count
        Number of processes.
    threads
        CPU threads of each that libraries take by themselves.
    folder
        For what dask writes; its own choice by default.
    """
    _be_silent()
    with dask.config.set(DASK), _interrupts_held_back():
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            protocol="tls://",
            security=Security.temporary(),
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            memory_limit=0,
            silence_logs=logging.CRITICAL,
            local_directory=str(folder) if folder else None,
            env={"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
        )
    with dask.config.set(DASK), cluster, _connected(cluster) as client:
        yield Workers(client, count)


@contextmanager
def workers_of(scheduler: str) -> Iterator[Workers]:
    """Connect to a scheduler, whose workers may come and go.

    Raises
    ------
    WorkersLost
        If it does not answer.
    """
    _be_silent()
    with dask.config.set(DASK), _connected(scheduler) as client:
        yield Workers(client, 0)


def _connected(address: str | LocalCluster) -> Client:
    try:
        return Client(address, timeout=SECONDS_TO_CONNECT)
    except (OSError, TimeoutError, ValueError):  # ValueError: an address that is none
        raise WorkersLost from None


def _be_silent() -> None:
    """Keep dask from logging errors of tasks, which can quote a header or a name."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start threads whose processes Ctrl-C does not reach: they finish while the run stops."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # or starting it, with the first process, ends the hold
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
