"""docs/results/archives.md, made from docs/results/archives.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from privdiff_infer.release import write_atomically

HEAD = """# Whole archives, measured

Made by `scripts/measure_archives.py` from [archives.json](archives.json); do not edit. How archives
are anonymized: [how-to](../how-to/archives.md). What follows: [scale](../explanation/scale.md).

```
PYTHONPATH=.:training python scripts/measure_archives.py   # all parts, on a quiet machine
PYTHONPATH=.:training python scripts/measure_archives.py --part siege --images 500
```
"""

MISSING = "**Not measured yet.** `python scripts/measure_archives.py --part {part}` measures it."
QUIET_LOAD = 3.0
"""Above it, times say more of the other programs than of this one."""

TARGET = 10_000
"""Images of the siege."""

FLAT = 1.10
"""Largest ratio of last to first memory that is called flat."""


def write_document(figures: Path) -> None:
    """Write the document beside the figures."""
    known = json.loads(figures.read_text(encoding="utf-8"))
    sections = [HEAD]
    for part, (title, section) in SECTIONS.items():
        text = section(known) if part in known else MISSING.format(part=part)
        sections.append(f"## {title}\n\n{text}\n")
    write_atomically(figures.with_suffix(".md"), "\n".join(sections).encode())


def scaling(known: dict[str, Any]) -> str:
    """Return what two workers bring."""
    part = known["scaling"]
    rows = [
        ("one process, `--workers 1`", f"{part['one_process']:.3f} images/s"),
        ("`--workers 2`", f"{part['two_workers']:.3f} images/s"),
        ("two runs of one process each at once", f"{part['two_runs_at_once']:.3f} images/s"),
        ("what the cores give", f"{part['what_the_cores_give']:.2f} times one process"),
        ("what two workers give", f"{part['speedup']:.2f} times one process"),
        ("**efficiency** (target 0.85)", f"**{part['efficiency']:.3f}** of what the cores give"),
    ]
    about = f"Bundle {part['bundle']}, profile `{part['profile']}`, {part['images']} images."
    return f"{about} {where(part)}\n\n{table(('', 'measured'), rows)}"


def overhead(known: dict[str, Any]) -> str:
    """Return what the driver takes."""
    part = known["overhead"]
    driver, alone = part["driver_seconds"], part["journal_and_audit_seconds"]
    rows = [
        ("all of the driver: dask, journal, audit log", *milliseconds(driver)),
        ("of it journal and audit log", *milliseconds(alone)),
    ]
    text = f"{part['jobs']} jobs that do nothing, two workers. {where(part)}\n\n" + table(
        ("for one image", "wall", "processor"), rows
    )
    if "scaling" in known:
        share = driver["cpu"] * known["scaling"]["one_process"]
        text += f"\n\nOf the time of one image that is **{share:.2%}** (target: below 5 %)."
    return text


def storage(known: dict[str, Any]) -> str:
    """Return what one image takes on the disk."""
    part = known["storage"]
    rows = [(f"`{name}`", f"{number:,}") for name, number in part["bytes"].items()]
    about = f"{part['images']} images of the sample, embedded bundle, `--format {part['format']}`."
    return f"{about}\n\n{table(('part of OUT', 'bytes an image'), rows)}"


def siege(known: dict[str, Any]) -> str:
    """Return what became of the long run."""
    part = known["siege"]
    names = (
        ("sources_without_row", "sources without a row"),
        ("sources_with_several_rows", "sources with several rows"),
        ("rows_without_file", "rows whose result is missing"),
        ("files_without_row", "results without a row"),
        ("results_of_several_sources", "results of several sources"),
        ("results_told_twice", "results that the audit log tells of twice, with the same bytes*"),
    )
    rows = [(name, f"{part[key]}") for key, name in names]
    rows += [
        ("findings of `privdiff verify`", f"{len(part['verify_findings'])}"),
        ("entries of the audit log, one chain", f"{part['audit_entries']:,}, {sealed(part)}"),
    ]
    status = ", ".join(f"{number:,} {name}" for name, number in part["status"].items())
    attacks = [
        (attack["attack"], f"{attack['after']:,}", f"{attack.get('workers_left', '-')}")
        for attack in part["attacks"]
    ]
    memory = [
        (f"{row['tenth']}", f"{row['driver']:.0f}", f"{row['worker']:.0f}")
        for row in part["memory_mb"]
    ]
    short = "" if part["images"] >= TARGET else f" **{TARGET:,} images are not measured yet.**"
    return "\n\n".join(
        (
            f"{part['images']:,} small generated images, {part['workers']} workers, "
            f"{part['starts']} starts, {part['minutes']} minutes; a bundle of {part['bundle']}, "
            f"for this is about robustness, not about time.{short} {where(part)}\n\n"
            f"Outcome: {status}.",
            table(("", "number"), rows),
            "*A driver that is killed between audit log and journal tells of one result again.",
            table(("attack", "images done", "workers left alive"), attacks),
            f"Memory, median of each tenth of the images ({verdict(part['memory_mb'])}; peak of "
            f"the driver, reports included: {part['driver_peak_mb']:.0f} MB):",
            table(("tenth", "driver, MB", "largest worker, MB"), memory),
            f"Writing the reports takes {at_the_end(part):.0f} kB an image for a moment.",
        )
    )


def at_the_end(part: dict[str, Any]) -> float:
    """Return the kB an image by which the driver's peak exceeds what the run itself needs."""
    usual = max(row["driver"] for row in part["memory_mb"])
    return 1000 * float(part["driver_peak_mb"] - usual) / part["images"]


def verdict(memory: list[dict[str, float]]) -> str:
    """Say whether the driver grew from the second tenth, when all is loaded, to the last."""
    if len(memory) < 3:
        return "too few samples to tell"
    ratio = memory[-1]["driver"] / memory[1]["driver"]
    word = "flat" if ratio <= FLAT else "not flat"
    return f"{word}: the driver's last tenth is {ratio:.3f} times its second"


def sealed(part: dict[str, Any]) -> str:
    """Say whether the chain ends as it should."""
    return "sealed" if part["audit_sealed"] else "not sealed"


def where(part: dict[str, Any]) -> str:
    """Say on what it was measured, and whether others were at work."""
    load = float(part["machine"].split("load ")[1].split()[0])
    busy = " Other programs were at work: the times are upper bounds." if load > QUIET_LOAD else ""
    return f"Machine: {part['machine']}.{busy}"


def milliseconds(seconds: dict[str, float]) -> tuple[str, str]:
    """Return wall and processor time as text."""
    return f"{1000 * seconds['wall']:.2f} ms", f"{1000 * seconds['cpu']:.2f} ms"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "scaling": ("Two workers", scaling),
    "overhead": ("The driver", overhead),
    "siege": ("Killed on the way", siege),
    "storage": ("Storage", storage),
}
