"""How fast each profile of a bundle is on this machine, and how much memory it takes."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from privdiff_infer.anonymizer import Anonymizer, AnonymizerOptions
from privdiff_infer.radiograph import read_radiograph
from privdiff_infer.vocabulary import Precision, Profile

_COLD_START = (
    "import sys; from pathlib import Path; from privdiff_infer.anonymizer import *; "
    "Anonymizer.from_bundle(Path(sys.argv[1]), AnonymizerOptions(device=sys.argv[2]))"
)


@dataclass(frozen=True)
class ProfileSpeed:
    """Seconds per image of one profile: median and extremes of the timed images."""

    profile: str
    strength: float
    attempts: float
    median: float
    fastest: float
    slowest: float


@dataclass(frozen=True)
class BenchmarkResult:
    """What `privdiff benchmark` prints.

    Attributes
    ----------
    machine
        Processor, device, threads and torch version.
    cold_start
        Seconds from starting Python to a loaded bundle.
    peak_memory
        Largest resident size of this process in bytes.
    profiles
        One entry per profile that the bundle has an operating point for.
    """

    machine: str
    cold_start: float
    peak_memory: int
    profiles: tuple[ProfileSpeed, ...]

    def to_record(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self)


def run_benchmark(
    bundle: Path, image: Path, repeat: int, device: str, precision: Precision, threads: int
) -> BenchmarkResult:
    """Time reading, redrawing and checking one image, gates and repeated attempts included.

    Parameters
    ----------
    bundle
        Folder of the bundle.
    image
        A radiograph.
    repeat
        Timed images per profile, after one that is not timed.
    device, precision, threads
        As for `privdiff anonymize`.
    """
    cold_start = _cold_start(bundle, device)
    speeds = []
    placed = ""
    for profile in Profile:
        options = AnonymizerOptions(
            profile=profile, device=device, precision=precision, threads=threads
        )
        anonymizer = Anonymizer.from_bundle(bundle, options)
        placed = str(anonymizer.pipeline.device)
        speeds.append(_time(anonymizer, image, repeat))
    return BenchmarkResult(
        machine=f"{platform.machine()}, {placed}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}",
        cold_start=cold_start,
        peak_memory=_peak_memory(),
        profiles=tuple(speeds),
    )


def format_table(result: BenchmarkResult) -> str:
    """Return the result as a table for people."""
    lines = [
        result.machine,
        f"cold start {result.cold_start:.1f} s, peak memory {result.peak_memory / 2**20:.0f} MiB",
        f"{'profile':10} {'strength':>8} {'attempts':>8} {'s/image':>8} "
        f"{'fastest':>8} {'slowest':>8}",
    ]
    lines += [
        f"{speed.profile:10} {speed.strength:8.2f} {speed.attempts:8.1f} {speed.median:8.2f} "
        f"{speed.fastest:8.2f} {speed.slowest:8.2f}"
        for speed in result.profiles
    ]
    return "\n".join(lines)


def _time(anonymizer: Anonymizer, image: Path, repeat: int) -> ProfileSpeed:
    seconds = []
    attempts = []
    for seed in range(repeat + 1):
        start = time.perf_counter()
        result = anonymizer.anonymize(read_radiograph(image), seed)
        seconds.append(time.perf_counter() - start)
        attempts.append(result.attempts)
    timed = seconds[1:]
    return ProfileSpeed(
        profile=anonymizer.options.profile.value,
        strength=anonymizer.strength,
        attempts=statistics.fmean(attempts[1:]),
        median=statistics.median(timed),
        fastest=min(timed),
        slowest=max(timed),
    )


def _cold_start(bundle: Path, device: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", _COLD_START, str(bundle), device], check=True)
    return time.perf_counter() - start


def _peak_memory() -> int:
    """Return the peak resident size; where the system does not keep it, the present one."""
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return int(memory.peak_wset)
    try:
        import resource
    except ImportError:
        return int(memory.rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
