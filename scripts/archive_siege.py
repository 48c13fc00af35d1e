"""One long run that is killed on the way: is anything lost or doubled, does memory stay flat?

A part of `measure_archives.py`. The run is `privdiff anonymize --workers 2` in processes of its
own. At fixed shares of the images a worker is killed with SIGKILL, then the driver itself, then the
run is asked to stop with SIGINT, and continued each time with `--resume`.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from privdiff_infer.audit import AuditLog, Event, load_audit_key
from privdiff_infer.release import OutputFolders
from privdiff_infer.verification import verify

SECONDS_BETWEEN_SAMPLES = 1.0
SECONDS_TO_END = 120
WORKERS = 2
MB = 2**20

KILL_WORKER, KILL_DRIVER, INTERRUPT = "kill -9 of a worker", "kill -9 of the driver", "SIGINT"
PLAN = ((0.15, KILL_WORKER), (0.3, KILL_DRIVER), (0.5, KILL_WORKER), (0.65, INTERRUPT),
        (0.8, KILL_DRIVER))  # fmt: skip
"""What happens at which share of the images."""


@dataclass
class Siege:
    """A run under attack.

    Attributes
    ----------
    sources, out, bundle
        Of the run.
    options
        Further options of `privdiff anonymize`.
    total
        Number of sources.
    events
        What was done to it, and what was seen.
    memory
        (images done, MB of the driver, MB of its largest worker), sampled.
    """

    sources: Path
    out: Path
    bundle: Path
    options: tuple[str, ...]
    total: int
    events: list[dict[str, Any]] = field(default_factory=list)
    memory: list[tuple[int, float, float]] = field(default_factory=list)
    starts: int = 0

    def run(self) -> dict[str, Any]:
        """Bring the run to its end through all attacks; return what was found."""
        begun = time.monotonic()
        for share, attack in PLAN:
            driver = self._start()
            while not self._attack(driver, int(share * self.total), attack):
                driver = self._start()
        code = self._follow(self._start(), self.total + 1)
        assert code is not None
        return {
            "images": self.total,
            "workers": WORKERS,
            "starts": self.starts,
            "exit_code": code,
            "minutes": round((time.monotonic() - begun) / 60, 1),
            "attacks": self.events,
            "memory_mb": self._memory_at_shares(),
            "driver_peak_mb": round(max((d for _, d, _ in self.memory), default=0), 1),
            **accounts(self.out, self.sources),
        }

    def _start(self) -> psutil.Popen:
        if self.starts and (running := self._running):
            return running
        command = [sys.executable, "-m", "privdiff_infer", "anonymize", str(self.sources)]
        command += ["-o", str(self.out), "--model", str(self.bundle), "--device", "cpu"]
        command += ["--workers", str(WORKERS), *self.options]
        command += ["--resume"] if self.out.exists() else []
        self.starts += 1
        self._process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self._process

    @property
    def _running(self) -> psutil.Popen | None:
        return self._process if self._process.poll() is None else None

    def _attack(self, driver: psutil.Popen, at: int, attack: str) -> bool:
        """Do what the plan says once so many images are done; tell whether it was done."""
        if self._follow(driver, at) is not None:
            return True  # the run came to its end before
        workers = workers_of(driver)
        if attack == KILL_WORKER:
            if not workers:
                return False
            os.kill(workers[0].pid, signal.SIGKILL)
            self.events.append({"attack": attack, "after": self._done()})
            return True
        number = signal.SIGKILL if attack == KILL_DRIVER else signal.SIGINT
        driver.send_signal(number)
        code = driver.wait(SECONDS_TO_END)
        _, left = psutil.wait_procs(workers, timeout=SECONDS_TO_END)
        event = {"attack": attack, "after": self._done(), "exit_code": code}
        self.events.append(event | {"workers_left": len(left)})
        return True

    def _follow(self, driver: psutil.Popen, until: int) -> int | None:
        """Sample memory until so many images are done; return the exit code if the run ended."""
        while (code := driver.poll()) is None:
            if (done := self._done()) >= until:
                return None
            with_memory = memory_of(driver)
            if with_memory:
                self.memory.append((done, *with_memory))
            time.sleep(SECONDS_BETWEEN_SAMPLES)
        return int(code)

    def _done(self) -> int:
        return sum(1 for _ in (self.out / "release/images").glob("cxr-*"))

    def _memory_at_shares(self) -> list[dict[str, float]]:
        """Return the median memory in each tenth of the run."""
        tenths: dict[int, list[tuple[float, float]]] = {}
        for done, driver, worker in self.memory:
            if worker:  # while workers start, there is nothing to see
                tenths.setdefault(min(10 * done // self.total, 9), []).append((driver, worker))
        return [
            {
                "tenth": tenth + 1,
                "driver": round(sorted(d for d, _ in samples)[len(samples) // 2], 1),
                "worker": round(sorted(w for _, w in samples)[len(samples) // 2], 1),
            }
            for tenth, samples in sorted(tenths.items())
        ]


def workers_of(driver: psutil.Popen) -> list[psutil.Process]:
    """Return the processes that work for a driver, apart from Python's trackers of resources."""
    try:
        children = driver.children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def memory_of(driver: psutil.Popen) -> tuple[float, float] | None:
    """Return the MB of a driver and of its largest worker."""
    try:
        workers = [worker.memory_info().rss for worker in workers_of(driver)]
        return driver.memory_info().rss / MB, max(workers, default=0) / MB
    except psutil.Error:
        return None


