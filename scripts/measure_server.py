"""Measure a running server: answers while jobs run, kills, priorities, memory.

Starts real servers (`privdiff serve`) on free loopback ports with keys and STATE in a temporary
folder, and ends them. The bundle is the embedded one unless `--bundle` names another; images are
the package's sample with noise. Run from the repository, on a machine that does nothing else:

    python scripts/measure_server.py -o server.json
    python scripts/measure_server.py --part answers --seconds 20 --bundle BUNDLE

Parts: `answers` (p50, p95, p99 of /info/ and of one job's status while jobs run), `kills` (queued
jobs, with kill -9 of server, dispatcher and workers on the way), `overtaking` (an interactive job
against a full batch queue), `memory` (of server, dispatcher and workers over many jobs).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "training")]

from privdiff_infer.audit import load_audit_key  # noqa: E402
from privdiff_infer.model.bundle import find_bundle, read_bundle  # noqa: E402
from privdiff_infer.verification import verify  # noqa: E402
from privdiff_infer.vocabulary import DEFAULT_BUNDLE  # noqa: E402
from tests.integration.server import RunningServer, running_server  # noqa: E402

MACHINE_IS_DONE = frozenset({"awaiting_review", "held", "failed"})
PER_REQUEST = 50
SECONDS_BETWEEN_SAMPLES = 0.05
WAIT_SECONDS = 4 * 3600
MB = 2**20


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    folder
        For everything that is written.
    bundle
        Folder of the model.
    options
        Of the command line.
    """

    folder: Path
    bundle: Path
    options: argparse.Namespace

    @contextmanager
    def server(self, name: str) -> Iterator[RunningServer]:
        """Run a server whose STATE is called `name`, and which finds it again."""
        folder = self.folder / name
        (folder / "studies").mkdir(parents=True, exist_ok=True)
        with running_server(folder, folder / "studies", bundle=self.bundle) as running:
            yield running


def picture(seed: int) -> bytes:
    """Return a PNG that no other seed gives: a radiograph of nobody, with faint noise."""
    samples = sorted((ROOT / "privdiff_infer" / "sample").glob("*.png"))
    pixels = np.asarray(Image.open(samples[seed % len(samples)]).convert("L"), dtype=np.float32)
    noise = np.random.default_rng(seed).normal(0, 1, pixels.shape)
    image = Image.fromarray(np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8))
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def add_jobs(
    server: RunningServer, count: int, priority: str = "batch", first: int = 0
) -> list[str]:
    """Queue so many images; return the ids of their jobs."""
    ids: list[str] = []
    while len(ids) < count:
        part = range(first + len(ids), first + min(count, len(ids) + PER_REQUEST))
        files = [("files", (f"{seed}.png", picture(seed))) for seed in part]
        answer = server.post(
            "/privdiff/v1/jobs",
            files=files,
            data={"profile": "fast", "priority": priority},
            headers={"Idempotency-Key": f"{priority}-{part.start}"},
            timeout=300,
        )
        answer.raise_for_status()
        ids += [job["id"] for job in answer.json()["jobs"]]
    return ids


def counts(server: RunningServer) -> dict[str, int]:
    """Return how many jobs there are in every state."""
    answer = server.get("/privdiff/v1/jobs", params={"limit": 1})
    answer.raise_for_status()
    return dict(answer.json()["counts"])


def done(server: RunningServer) -> int:
    """Return how many jobs the machine is done with."""
    return sum(number for state, number in counts(server).items() if state in MACHINE_IS_DONE)


def _has_done(server: RunningServer, count: int) -> bool:
    return done(server) >= count


