"""The queue: turns, one taker a job, ways between states."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from monailabel_app.lib.errors import Conflict, NotFound
from monailabel_app.lib.jobs.job import NewJob
from monailabel_app.lib.jobs.states import NEXT, JobState, Priority
from monailabel_app.lib.jobs.store import JobStore

SOURCE = Path("/in/Doe_Jane.png")

TAKER = """
import sys
from monailabel_app.lib.jobs.store import JobStore
store = JobStore(sys.argv[1])
while job := store.take():
    print(job.id)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
def jobs(url: str) -> JobStore:
    return JobStore(url)


@pytest.fixture(scope="module")
def shared_jobs(tmp_path_factory: pytest.TempPathFactory) -> JobStore:
    return JobStore(f"sqlite:///{tmp_path_factory.mktemp('queue') / 'jobs.db'}")


def add(jobs: JobStore, count: int, **facts: object) -> list[str]:
    return [jobs.add(NewJob(SOURCE, "ann", **facts))[0].id for _ in range(count)]


def test_every_job_is_taken_once_by_threads(jobs):
    added = add(jobs, 60)

    def take(_: int) -> list[str]:
        mine = []
        while job := jobs.take():
            mine.append(job.id)
        return mine

    with ThreadPoolExecutor(8) as pool:
        taken = Counter(job for mine in pool.map(take, range(8)) for job in mine)

    assert taken == Counter(added)


def test_every_job_is_taken_once_by_processes(jobs, url):
    added = add(jobs, 60)
    takers = [
        subprocess.Popen([sys.executable, "-c", TAKER, url], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]

    taken = Counter("".join(taker.communicate(timeout=120)[0] for taker in takers).split())

    assert taken == Counter(added)


def test_interactive_jobs_overtake_and_the_others_keep_their_order(jobs):
    first, second = add(jobs, 2, priority=Priority.BATCH)
    (urgent,) = add(jobs, 1)

    assert jobs.positions(jobs.page().jobs) == {urgent: 1, first: 2, second: 3}
    assert [jobs.take().id for _ in range(3)] == [urgent, first, second]
    assert jobs.take() is None


def test_a_slot_for_interactive_jobs_takes_no_batch(jobs):
    add(jobs, 1, priority=Priority.BATCH)

    assert jobs.take(Priority.INTERACTIVE) is None


def test_a_job_that_waits_for_its_retry_is_passed_over(jobs):
    later, now = add(jobs, 2)
    jobs.set(later, not_before=time.time() + 60)

    assert jobs.take().id == now
    assert jobs.take() is None


@pytest.mark.parametrize("start", JobState)
@pytest.mark.parametrize("to", JobState)
def test_only_ways_between_states_are_gone(shared_jobs, start, to):
    (job_id,) = add(shared_jobs, 1)
    shared_jobs.set(job_id, state=start.value)

    if to in NEXT[start]:
        assert shared_jobs.move(job_id, to).state is to
    else:
        with pytest.raises(Conflict):
            shared_jobs.move(job_id, to)
        assert shared_jobs.get(job_id).state is start


def test_a_cancelled_job_is_not_finished_by_who_had_it(jobs):
    (job_id,) = add(jobs, 1)
    jobs.take()
    jobs.cancel(job_id)

    with pytest.raises(Conflict):
        jobs.move(job_id, JobState.AWAITING_REVIEW, start=[JobState.RUNNING], sha256="0" * 64)

    assert jobs.get(job_id).sha256 == ""
    assert jobs.still_running([job_id]) == set()


def test_what_ran_as_its_dispatcher_died_is_queued_again(jobs):
    ran, waited = add(jobs, 2)
    jobs.take()

    assert jobs.recover() == 1
    assert [jobs.take().id, jobs.take().id] == [ran, waited]
    assert jobs.get(ran).attempts == 2


def test_one_key_of_one_submitter_is_one_job(jobs):
    new = NewJob(SOURCE, "ann", idempotency_key="k")

    (first, is_new), (second, is_new_again) = jobs.add(new), jobs.add(new)
    other, is_other_new = jobs.add(NewJob(SOURCE, "bob", idempotency_key="k"))

    assert (is_new, is_new_again, is_other_new) == (True, False, True)
    assert first == second != other


def test_pages_go_on_where_the_last_one_ended(jobs):
    added = add(jobs, 5, batch="b")
    add(jobs, 1)

    first = jobs.page(batch="b", limit=3)
    second = jobs.page(batch="b", limit=3, after=first.next)

    assert [job.id for job in (*first.jobs, *second.jobs)] == added
    assert second.next is None


def test_steps_are_written_of_running_jobs_alone(jobs):
    runs, waits = add(jobs, 2)
    jobs.take()

    jobs.report_steps({runs: (3, 10), waits: (9, 10)})

    assert [(job.step, job.steps) for job in jobs.page().jobs] == [(3, 10), (0, 0)]


def test_unknown_jobs_are_not_found(jobs):
    for ask in (jobs.get, jobs.cancel):
        with pytest.raises(NotFound):
            ask("0" * 32)
