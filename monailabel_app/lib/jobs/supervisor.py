"""Starts the dispatcher with the server, and again when it dies."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time

from typing_extensions import Self

from monailabel_app.lib.settings import ServerSettings, apply

logger = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds before a dispatcher that died at once is started again; doubled each time."""

SECONDS_OF_HEALTH = 60.0
"""Who lived that long is not one that dies at once."""

SECONDS_TO_END = 20.0


class Supervisor:
    """Keeps one dispatcher alive; a context manager.

    Parameters
    ----------
    settings
        Of the server; the dispatcher reads them from its environment.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_alive, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        """Start the dispatcher."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    @property
    def is_alive(self) -> bool:
        """Whether a dispatcher is there now; between two of them there is none."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process of the dispatcher that is there."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the dispatcher and watch it."""
        self._thread.start()

    def stop(self) -> None:
        """Let the dispatcher end its jobs where they can be continued, and wait for its end."""
        self._stopping.set()
        self._thread.join()

    def _keep_alive(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            self._run_one()
            if time.monotonic() - began > SECONDS_OF_HEALTH:
                pause = FIRST_PAUSE
            if self._stopping.wait(pause):
                return
            logger.error("the dispatcher died and is started again")
            pause = min(2 * pause, LONGEST_PAUSE)

    def _run_one(self) -> None:
        """Start a dispatcher and wait for its end; its input is the pipe that ends with us."""
        command = [sys.executable, "-m", "monailabel_app.lib.jobs.dispatcher"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=apply(self._settings)) as process:
            self._process = process
            while process.poll() is None:
                if self._stopping.wait(0.2):
                    _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
