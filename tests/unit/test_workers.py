"""Processes that share files: none is lost, whoever dies or is stopped. Loads no torch."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from privdiff_infer.batch import Batch, run_batch
from privdiff_infer.burned_in_text import TextState, TextStep
from privdiff_infer.errors import BundleError
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.radiograph import read_radiograph
from privdiff_infer.release import Status
from privdiff_infer.sources import find_sources
from privdiff_infer.workers import WorkerPool
from tests.unit.outputs import open_journal

FILES = [Path(str(number)) for number in range(8)]


def counting():
    return lambda path: int(path.name)


def dying(victims: frozenset[str]):
    """Make a job that ends its process on some files, as a crashing decoder would."""
    return lambda path: os._exit(1) if path.name in victims else int(path.name)


def dying_once(marker: Path):
    """Make a job that ends its process on the first file of all, as a lack of memory would."""

    def job(path: Path) -> int:
        if not marker.exists():
            marker.touch()
            os._exit(1)
        return int(path.name)

    return job


def dying_when_idle():
    """Make a job whose process ends some time after each answer."""

    def job(path: Path) -> int:
        if os.fork() == 0:
            time.sleep(0.2)
            os.kill(os.getppid(), 9)
            os._exit(0)
        return int(path.name)

    return job


def slow():
    def job(path: Path) -> int:
        time.sleep(0.3)
        return int(path.name)

    return job


def failing():
    raise BundleError("the bundle is damaged", "install it again")


def test_every_file_is_done_once():
    with WorkerPool(counting, 2) as pool:
        assert sorted(pool.results(FILES)) == [(path, int(path.name)) for path in FILES]


def test_file_that_ends_its_process_has_no_result():
    with WorkerPool(partial(dying, frozenset({"1", "6"})), 2) as pool:
        results = dict(pool.results(FILES))

    assert {path.name for path, result in results.items() if result is None} == {"1", "6"}
    assert sorted(r for r in results.values() if r is not None) == [0, 2, 3, 4, 5, 7]


def test_file_that_was_in_work_when_a_process_died_runs_again(tmp_path):
    with WorkerPool(partial(dying_once, tmp_path / "died"), 2) as pool:
        assert sorted(r for _, r in pool.results(FILES)) == list(range(8))


def test_process_that_dies_while_the_consumer_is_slow_costs_nothing():
    results = []
    with WorkerPool(dying_when_idle, 2) as pool:
        for _, result in pool.results(FILES[:5]):
            results.append(result)
            time.sleep(0.4)

    assert sorted(results) == list(range(5))


def test_all_processes_may_die():
    everyone = frozenset(path.name for path in FILES[:3])
    with WorkerPool(partial(dying, everyone), 2) as pool:
        assert sorted(pool.results(FILES[:3])) == [(path, None) for path in FILES[:3]]


def test_stopping_finishes_what_is_in_work_and_begins_nothing():
    with WorkerPool(slow, 2) as pool:
        results = pool.results(FILES)
        first = next(results)
        results.close()
        rest = pool.drain()

    done = [first, *rest]
    assert len(done) == len(set(done)) <= 4


def test_error_of_the_beginning_is_told():
    with WorkerPool(failing, 2) as pool, pytest.raises(BundleError, match="is damaged"):
        list(pool.results(FILES))


class Copying:
    """Stands for an anonymizer: slow, and ends its process on one image."""

    def __init__(self, deadly: str = "") -> None:
        self.deadly = deadly

    def anonymize(self, radiograph, image_seed, progress=None):
        if radiograph.digest == self.deadly:
            os._exit(1)
        time.sleep(0.2)
        return SimpleNamespace(
            pixels=radiograph.pixels,
            spacing_mm=None,
            identity_similarity=0.0,
            findings_before={},
            findings_after={},
            strength=0.5,
            attempts=1,
            text=TextStep(TextState.UNCHECKED),
            held_reason=None,
        )


def make_batch(out: Path) -> Batch:
    batch = Batch(out, "1", OutputFormat.PNG)
    batch.folders.create()
    return batch


def test_image_that_ends_its_process_is_a_failed_row(tmp_path, pictures):
    batch, files = make_batch(tmp_path / "out"), find_sources([str(pictures)])
    factory = partial(Copying, read_radiograph(files[1]).digest)
    outcomes = run_batch(files, batch, open_journal(batch.folders), factory, workers=2)
    rows = {Path(o.row.source).name: o.row for o in outcomes}

    assert rows.keys() == {f"Doe_Jane_{n}.png" for n in range(3)}
    assert "the worker process died on this image" in rows["Doe_Jane_1.png"].reason
    assert [row.status for row in rows.values()].count(Status.RELEASED) == 2


def test_stopped_batch_has_a_row_for_every_image_in_release(tmp_path, pictures):
    batch, files = make_batch(tmp_path / "out"), find_sources([str(pictures)])
    journal = open_journal(batch.folders)
    run = run_batch(files, batch, journal, Copying, workers=2)
    next(run)
    run.close()

    images = {f"release/images/{path.name}" for path in batch.folders.images.iterdir()}
    assert len(images) > 1
    assert images == journal.outputs == open_journal(batch.folders).outputs
