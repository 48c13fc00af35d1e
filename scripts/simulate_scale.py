"""Simulate a driver and its workers with measured times: where does one driver saturate?

Reads docs/results/archives.json and docs/results/speed.json, writes docs/results/scale.json and
scale.png, and the figures in docs/explanation/scale.md, between its two markers. Run from the
repository, as often as one of the two changes:

    python scripts/simulate_scale.py

A discrete-event simulation. The driver is a single server: each answer of a worker waits in its
queue, takes the measured time of the driver for one image, and then the worker is given another
source. A worker does one image at a time and has one more beside it, as `job_keeper.py` has it.
Times of images are drawn from the triangular distribution of the fastest, median and slowest that
were measured. A speed-up stands for faster hardware, such as a GPU, and is an assumption.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from scale_figures import driver_seconds, write_figures  # noqa: E402

from privdiff_infer.release import write_json  # noqa: E402

RESULTS = ROOT / "docs" / "results"
DOCUMENT = ROOT / "docs" / "explanation" / "scale.md"
WORKERS = tuple(2**power for power in range(13))
SPEEDUPS = (1, 20)
PROFILES = ("standard", "fast")
IMAGES_A_WORKER = 30
LEAST_IMAGES = 2_000
TASKS_A_WORKER = 2
SEED = 1
SATURATED = 0.9
"""Below this efficiency more workers are of little use."""


@dataclass(frozen=True)
class Times:
    """Measured seconds.

    Attributes
    ----------
    driver
        Of the driver for one image.
    fastest, median, slowest
        Of a worker for one image.
    """

    driver: float
    fastest: float
    median: float
    slowest: float

    @property
    def mean(self) -> float:
        """Of the triangular distribution."""
        return (self.fastest + self.median + self.slowest) / 3

    def draw(self, chance: random.Random) -> float:
        """Return the seconds of one image."""
        return chance.triangular(self.fastest, self.slowest, self.median)


@dataclass(frozen=True)
class Point:
    """What so many workers give.

    Attributes
    ----------
    workers
        Their number.
    images_per_second
        In the steady state.
    efficiency
        Share of what as many workers would give if the driver took no time.
    driver_busy
        Share of the time in which the driver works.
    """

    workers: int
    images_per_second: float
    efficiency: float
    driver_busy: float


def simulate(times: Times, workers: int, images: int, seed: int) -> Point:
    """Simulate a run of so many images from an idle start; the first third does not count.

    Parameters
    ----------
    times
        Measured.
    workers
        Their number.
    images
        That are done.
    seed
        Of the times that are drawn.

    Examples
    --------
    >>> point = simulate(Times(0.0, 0.5, 1.0, 1.5), 4, 4000, 1)
    >>> round(point.images_per_second, 1), round(point.efficiency, 1)
    (4.0, 1.0)
    >>> round(simulate(Times(0.5, 1.0, 1.0, 1.0), 100, 3000, 1).images_per_second, 2)
    2.0
    """
    chance = random.Random(seed)
    beside = [TASKS_A_WORKER - 1] * workers
    finished = [(times.draw(chance), worker) for worker in range(workers)]
    heapq.heapify(finished)
    free_at, idle, answered = 0.0, set[int](), []
    pending: list[tuple[float, int]] = []  # (when the driver gives another source, worker)
    while len(answered) < images:
        if pending and (not finished or pending[0][0] <= finished[0][0]):
            now, worker = heapq.heappop(pending)
            answered.append(now)
            if worker in idle:
                idle.remove(worker)
                heapq.heappush(finished, (now + times.draw(chance), worker))
            else:
                beside[worker] += 1
            continue
        now, worker = heapq.heappop(finished)
        free_at = max(free_at, now) + times.driver
        heapq.heappush(pending, (free_at, worker))
        if beside[worker]:
            beside[worker] -= 1
            heapq.heappush(finished, (now + times.draw(chance), worker))
        else:
            idle.add(worker)
    counted = answered[images // 3 :]
    rate = (len(counted) - 1) / (counted[-1] - counted[0])
    return Point(workers, rate, rate * times.mean / workers, rate * times.driver)


def curve(times: Times) -> list[Point]:
    """Return the points of all numbers of workers."""
    return list(_points(times))


def _points(times: Times) -> Iterator[Point]:
    for workers in WORKERS:
        yield simulate(times, workers, max(LEAST_IMAGES, IMAGES_A_WORKER * workers), SEED)


def measured(archives: dict[str, Any], speed: dict[str, Any], profile: str, speedup: int) -> Times:
    """Return the times of a profile, on hardware that is so much faster than what was measured."""
    seconds = next(file["seconds"] for file in speed["files"] if file["profile"] == profile)
    return Times(
        driver_seconds(archives),
        seconds["fastest"] / speedup,
        seconds["median"] / speedup,
        seconds["slowest"] / speedup,
    )


def simulated(archives: dict[str, Any], speed: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the curve of every profile at every speed-up."""
    curves = []
    for profile in PROFILES:
        for speedup in SPEEDUPS:
            times = measured(archives, speed, profile, speedup)
            points = curve(times)
            full = [point.workers for point in points if point.efficiency >= SATURATED]
            curves.append(
                {
                    "profile": profile,
                    "speedup": speedup,
                    "times": asdict(times),
                    "saturates_at_images_per_second": 1 / times.driver,
                    "most_workers": max(full, default=0),
                    "points": [asdict(point) for point in points],
                }
            )
    return curves


def draw(curves: list[dict[str, Any]], picture: Path) -> None:
    """Draw images a second over workers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for one in curves:
        label = f"{one['profile']}, measured CPU"
        if one["speedup"] > 1:
            label = f"{one['profile']}, {one['speedup']} times as fast (assumed)"
        rates = [point["images_per_second"] for point in one["points"]]
        axes.plot([point["workers"] for point in one["points"]], rates, marker="o", label=label)
    limit = curves[0]["saturates_at_images_per_second"]
    axes.axhline(limit, color="black", linestyle=":", label="one driver, at most")
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="images a second")
    axes.set_xticks(WORKERS, [str(number) for number in WORKERS], rotation=45)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(picture, dpi=120, metadata={"Software": None})


def main() -> int:
    """Simulate, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the figures")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    options = parser.parse_args()
    archives = json.loads((options.results / "archives.json").read_text())
    speed = json.loads((options.results / "speed.json").read_text())
    curves = simulated(archives, speed)
    write_json(options.results / "scale.json", {"saturated_below": SATURATED, "curves": curves})
    draw(curves, options.results / "scale.png")
    write_figures(options.document, archives, speed, curves)
    return 0


if __name__ == "__main__":
    sys.exit(main())
