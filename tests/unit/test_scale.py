"""The simulation of a driver and its workers, and the documents that are made of figures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scripts be imported, which find each other in their folder."""
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_workers_give_what_they_can_until_the_driver_is_saturated(scripts):
    from simulate_scale import Times, simulate

    times = Times(driver=0.1, fastest=0.5, median=1.0, slowest=1.5)
    few, many = simulate(times, 4, 4000, 1), simulate(times, 64, 4000, 1)

    assert few.efficiency == pytest.approx(1.0, abs=0.05)
    assert few.driver_busy == pytest.approx(0.4, abs=0.05)
    assert many.images_per_second == pytest.approx(10.0, rel=0.01)
    assert many.driver_busy == pytest.approx(1.0, abs=0.01)


def test_simulation_of_one_seed_gives_equal_figures(scripts):
    from simulate_scale import Times, simulate

    times = Times(driver=0.01, fastest=0.5, median=1.0, slowest=1.5)
    assert simulate(times, 8, 500, 3) == simulate(times, 8, 500, 3)
    assert simulate(times, 8, 500, 3) != simulate(times, 8, 500, 4)


def test_command_writes_figures_picture_and_what_stands_between_the_markers(tmp_path):
    for name in ("archives.json", "speed.json"):
        shutil.copy(ROOT / "docs/results" / name, tmp_path)
    document = tmp_path / "scale.md"
    head, tail = "# Scale\n\nBefore.\n\n", "\n\nAfter.\n"
    begin = "<!-- figures: made by scripts/simulate_scale.py, do not edit -->"
    document.write_text(f"{head}{begin}\nold\n<!-- end of figures -->{tail}")
    command = [sys.executable, str(SCRIPTS / "simulate_scale.py"), "--results", str(tmp_path)]
    subprocess.run([*command, "--document", str(document)], check=True, timeout=300)

    text = document.read_text()
    assert text.startswith(head)
    assert text.endswith(tail)
    assert "old" not in text
    assert "### Cost of a million" in text
    assert (tmp_path / "scale.png").stat().st_size > 0
    curves = json.loads((tmp_path / "scale.json").read_text())["curves"]
    assert [point["workers"] for point in curves[0]["points"]][:3] == [1, 2, 4]


def test_parts_that_were_not_measured_are_said_to_be_missing(scripts, tmp_path):
    from archive_report import SECTIONS, write_document

    (tmp_path / "archives.json").write_text("{}")
    write_document(tmp_path / "archives.json")

    text = (tmp_path / "archives.md").read_text()
    assert text.count("**Not measured yet.**") == len(SECTIONS)
