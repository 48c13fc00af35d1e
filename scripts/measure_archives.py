"""Measure runs over whole archives: scaling, overhead of the driver, and a siege.

Writes docs/results/archives.json, and docs/results/archives.md from it. Parts that are not named
keep the figures that they have there. Run from the repository, on a machine that does nothing else:

    python scripts/measure_archives.py
    python scripts/measure_archives.py --part siege --images 500

Parts: `scaling` (images a second of one process, of `--workers 2`, and of two runs at once, which
is what the cores give), `overhead` (seconds of the driver for one image, with jobs that do
nothing), `storage` (bytes of one image in every part of OUT, with the embedded bundle and DICOM),
`siege` (a long run with kill -9 of workers and of the driver; see `archive_siege.py`).
The siege uses a bundle of random weights of a few thousand parameters and small generated images,
for it is about robustness; `scaling` uses the embedded bundle and its sample with faint noise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "training"), str(ROOT / "scripts")]

from archive_report import write_document  # noqa: E402
from archive_siege import Siege, sizes  # noqa: E402

from privdiff_infer.audit import AuditLog, Event, load_audit_key  # noqa: E402
from privdiff_infer.batch import run_jobs  # noqa: E402
from privdiff_infer.burned_in_text import TextState  # noqa: E402
from privdiff_infer.journal import Figures, Journal, Outcome  # noqa: E402
from privdiff_infer.model.bundle import find_bundle, read_bundle  # noqa: E402
from privdiff_infer.release import OutputFolders, Row, Status, write_json  # noqa: E402
from privdiff_infer.sources import Source  # noqa: E402
from privdiff_infer.vocabulary import DEFAULT_BUNDLE, FINDINGS  # noqa: E402

RESULT = ROOT / "docs" / "results" / "archives.json"
SIEGE_SHAPE = (64, 512)
"""Small, and so flat that its review pictures are small too: they would take most of the time."""
SIEGE_OPTIONS = ("--profile", "fast", "--steps", "1", "--seed", "1", "--format", "png")
RESULT_EVENTS = (Event.IMAGE_RELEASED, Event.IMAGE_HELD)
STORAGE_IMAGES = 16
WARM_UP = 3
"""Images of each process that do not count: caches and threads are cold."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    folder
        For everything that is written.
    options
        Of the command line.
    """

    folder: Path
    options: argparse.Namespace


def main() -> int:
    """Measure the parts that were asked for, and write what is known."""
    options = arguments()
    known = json.loads(options.output.read_text()) if options.output.exists() else {}
    for part in options.part or PARTS:
        with fresh_folder(options.folder) as folder:
            known[part] = {"machine": machine(), **PARTS[part](Plan(folder, options))}
        write_json(options.output, known)
        print(json.dumps(known[part], indent=2))
    write_document(options.output)
    return 0


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="all by default")
    parser.add_argument("--images", type=int, default=10_000, help="of the siege")
    parser.add_argument("--scaling-images", type=int, default=120, help="of each run of scaling")
    parser.add_argument("--jobs", type=int, default=2_000, help="that do nothing, of overhead")
    parser.add_argument("--folder", type=Path, help="for what is written; a temporary one")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    return parser.parse_args()


@contextmanager
def fresh_folder(parent: Path | None) -> Iterator[Path]:
    """Give a folder with keys of its own, which the processes that are started find too."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="archives-") as name:
        folder = Path(name)
        for variable in ("PRIVDIFF_KEY_FILE", "PRIVDIFF_AUDIT_KEY_FILE"):
            key = folder / variable.lower()
            key.touch(mode=0o600)
            key.write_text(os.urandom(32).hex())
            os.environ[variable] = str(key)
        yield folder


def machine() -> str:
    """Return what the figures depend on."""
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, load {load:.1f} as it ended, {psutil.virtual_memory().total >> 30} GB"


def measure_scaling(plan: Plan) -> dict[str, Any]:
    """Return images a second of one process, of two workers, and of two runs at once."""
    number = plan.options.scaling_images
    bundle = find_bundle(DEFAULT_BUNDLE)
    for name in ("whole", "left", "right"):
        (plan.folder / name).mkdir()
    for index in range(number):
        content = noisy_sample(index)
        (plan.folder / "whole" / f"{index:05}.png").write_bytes(content)
        half = "left" if index % 2 else "right"
        (plan.folder / half / f"{index:05}.png").write_bytes(content)
    one = finished(plan, bundle, {"one": "whole"}, 1)
    both = finished(plan, bundle, {"first": "left", "second": "right"}, 1)
    two = finished(plan, bundle, {"two": "whole"}, 2)
    rates = {name: rate(moments) for name, moments in (("one", one), ("two", two), ("both", both))}
    info = read_bundle(bundle)
    return {
        "bundle": f"{info.name} {info.version}",
        "profile": "standard",
        "images": number,
        "one_process": rates["one"],
        "two_workers": rates["two"],
        "two_runs_at_once": rates["both"],
        "speedup": rates["two"] / rates["one"],
        "what_the_cores_give": rates["both"] / rates["one"],
        "efficiency": rates["two"] / rates["both"],
    }