def wait_until(condition: Callable[[], bool], pause: float = 0.5) -> None:
    """Wait; a server that is being killed does not answer, which is waited for too."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if condition():
                return
        time.sleep(pause)
    raise SystemExit("it did not end in time")


def processes(server: RunningServer) -> dict[str, list[psutil.Process]]:
    """Return the processes of a server by what they are."""
    found: dict[str, list[psutil.Process]] = {"server": [], "dispatcher": [], "worker": []}
    found["server"].append(psutil.Process(server.process.pid))
    for child in found["server"][0].children(recursive=True):
        with contextlib.suppress(psutil.Error):
            command = " ".join(child.cmdline())
            if "jobs.dispatcher" in command:
                found["dispatcher"].append(child)
            elif "spawn_main" in command:
                found["worker"].append(child)
    return found


def measure_answers(plan: Plan) -> dict[str, Any]:
    """Measure how fast the server answers while jobs run."""
    with plan.server("answers") as server:
        (first,) = add_jobs(server, 1)
        wait_until(lambda: done(server) == 1)
        add_jobs(server, plan.options.jobs, first=1)
        took: dict[str, list[float]] = {"/info/": [], f"/privdiff/v1/jobs/{first}": []}
        busy = 0
        end = time.monotonic() + plan.options.seconds
        with requests.Session() as session:
            while time.monotonic() < end:
                for path, times in took.items():
                    began = time.perf_counter()
                    session.get(server.url + path, timeout=60).raise_for_status()
                    times.append((time.perf_counter() - began) * 1000)
                busy += counts(server)["running"] > 0
                time.sleep(SECONDS_BETWEEN_SAMPLES)
        names = ("info_ms", "job_status_ms")
        return {
            **{name: _percentiles(times) for name, times in zip(names, took.values(), strict=True)},
            "samples": len(took["/info/"]),
            "while_jobs_ran": f"{busy} of {len(took['/info/'])}",
        }


def measure_kills(plan: Plan) -> dict[str, Any]:
    """Queue jobs, kill processes on the way, and count what became of every job."""
    chance = random.Random(0)
    kills: Counter[str] = Counter()
    ids: list[str] = []
    began = time.monotonic()
    marks = [
        plan.options.queue * part // (plan.options.kills + 1)
        for part in range(1, plan.options.kills + 1)
    ]
    order = [("worker", "dispatcher", "server")[turn % 3] for turn in range(len(marks))]
    turns = list(zip(marks, order, strict=True))
    while True:
        with plan.server("kills") as server:
            ids = ids or add_jobs(server, plan.options.queue)
            while turns and turns[0][1] != "server":
                _kill_at(server, *turns.pop(0), kills, chance)
            if not turns:
                wait_until(partial(_has_done, server, len(ids)))
                jobs = {job_id: server.get(f"/privdiff/v1/jobs/{job_id}").json() for job_id in ids}
                break
            _kill_at(server, *turns.pop(0), kills, chance)
    return {
        "jobs": len(ids),
        "seconds": round(time.monotonic() - began),
        "kills": dict(kills),
        "states": dict(Counter(job["state"] for job in jobs.values())),
        **_what_is_on_disk(plan.folder / "kills" / "state", jobs),
    }


def _kill_at(
    server: RunningServer, mark: int, what: str, kills: Counter[str], chance: random.Random
) -> None:
    """Kill a process once so many jobs are done, at some moment of the next one."""
    wait_until(lambda: done(server) >= mark)
    time.sleep(chance.random())
    for process in processes(server)[what][:1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
            kills[what] += 1


def _what_is_on_disk(state: Path, jobs: dict[str, Any]) -> dict[str, Any]:
    """Return how many results there are of every job, and whether their logs verify."""
    key = load_audit_key()
    results = {
        job_id: list((state / "jobs" / job_id / "release/images").glob("*")) for job_id in jobs
    }
    with_result = [job_id for job_id, job in jobs.items() if job["sha256"]]
    return {
        "lost": sum(job["state"] not in MACHINE_IS_DONE for job in jobs.values()),
        "with_more_than_one_result": sum(len(found) > 1 for found in results.values()),
        "published": sum(job["published"] is not None for job in jobs.values()),
        "folders_that_verify": sum(
            not verify(state / "jobs" / job_id, key).findings for job_id in with_result
        ),
        "begun_more_than_once": sum(job["attempts"] > 1 for job in jobs.values()),
    }


def measure_overtaking(plan: Plan) -> dict[str, Any]:
    """Queue an interactive job behind a full batch queue."""
    with plan.server("overtaking") as server:
        add_jobs(server, plan.options.jobs)
        wait_until(lambda: done(server) >= 2)
        before = done(server)
        began = time.monotonic()
        (urgent,) = add_jobs(server, 1, "interactive", first=10**6)
        server.wait_for_job(urgent, WAIT_SECONDS)
        return {
            "batch_queue": plan.options.jobs,
            "seconds": round(time.monotonic() - began, 2),
            "batch_jobs_done_meanwhile": done(server) - before - 1,
            "batch_jobs_overtaken": plan.options.jobs - done(server) + 1,
        }


def measure_memory(plan: Plan) -> dict[str, Any]:
    """Measure resident memory after a tenth of the jobs and at the end."""
    with plan.server("memory") as server:
        add_jobs(server, plan.options.memory_jobs)
        wait_until(lambda: done(server) >= plan.options.memory_jobs // 10)
        early = _memory(server)
        wait_until(lambda: done(server) == plan.options.memory_jobs)
        late = _memory(server)
    return {
        "jobs": plan.options.memory_jobs,
        **{name: {"early_mb": early[name], "late_mb": late[name]} for name in early},
    }


def _memory(server: RunningServer) -> dict[str, int]:
    return {
        name: sum(process.memory_info().rss for process in found) // MB
        for name, found in processes(server).items()
    }


def _percentiles(times: list[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(times, q)), 1) for q in (50, 95, 99)}


PARTS: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "answers": measure_answers,
    "kills": measure_kills,
    "overtaking": measure_overtaking,
    "memory": measure_memory,
}


def print_table(part: str, figures: dict[str, Any]) -> None:
    """Print a part as lines of name and value."""
    print(f"\n{part}")
    for name, value in figures.items():
        parts = value.items() if isinstance(value, dict) else [(value, "")]
        text = ", ".join(f"{key} {figure}".strip() for key, figure in parts)
        print(f"  {name.replace('_', ' '):<28} {text}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="may be repeated; all")
    parser.add_argument("--bundle", default=DEFAULT_BUNDLE, help="name or folder")
    parser.add_argument("--seconds", type=float, default=120, help="of answers")
    parser.add_argument("--jobs", type=int, default=200, help="queue of answers and overtaking")
    parser.add_argument("--queue", type=int, default=1000, help="jobs of kills")
    parser.add_argument("--kills", type=int, default=9, help="number of kills")
    parser.add_argument("--memory-jobs", type=int, default=500, help="jobs of memory")
    parser.add_argument("-o", "--output", type=Path, help="JSON file")
    return parser.parse_args()


def main() -> None:
    """Measure the parts that were asked for."""
    options = arguments()
    bundle = find_bundle(options.bundle).resolve()
    info = read_bundle(bundle)
    found: dict[str, Any] = {
        "model": f"{info.name} {info.version}",
        "images": "the sample of the package with faint noise",
        "profile": "fast",
        "processors": os.cpu_count(),
    }
    print(", ".join(f"{name}: {value}" for name, value in found.items()))
    with tempfile.TemporaryDirectory(prefix="privdiff-measure-") as folder:
        for variable, name in (
            ("PRIVDIFF_KEY_FILE", "key"),
            ("PRIVDIFF_AUDIT_KEY_FILE", "audit-key"),
        ):
            key = Path(folder) / name
            key.touch(mode=0o600)
            key.write_text(os.urandom(32).hex() + "\n")
            os.environ[variable] = str(key)
        for part in options.part or PARTS:
            found[part] = PARTS[part](Plan(Path(folder), bundle, options))
            print_table(part, found[part])
            if options.output:
                options.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
