"""Processes that share sources: none is lost, whoever dies or is stopped. Loads no torch."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from privdiff_infer.batch import Batch, run_batch
from privdiff_infer.burned_in_text import TextState, TextStep
from privdiff_infer.cluster import Workers, own_workers
from privdiff_infer.errors import BundleError, ClusterError
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.job_keeper import TASKS_A_WORKER, JobKeeper
from privdiff_infer.radiograph import read_radiograph
from privdiff_infer.release import Status
from privdiff_infer.sources import find_sources
from tests.unit.outputs import open_journal

FILES = [Path(str(number)) for number in range(8)]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Two processes for all tests, in turn."""
    with own_workers(2) as begun:
        yield begun


def nothing() -> None:
    pass


def trim_threshold() -> str | None:
    return os.environ.get("MALLOC_TRIM_THRESHOLD_")


def test_memory_of_tensors_is_not_given_back_at_once(workers):
    # With the threshold that dask sets, the same images take a third more time.
    own = trim_threshold()
    assert set(workers.client.run(trim_threshold).values()) == {own}


def keeper(workers: Workers, make_job: Callable, check: Callable[[], None] = nothing) -> JobKeeper:
    return JobKeeper(workers, make_job, check)


def counting():
    return lambda path: int(path.name)


def dying(victims: frozenset[str]):
    """Make a job that ends its process on some files, as a crashing decoder would."""
    return lambda path: os._exit(1) if path.name in victims else int(path.name)


def dying_once(marker: Path):
    """Make a job that ends its process on the first file of all, as a lack of memory would."""

    def job(path: Path) -> int:
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return int(path.name)
        os._exit(1)

    return job


def counting_attempts(folder: Path):
    """Make a job that ends its process on the file 3, and leaves a file of every attempt."""

    def job(path: Path) -> int:
        (folder / f"{path.name}-{time.monotonic_ns()}").touch()
        if path.name == "3":
            os._exit(1)
        return int(path.name)

    return job


def slow():
    def job(path: Path) -> int:
        time.sleep(0.3)
        return int(path.name)

    return job


def failing():
    raise BundleError("the bundle is damaged", "install it again")


def refusing() -> None:
    raise ClusterError("this worker sees another folder", "share it")


def kill(workers: Workers) -> None:
    """End every process that there is now, as a lack of memory would."""
    for minder in workers.client.cluster.workers.values():
        with suppress(ProcessLookupError):
            if minder.pid:
                os.kill(minder.pid, 9)


def test_every_file_is_done_once(workers):
    with keeper(workers, counting) as kept:
        assert sorted(kept.results(FILES)) == [(path, int(path.name)) for path in FILES]


def test_file_that_ends_its_process_has_no_result(workers):
    with keeper(workers, partial(dying, frozenset({"1", "6"}))) as kept:
        answers = list(kept.results(FILES))

    assert len(answers) == len(FILES)
    assert {path.name for path, result in answers if result is None} == {"1", "6"}
    assert sorted(r for _, r in answers if r is not None) == [0, 2, 3, 4, 5, 7]


def test_file_that_ends_its_process_is_tried_three_times(workers, tmp_path):
    with keeper(workers, partial(counting_attempts, tmp_path)) as kept:
        list(kept.results(FILES))

    assert len(list(tmp_path.glob("3-*"))) == 3


def test_file_that_was_in_work_when_a_process_died_runs_again(workers, tmp_path):
    with keeper(workers, partial(dying_once, tmp_path / "died")) as kept:
        assert sorted(r for _, r in kept.results(FILES)) == list(range(8))


def test_processes_that_are_killed_are_replaced_and_lose_nothing(workers):
    results = []
    with keeper(workers, slow) as kept:
        for number, (_, result) in enumerate(kept.results(FILES)):
            results.append(result)
            if number in (1, 3):
                kill(workers)

    assert sorted(results) == list(range(8))


def test_processes_that_dask_has_given_up_are_replaced(workers):
    for minder in list(workers.client.cluster.workers.values()):
        workers.client.cluster.sync(minder.close)
    with keeper(workers, counting) as kept:
        assert sorted(r for _, r in kept.results(FILES)) == list(range(8))

    while not workers.are_complete:  # the second may still be on its way
        time.sleep(0.05)


def test_all_processes_may_die(workers):
    everyone = frozenset(path.name for path in FILES[:3])
    with keeper(workers, partial(dying, everyone)) as kept:
        assert sorted(kept.results(FILES[:3])) == [(path, None) for path in FILES[:3]]


def test_no_more_sources_are_taken_than_there_is_room_for(workers):
    taken = 0

    def sources() -> Iterator[Path]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield Path(str(number))

    ahead = []
    with keeper(workers, counting) as kept:
        for done, _ in enumerate(kept.results(sources())):
            ahead.append(taken - done)

    room = TASKS_A_WORKER * 2
    assert len(ahead) == 100
    assert max(ahead) <= 2 * room  # in work, and answered while the consumer was busy


def test_stopping_finishes_what_is_in_work_and_begins_nothing(workers):
    with keeper(workers, slow) as kept:
        results = kept.results(FILES)
        first = next(results)
        results.close()
        rest = list(kept.drain())

    done = [first, *rest]
    assert len(done) == len(set(done)) <= 1 + 2 * TASKS_A_WORKER


def test_process_that_dies_while_the_run_stops_leaves_its_file_undone(workers):
    with keeper(workers, partial(dying, frozenset({"1"}))) as kept:
        results = kept.results(FILES[:2])
        first = next(results)
        results.close()

        done = [first, *kept.drain()]

    assert (FILES[1], 1) not in done
    assert len(done) <= 2


def test_error_of_the_beginning_is_told(workers):
    with keeper(workers, failing) as kept, pytest.raises(BundleError, match="is damaged"):
        list(kept.results(FILES))


def test_worker_that_does_not_pass_the_check_is_told_before_anything_is_done(workers):
    with pytest.raises(ClusterError, match="another folder"), keeper(workers, counting, refusing):
        pass


def test_what_dask_can_log_of_a_task_names_no_source(workers):
    from privdiff_infer import job_keeper

    order = job_keeper._Order("privdiff-1", Path("Doe_Jane.dcm"))

    assert "Doe" not in repr(order)
    assert pickle.loads(pickle.dumps(order)) == order


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
