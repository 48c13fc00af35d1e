"""The figures of docs/explanation/scale.md: from what was measured, with the arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archive_report import table

from privdiff_infer.release import write_atomically

BEGIN = "<!-- figures: made by scripts/simulate_scale.py, do not edit -->"
END = "<!-- end of figures -->"

PRICES = {
    "P_core": (0.04, "of one CPU core for an hour"),
    "P_disk": (0.02, "of one GB of object storage for a month"),
    "P_network": (0.05, "of one GB that leaves a data centre"),
}
"""Assumptions, in US dollars; put in your own."""

B_ORIGINAL = 10_000_000
"""Assumed bytes of one original: a digital radiograph, losslessly compressed."""

HALF = 0.5
MILLION, BILLION = 10**6, 10**9
DAY = 86_400
RECORDS = ("journal", "audit", "crosswalk", "report_json", "report_html", "review_html")


def write_figures(
    document: Path,
    archives: dict[str, Any],
    speed: dict[str, Any],
    curves: list[dict[str, Any]],
) -> None:
    """Replace what stands between the two markers of a document."""
    text = document.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    figures = "\n\n".join(
        (times(archives, speed), storage(archives), cost(archives, speed), simulation(curves))
    )
    write_atomically(document, f"{head}{BEGIN}\n\n{figures}\n\n{END}{tail}".encode())


def driver_seconds(archives: dict[str, Any]) -> float:
    """Return what one image takes of the driver: its processor time, and its waiting for the disk.

    The wall time of that measurement also has the workers in it, which share its cores.
    """
    part = archives["overhead"]
    disk = part["journal_and_audit_seconds"]
    return float(part["driver_seconds"]["cpu"] + max(disk["wall"] - disk["cpu"], 0.0))


def core_seconds(speed: dict[str, Any], profile: str) -> tuple[float, int]:
    """Return the core seconds of one file at most, and the threads that it had."""
    threads = int(speed["machine"].split(" threads")[0].split()[-1])
    seconds = next(file["seconds"] for file in speed["files"] if file["profile"] == profile)
    return float(seconds["median"]) * threads, threads


def times(archives: dict[str, Any], speed: dict[str, Any]) -> str:
    """Return what one image takes."""
    driver = driver_seconds(archives)
    rows = []
    for profile in ("standard", "fast"):
        core, threads = core_seconds(speed, profile)
        rows.append(
            (
                f"`{profile}`",
                f"{core / threads:.2f} s",
                f"{core / threads:.2f} x {threads} = {core:.2f}",
                f"{core * BILLION / 3600 / MILLION:.2f} million",
            )
        )
    head = ("profile", "s, one file", "core seconds, at most", "core hours for a billion")
    return (
        f"### Times\n\n{table(head, rows)}\n\n"
        f"The driver takes d = {1000 * driver:.1f} ms for one image (processor, and waiting for "
        f"the disk), so that it cannot do more than 1 / d = {1 / driver:.0f} images a second, "
        f"or {DAY / driver / MILLION:.1f} million a day." + _busy(archives)
    )


def _busy(archives: dict[str, Any]) -> str:
    load = archives["overhead"]["machine"].split("load ")[1].split()[0]
    if float(load) <= 3:
        return ""
    return f" It was measured beside other programs (load {load}), which makes d too long."


def storage(archives: dict[str, Any]) -> str:
    """Return what a million images take on the disk."""
    part = archives["storage"]["bytes"]
    results = part["results"] + part["previews"]
    private = part["review_pictures"] + part["held"]
    records = sum(part[name] for name in RECORDS)
    rows = [
        ("originals (assumed)", f"{B_ORIGINAL:,}", _gigabytes(B_ORIGINAL)),
        ("results and previews", f"{results:,}", _gigabytes(results)),
        ("review pictures and held results", f"{private:,}", _gigabytes(private)),
        ("audit log", f"{part['audit']:,}", _gigabytes(part["audit"])),
        ("journal", f"{part['journal']:,}", _gigabytes(part["journal"])),
        ("crosswalk, reports and pages", f"{_rest(part):,}", _gigabytes(_rest(part))),
    ]
    total = results + private + records
    return (
        f"### Storage\n\n{table(('what', 'bytes an image', 'GB a million'), rows)}\n\n"
        f"Without originals that is {_gigabytes(total)} GB a million and "
        f"{total * BILLION / 1e12:.0f} TB a billion; of it {private / total:.0%} are pictures for "
        f"reviewers, which go once the review is over: {(total - private) * BILLION / 1e12:.0f} TB "
        f"stay."
    )


def _rest(part: dict[str, int]) -> int:
    return sum(part[name] for name in RECORDS if name not in ("journal", "audit"))


def _gigabytes(number: int) -> str:
    """Return the GB of a million."""
    return f"{number * MILLION / 1e9:,.1f}"


def cost(archives: dict[str, Any], speed: dict[str, Any]) -> str:
    """Return what a million images cost."""
    part = archives["storage"]["bytes"]
    kept = part["results"] + part["previews"] + sum(part[name] for name in RECORDS)
    prices = {name: price for name, (price, _) in PRICES.items()}
    assumed = [(f"`{name}`", f"{price}", what) for name, (price, what) in PRICES.items()]
    rows = []
    for profile in ("standard", "fast"):
        core, _ = core_seconds(speed, profile)
        hours = core * MILLION / 3600
        rows.append(
            (
                f"computing, `{profile}`",
                f"10^6 x {core:.2f} s / 3600 x P_core = {hours:,.0f} h x {prices['P_core']}",
                f"{hours * prices['P_core']:,.0f}",
            )
        )
    gigabytes = kept * MILLION / 1e9
    fetched = B_ORIGINAL * MILLION / 1e9
    rows += [
        (
            "keeping results and records for a year",
            f"{gigabytes:,.0f} GB x 12 x P_disk",
            f"{gigabytes * 12 * prices['P_disk']:,.0f}",
        ),
        (
            "fetching originals from another data centre",
            f"{fetched:,.0f} GB x P_network",
            f"{fetched * prices['P_network']:,.0f}",
        ),
    ]
    return (
        f"### Cost of a million\n\nPrices are assumptions:\n\n"
        f"{table(('variable', 'US dollars', ''), assumed)}\n\n"
        f"{table(('what', 'arithmetic', 'US dollars'), rows)}"
    )


def simulation(curves: list[dict[str, Any]]) -> str:
    """Return what the simulation shows."""
    parts = []
    for one in curves:
        speed = (
            f"{one['speedup']} times as fast (assumed)" if one["speedup"] > 1 else "measured CPU"
        )
        mean = sum(one["times"][name] for name in ("fastest", "median", "slowest")) / 3
        rows = [
            (
                f"{point['workers']:,}",
                f"{point['images_per_second']:,.1f}",
                f"{point['efficiency']:.3f}",
                f"{point['driver_busy']:.0%}",
                f"{BILLION / point['images_per_second'] / DAY:,.0f}",
            )
            for point in _until_saturated(one["points"])
        ]
        head = ("workers", "images/s", "efficiency", "driver busy", "days for a billion")
        limit = mean / one["times"]["driver"]
        parts.append(
            f"**`{one['profile']}`, {speed}**: one image takes s = {mean:.3f} s. By arithmetic one "
            f"driver saturates at s / d = {limit:,.0f} workers; the simulation has an efficiency "
            f"of 0.9 up to {one['most_workers']:,}.\n\n{table(head, rows)}"
        )
    return "### Simulation\n\n" + "\n\n".join(parts)


def _until_saturated(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what only repeats that the driver is saturated."""
    full = [point for point in points if point["efficiency"] >= HALF]
    return points[: len(full) + 1]
