"""The process that takes jobs from the queue and minds them: one a state folder.

``python -m monailabel_app.lib.jobs.dispatcher`` reads the settings from its environment, and ends
when its standard input is closed, which the death of the server does: so neither it nor a worker
outlives the server. See `supervisor` for who starts it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

from monailabel_app.lib import log
from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.jobs.cleaning import Cleaner
from monailabel_app.lib.jobs.engine import Engine, StopSignal
from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.jobs.runner import Cancelled, Interrupted, JobRunner
from monailabel_app.lib.jobs.states import Priority
from monailabel_app.lib.jobs.store import JobStore
from monailabel_app.lib.jobs.turns import SLOTS_FOR_READING
from monailabel_app.lib.settings import ServerSettings, load_settings
from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import OutputError, PrivDiffError, WorkersLost

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 0.25
"""At the queue, for cancellations, and between two writes of progress."""

SLOTS_FOR_INTERACTIVE = 1
"""Kept free of batch jobs, so that nobody waits for one to end before theirs is even read."""

MOST_SLOTS = 256
SECONDS_FOR_PREDECESSOR = 30
SECONDS_TO_END = 10
"""Given to the jobs in work; their workers stop at the next step."""


@dataclass
class _Work:
    """A job in work."""

    job: Job
    stop: StopSignal
    done: Future[None]


class Steps:
    """What workers reported since it was asked last, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[str, tuple[int, int]] = {}

    def report(self, job_id: str, step: int, steps: int) -> None:
        """Keep the latest step of a job."""
        with self._lock:
            self._latest[job_id] = (step, steps)

    def take(self) -> dict[str, tuple[int, int]]:
        """Return what is new."""
        with self._lock:
            latest, self._latest = self._latest, {}
        return latest


class Dispatcher:
    """Takes jobs by priority while there are slots, and minds those in work.

    Parameters
    ----------
    settings
        Of the server.
    jobs
        The queue.
    engine
        The workers.
    audit
        The server's chain.
    """

    def __init__(
        self, settings: ServerSettings, jobs: JobStore, engine: Engine, audit: ServerAudit
    ) -> None:
        self._jobs, self._engine = jobs, engine
        self._steps = Steps()
        self._runner = JobRunner(settings, jobs, audit, engine, self._steps.report)
        self._cleaner = Cleaner(settings, jobs, audit)
        self._work: dict[str, _Work] = {}
        self._woken = threading.Event()
        self._threads = ThreadPoolExecutor(max_workers=MOST_SLOTS, thread_name_prefix="job")

    def run(self, ended: threading.Event) -> None:
        """Work until `ended` is set, and set it where something else ends the work.

        Python waits for the threads of jobs before a process ends, and one of them may hang at a
        store: from here on `_end_in_time` watches.

        Raises
        ------
        WorkersLost
            If the workers cannot be reached any more.
        PrivDiffError
            If the audit log or STATE cannot be written.
        """
        looked = 0.0
        try:
            self._jobs.recover()
            while not ended.is_set():
                while self._take():
                    pass
                self._woken.wait(SECONDS_BETWEEN_LOOKS)
                self._woken.clear()
                self._let_go()
                if time.monotonic() - looked >= SECONDS_BETWEEN_LOOKS:
                    looked = time.monotonic()
                    self._mind()
        finally:
            ended.set()
            self._end()

    def _take(self) -> bool:
        """Begin what there are slots for; tell whether there was anything."""
        slots = min(self._engine.workers + SLOTS_FOR_READING, MOST_SLOTS - SLOTS_FOR_INTERACTIVE)
        taken = None
        if len(self._work) < slots:
            taken = self._jobs.take()
        elif len(self._work) < slots + SLOTS_FOR_INTERACTIVE:
            taken = self._jobs.take(Priority.INTERACTIVE)
        if taken is None:
            return False
        stop = StopSignal()
        done = self._threads.submit(self._runner.run, taken, stop)
        self._work[taken.id] = _Work(taken, stop, done)
        done.add_done_callback(lambda _: self._woken.set())
        return True

    def _let_go(self) -> None:
        """Forget jobs that have ended; raise what no row can tell of."""
        for work in [work for work in self._work.values() if work.done.done()]:
            del self._work[work.job.id]
            work.done.result()

    def _mind(self) -> None:
        """Write progress, stop what was cancelled, delete what is old."""
        if not self._engine.is_alive:
            raise WorkersLost
        self._jobs.report_steps(self._steps.take())
        if self._work:
            running = self._jobs.still_running(self._work.keys())
            for job_id in self._work.keys() - running:
                self._work[job_id].stop.set(Cancelled())
        self._cleaner.look()

    def _end(self) -> None:
        """Let jobs go where they can be continued."""
        for work in self._work.values():
            work.stop.set(Interrupted())
        deadline = time.monotonic() + SECONDS_TO_END
        for work in self._work.values():
            try:
                work.done.result(max(0.0, deadline - time.monotonic()))
            except Exception as error:
                logger.error("a job did not end well: %s", type(error).__name__)
        self._threads.shutdown(wait=False)


def main() -> int:
    """Work until the server is gone or says so; return the exit code."""
    _be_silent()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server's affair
    for watch in (_wait_for_server_to_end, _end_in_time):
        threading.Thread(target=watch, args=(ended,), daemon=True).start()
    try:
        settings = load_settings()
        folder = StateFolder(settings.state)
        folder.create()
        log.configure(folder, "dispatcher")
        with _only_one(folder):
            Pseudonyms.load()  # or every job would fail for want of the key
            audit, jobs = ServerAudit.open(folder), JobStore.open(settings)
            with Engine(settings) as engine:
                Dispatcher(settings, jobs, engine, audit).run(ended)
    except PrivDiffError as error:
        logger.error("the dispatcher ends: %s", type(error).__name__)
        # To the console alone: the message can name what the administrator typed, a log may not.
        print(f"dispatcher: {error}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        logger.error("the dispatcher ends: %s", type(error).__name__)
        print("dispatcher: the database does not answer", file=sys.stderr)
        return 1
    return 0


def _only_one(folder: StateFolder) -> FileLock:
    lock = FileLock(folder.dispatcher_lock, mode=0o600, timeout=SECONDS_FOR_PREDECESSOR)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(
            "another dispatcher works in the state folder", "stop its server first"
        ) from None
    return lock


def _wait_for_server_to_end(ended: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):  # not buffered: that would hold a lock at exit
        pass
    ended.set()


def _end_in_time(ended: threading.Event) -> None:
    """End the process, whatever holds it up; its workers end with it."""
    ended.wait()
    time.sleep(2 * SECONDS_TO_END)
    os._exit(1)


def _be_silent() -> None:
    """Keep libraries from quoting headers, in whatever thread they read them."""
    logging.getLogger("pydicom").disabled = True
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    sys.exit(main())
