"""How fast each profile of a bundle is on this machine, and how much memory it takes."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from privdiff_infer.anonymizer import Anonymizer, AnonymizerOptions, operating_strength
from privdiff_infer.device import pick_device
from privdiff_infer.model.bundle import BundleInfo, read_bundle
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.model.guidance import Guidance, guided_prediction, sensitive_branch
from privdiff_infer.model_grid import to_model_grid
from privdiff_infer.pipeline import Conditions, PrivDiffPipeline
from privdiff_infer.profiles import ProfileSettings
from privdiff_infer.radiograph import read_radiograph
from privdiff_infer.vocabulary import Precision, Profile

Item = TypeVar("Item")

NAIVE = "naive"
"""The paper's sampler as it is written: 50 steps, three branches, each in a call of its own."""

_LOAD = (
    "import sys; from pathlib import Path; from privdiff_infer.anonymizer import *; "
    "a = Anonymizer.from_bundle(Path(sys.argv[1]), AnonymizerOptions(device=sys.argv[2], "
    "threads=int(sys.argv[3])))"
)
_FIRST_IMAGE = (
    f"{_LOAD}; from privdiff_infer.radiograph import *; "
    "a.anonymize(read_radiograph(Path(sys.argv[4])), 0)"
)


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to time, and on what.

    Attributes
    ----------
    repeat
        Timed calls of each kind, after one that is not timed.
    batch_sizes
        Images per call of the pipeline.
    soak
        Images that are redrawn one after the other to watch the memory; 0 leaves it out.
    device, precision, threads
        As for `privdiff anonymize`.
    """

    repeat: int = 3
    batch_sizes: tuple[int, ...] = (1, 8)
    soak: int = 0
    device: str = "auto"
    precision: Precision = Precision.FLOAT32
    threads: int = 1


@dataclass(frozen=True)
class Seconds:
    """Seconds per image: median and extremes of the timed calls."""

    median: float
    fastest: float
    slowest: float

    @classmethod
    def of(cls, timed: Sequence[float]) -> Seconds:
        """Summarize the seconds per image of several calls."""
        return cls(statistics.median(timed), min(timed), max(timed))


@dataclass(frozen=True)
class SamplerSpeed:
    """Conditions, encoding, sampling and decoding of one batch, without files and gates.

    Attributes
    ----------
    sampler
        Name of a profile, or ``naive``, at the strengths of `standard` and of `fast`.
    strength, batch_size
        Of the timed calls.
    evaluations
        Rows that the denoiser evaluates per image.
    seconds
        Per image.
    images_per_second
        The inverse of the median.
    """

    sampler: str
    strength: float
    batch_size: int
    evaluations: float
    seconds: Seconds
    images_per_second: float


@dataclass(frozen=True)
class FileSpeed:
    """One file from reading to the last gate, repeated attempts included."""

    profile: str
    strength: float
    attempts: float
    seconds: Seconds


@dataclass(frozen=True)
class BenchmarkResult:
    """What `privdiff benchmark` prints.

    Attributes
    ----------
    machine
        Processor, device, threads and torch version.
    help
        Seconds that `privdiff --help` takes.
    cold_start, first_image
        Seconds from starting Python to a loaded bundle, and to the first redrawn image.
    peak_memory
        Largest resident size of this process in bytes.
    soak_memory
        Resident size in bytes after each tenth of the soak; empty without one.
    samplers, files
        One entry per way of sampling and batch size, and one per profile.
    """

    machine: str
    help: float
    cold_start: float
    first_image: float
    peak_memory: int
    soak_memory: tuple[int, ...]
    samplers: tuple[SamplerSpeed, ...]
    files: tuple[FileSpeed, ...]

    def to_record(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self)


def run_benchmark(
    bundle: Path, images: Sequence[Path], options: BenchmarkOptions
) -> BenchmarkResult:
    """Time a bundle on some radiographs.

    Parameters
    ----------
    bundle
        Folder of the bundle.
    images
        Radiographs; they are taken in turn.
    options
        What to time, and on what.
    """
    start = [str(bundle), options.device, str(options.threads)]
    python = [sys.executable, "-c"]
    help_seconds = _wall([sys.executable, "-m", "privdiff_infer", "--help"])
    cold_start = _wall([*python, _LOAD, *start])
    first_image = _wall([*python, _FIRST_IMAGE, *start, str(images[0])])
    return BenchmarkResult(
        samplers=_time_samplers(bundle, images, options),
        files=_time_files(bundle, images, options),
        soak_memory=_soak(bundle, images, options),
        machine=f"{platform.machine()}, {pick_device(options.device)}, {options.threads} threads, "
        f"torch {torch.__version__}",
        help=help_seconds,
        cold_start=cold_start,
        first_image=first_image,
        peak_memory=_peak_memory(),
    )


def format_table(result: BenchmarkResult) -> str:
    """Return the result as a table for people."""
    lines = [
        result.machine,
        f"--help {result.help:.2f} s, cold start {result.cold_start:.1f} s, "
        f"first image after {result.first_image:.1f} s, "
        f"peak memory {result.peak_memory / 2**20:.0f} MiB",
        f"{'sampler':10} {'strength':>8} {'batch':>6} {'evaluations':>11} {'s/image':>8} "
        f"{'images/s':>8}",
    ]
    lines += [
        f"{row.sampler:10} {row.strength:8.2f} {row.batch_size:6d} {row.evaluations:11.0f} "
        f"{row.seconds.median:8.2f} {row.images_per_second:8.2f}"
        for row in result.samplers
    ]
    lines.append(f"{'file':10} {'strength':>8} {'attempts':>8} {'s/image':>8}")
    lines += [
        f"{row.profile:10} {row.strength:8.2f} {row.attempts:8.1f} {row.seconds.median:8.2f}"
        for row in result.files
    ]
    if result.soak_memory:
        sizes = " ".join(f"{size / 2**20:.0f}" for size in result.soak_memory)
        lines.append(f"memory after each tenth of the soak, MiB: {sizes}")
    return "\n".join(lines)


class _NaivePipeline(PrivDiffPipeline):
    """Runs every branch of a guided step in a call of its own, as the paper writes it."""

    def _predict(
        self,
        denoiser: PrivDiffDenoiser,
        latents: Tensor,
        timestep: Tensor,
        index: int,
        conditions: Conditions,
        settings: ProfileSettings,
    ) -> Tensor:
        guidance = settings.guidance or Guidance()
        unconditional, diagnostic, sensitive = (
            denoiser(latents, timestep, condition, settings.sas)
            for condition in (
                conditions.unconditional,
                conditions.findings,
                conditions.sensitive[sensitive_branch(index)],
            )
        )
        return guided_prediction(
            unconditional,
            diagnostic,
            sensitive,
            guidance.findings_weight,
            guidance.attribute_weight,
        )


def _time_samplers(
    bundle: Path, images: Sequence[Path], options: BenchmarkOptions
) -> tuple[SamplerSpeed, ...]:
    info = read_bundle(bundle)
    pipeline = _loaded(bundle, Profile.STANDARD, options).pipeline
    grids = torch.cat([_on_grid(image, info) for image in images])
    naive = _NaivePipeline.from_pretrained(bundle)
    naive.to(pipeline.device, pipeline.dtype)
    strengths = {
        profile: operating_strength(info, AnonymizerOptions(profile)) for profile in Profile
    }
    samplers = [
        (profile.value, pipeline, profile, strength) for profile, strength in strengths.items()
    ]
    of_rivals = sorted({strengths[Profile.STANDARD], strengths[Profile.FAST]})
    samplers += [(NAIVE, naive, Profile.PAPER, strength) for strength in of_rivals]
    timed = list(product(samplers, options.batch_sizes))
    speeds = []
    for (name, sampler, profile, strength), size in _followed(timed, "Timing samplers"):
        batch = grids[torch.arange(size) % len(grids)]
        speeds.append(_time_sampler(name, sampler, batch, profile, strength, options.repeat))
    return tuple(speeds)


def _time_sampler(
    name: str,
    pipeline: PrivDiffPipeline,
    batch: Tensor,
    profile: Profile,
    strength: float,
    repeat: int,
) -> SamplerSpeed:
    evaluated = 0

    def count(module: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nonlocal evaluated
        if isinstance(module, PrivDiffDenoiser):
            evaluated += len(arguments[0])

    def draw(seed: int) -> None:
        generators = [torch.Generator().manual_seed(seed + row) for row in range(len(batch))]
        pipeline(batch, profile=profile, strength=strength, generators=generators)

    hook = torch.nn.modules.module.register_module_forward_pre_hook(count)
    draw(0)  # untimed: the first call also merges and allocates
    hook.remove()
    seconds = Seconds.of([_clock(partial(draw, seed)) / len(batch) for seed in range(repeat)])
    return SamplerSpeed(
        sampler=name,
        strength=strength,
        batch_size=len(batch),
        evaluations=evaluated / len(batch),
        seconds=seconds,
        images_per_second=1 / seconds.median,
    )


def _time_files(
    bundle: Path, images: Sequence[Path], options: BenchmarkOptions
) -> tuple[FileSpeed, ...]:
    speeds = []
    for profile in _followed(list(Profile), "Timing files"):
        anonymizer = _loaded(bundle, profile, options)
        seconds, attempts = [], []
        for seed in range(options.repeat + 1):
            start = time.perf_counter()
            result = anonymizer.anonymize(read_radiograph(images[seed % len(images)]), seed)
            seconds.append(time.perf_counter() - start)
            attempts.append(result.attempts)
        speeds.append(
            FileSpeed(
                profile=profile.value,
                strength=anonymizer.strength,
                attempts=statistics.fmean(attempts[1:]),
                seconds=Seconds.of(seconds[1:]),
            )
        )
    return tuple(speeds)


def _soak(bundle: Path, images: Sequence[Path], options: BenchmarkOptions) -> tuple[int, ...]:
    """Redraw many images with the profile `fast` and watch the memory."""
    if not options.soak:
        return ()
    anonymizer = _loaded(bundle, Profile.FAST, options)
    sizes = []
    for number in _followed(range(options.soak), "Watching the memory"):
        anonymizer.anonymize(read_radiograph(images[number % len(images)]), number)
        if (number + 1) % max(1, options.soak // 10) == 0:
            sizes.append(psutil.Process().memory_info().rss)
    return tuple(sizes)


def _followed(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Show progress on standard error: the result goes to standard output."""
    return track(items, description, console=Console(stderr=True))


def _loaded(bundle: Path, profile: Profile, options: BenchmarkOptions) -> Anonymizer:
    return Anonymizer.from_bundle(
        bundle,
        AnonymizerOptions(
            profile=profile,
            device=options.device,
            precision=options.precision,
            threads=options.threads,
        ),
    )


def _on_grid(image: Path, info: BundleInfo) -> Tensor:
    radiograph = read_radiograph(image)
    grid, _ = to_model_grid(radiograph.pixels, radiograph.spacing_mm, info.metadata.image_size)
    return torch.from_numpy(np.ascontiguousarray(grid))[None, None]


def _wall(command: Sequence[str]) -> float:
    return _clock(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))


def _clock(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
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