def finished(
    plan: Plan, bundle: Path, runs: dict[str, str], workers: int, *more: str
) -> list[list[datetime]]:
    """Do runs at once, with further options; return the moments in which each had an image."""
    command = [sys.executable, "-m", "privdiff_infer", "anonymize", "--model", str(bundle)]
    command += ["--seed", "1", "--device", "cpu", "--workers", str(workers), *more]
    started = [
        subprocess.Popen(
            [*command, str(plan.folder / sources), "-o", str(plan.folder / f"out-{name}")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name, sources in runs.items()
    ]
    for process in started:
        process.wait()
    return [moments(OutputFolders(plan.folder / f"out-{name}"), workers) for name in runs]


def moments(folders: OutputFolders, workers: int) -> list[datetime]:
    """Return when results were told to the audit log, without the first of each process."""
    with AuditLog(folders.audit, load_audit_key()) as log:
        times = [datetime.fromisoformat(e.time) for e in log if e.event in RESULT_EVENTS]
    return times[WARM_UP * workers :]


def rate(runs: list[list[datetime]]) -> float:
    """Return the images a second while all runs were at work."""
    begin, end = max(times[0] for times in runs), min(times[-1] for times in runs)
    inside = sum(begin < moment <= end for times in runs for moment in times)
    return inside / (end - begin).total_seconds()


def noisy_sample(seed: int) -> bytes:
    """Return a PNG that no other seed gives: a radiograph of nobody, with faint noise."""
    samples = sorted((ROOT / "privdiff_infer" / "sample").glob("*.png"))
    pixels = np.asarray(Image.open(samples[seed % len(samples)]).convert("L"), dtype=np.float32)
    noise = np.random.default_rng(seed).normal(0, 1, pixels.shape)
    buffer = BytesIO()
    image = Image.fromarray(np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def measure_overhead(plan: Plan) -> dict[str, Any]:
    """Return the seconds of the driver for one image, with and without dask."""
    number = plan.options.jobs
    sources: list[Source] = [plan.folder / f"{index:06}.png" for index in range(number)]
    return {
        "jobs": number,
        "driver_seconds": timed(plan.folder / "dask", sources, 2),
        "journal_and_audit_seconds": timed(plan.folder / "alone", sources, 1),
    }


def timed(out: Path, sources: list[Source], workers: int) -> dict[str, float]:
    """Return what one image costs the driver if redrawing takes no time."""
    folders = OutputFolders(out)
    folders.create()
    with AuditLog(folders.audit, load_audit_key()) as log:
        outcomes = run_jobs(sources, folders, Journal(folders, log), idle, workers)
        for _ in range(WARM_UP * workers):
            next(outcomes)
        process = psutil.Process()
        wall, cpu = time.perf_counter(), process.cpu_times()
        left = 0
        for _ in outcomes:
            left += 1
            if left == len(sources) - 2 * WARM_UP * workers:  # before the workers end
                break
        wall, now = time.perf_counter() - wall, process.cpu_times()
        outcomes.close()
    used = now.user + now.system - cpu.user - cpu.system
    return {"wall": wall / left, "cpu": used / left}


def idle() -> Callable[[Source], Outcome]:
    """Make a job that says at once what a job says that redraws."""
    return outcome_of


def outcome_of(source: Source) -> Outcome:
    """Return an outcome of the usual length."""
    probabilities = dict.fromkeys(FINDINGS, 0.123456789)
    name = Path(str(source)).stem
    row = Row(str(source), "", f"private/held/cxr-{name}.png", "0" * 64, Status.HELD, "")
    figures = Figures(0.5, probabilities, probabilities, 0.7, 1, TextState.CHECKED, 0, 0)
    return Outcome(row, "", "0" * 64, figures)


def measure_storage(plan: Plan) -> dict[str, Any]:
    """Return the bytes of an image in every part of OUT."""
    (plan.folder / "whole").mkdir()
    for index in range(STORAGE_IMAGES):
        (plan.folder / "whole" / f"{index:05}.png").write_bytes(noisy_sample(index))
    bundle = find_bundle(DEFAULT_BUNDLE)
    finished(plan, bundle, {"storage": "whole"}, 1, "--format", "dicom")
    folders = OutputFolders(plan.folder / "out-storage")
    return {"images": STORAGE_IMAGES, "format": "dicom", "bytes": sizes(folders, STORAGE_IMAGES)}


def measure_siege(plan: Plan) -> dict[str, Any]:
    """Return what became of a long run that was killed on the way."""
    bundle, sources = plan.folder / "bundle", plan.folder / "sources"
    write_tiny_bundle(bundle)
    sources.mkdir()
    for index in range(plan.options.images):
        write_small_image(sources / f"{index:06}.png", index)
    siege = Siege(sources, plan.folder / "out", bundle, SIEGE_OPTIONS, plan.options.images)
    return {"bundle": "random weights, a few thousand parameters", **siege.run()}


def write_tiny_bundle(folder: Path) -> None:
    """Write the bundle of random weights that the tests use."""
    from privdiff_training.assemble import write_metadata

    from tests.conftest import tiny_metadata
    from tests.unit.tiny import tiny_pipeline

    tiny_pipeline().save_pretrained(folder)
    (folder / "README.md").write_text("A bundle of random weights.\n")
    write_metadata(folder, tiny_metadata())


def write_small_image(path: Path, seed: int) -> None:
    """Write a smooth random PNG of 8 bits."""
    coarse = np.random.default_rng(seed).random((5, 4)) * 255
    image = Image.fromarray(coarse.astype(np.uint8))
    image.resize(SIEGE_SHAPE, Image.Resampling.BICUBIC).save(path)


PARTS: dict[str, Callable[[Plan], dict[str, Any]]] = {
    "scaling": measure_scaling,
    "overhead": measure_overhead,
    "storage": measure_storage,
    "siege": measure_siege,
}

if __name__ == "__main__":
    sys.exit(main())