def accounts(out: Path, sources: Path) -> dict[str, Any]:
    """Compare sources, rows, results and the audit log of a finished run."""
    folders = OutputFolders(out)
    with folders.crosswalk.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    named = Counter(row["source"] for row in rows)
    outputs = Counter(row["output"] for row in rows if row["output"])
    files = {f"release/images/{path.name}" for path in folders.images.iterdir()}
    files |= {f"private/held/{path.name}" for path in folders.held.iterdir()}
    wanted = {str(path) for path in sources.iterdir()}
    told = Counter(outputs_told(folders))
    found = verify(out, load_audit_key())
    return {
        "status": dict(Counter(row["status"] for row in rows)),
        "sources_without_row": len(wanted - named.keys()),
        "rows_without_source": len(named.keys() - wanted),
        "sources_with_several_rows": sum(number > 1 for number in named.values()),
        "results_of_several_sources": sum(number > 1 for number in outputs.values()),
        "files_without_row": len(files - outputs.keys()),
        "rows_without_file": len(outputs.keys() - files),
        "results_told_twice": sum(number > 1 for number in told.values()),
        "audit_entries": found.entries,
        "audit_sealed": bool(found.sealed),
        "verify_findings": [str(finding) for finding in found.findings],
        "bytes": sizes(folders, len(rows)),
    }


def outputs_told(folders: OutputFolders) -> Iterator[str]:
    """Yield the result of every entry that tells of one, as often as the log does."""
    with AuditLog(folders.audit, load_audit_key()) as log:
        for entry in log:
            if entry.event in (Event.IMAGE_RELEASED, Event.IMAGE_HELD) and "output" in entry.facts:
                yield str(entry.facts["output"])


def sizes(folders: OutputFolders, rows: int) -> dict[str, int]:
    """Return the bytes of an image in each part of OUT."""
    parts = {
        "results": folders.images,
        "previews": folders.previews,
        "held": folders.held,
        "review_pictures": folders.review,
        "journal": folders.journal,
        "audit": folders.audit,
        "crosswalk": folders.crosswalk,
        "report_json": folders.release / "report.json",
        "report_html": folders.report,
        "review_html": folders.review_page,
    }
    return {name: _bytes(path) // max(rows, 1) for name, path in parts.items()}


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir())
    return path.stat().st_size if path.exists() else 0
