"""Claims: one reviewer a job, for a while."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from monailabel_app.lib.errors import Conflict, NotFound
from monailabel_app.lib.jobs.states import JobState
from monailabel_app.lib.review.claims import claim, claim_next, give_back
from monailabel_app.lib.review.decisions import Verdict, decide
from tests.unit.review_desk import ADA, BEN, CAI, SHA256, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.at(tmp_path / "state")


def expire(desk: Desk, job_id: str) -> None:
    desk.server.jobs.set(job_id, claimed_until=time.time() - 1)


def test_next_is_the_oldest_that_nobody_else_has(desk):
    first, second = desk.add(), desk.add()

    assert claim_next(desk.server, ADA).id == first.id
    assert claim_next(desk.server, BEN).id == second.id
    with pytest.raises(NotFound, match="no further job"):
        claim_next(desk.server, CAI)


def test_the_same_job_comes_again_after_a_reload_and_not_after_a_skip(desk):
    first, second = desk.add(), desk.add()
    claim_next(desk.server, ADA)

    assert claim_next(desk.server, ADA).id == first.id
    assert claim_next(desk.server, ADA, after=first.id).id == second.id
    give_back(desk.server, ADA, first.id)
    assert claim_next(desk.server, ADA).id == second.id


def test_many_reviewers_at_once_never_get_the_same_job(desk):
    jobs = [desk.add().id for _ in range(6)]

    def work(number: int) -> str:
        who = type(ADA)(f"reader {number}", ADA.role)
        return claim_next(desk.server, who).id

    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(work, range(6)))

    assert sorted(taken) == sorted(jobs)


def test_a_claim_keeps_others_out_until_it_ends(desk):
    job = claim(desk.server, ADA, desk.add().id)
    assert job.claimed_by == "ada"
    assert 890 < job.claimed_until - time.time() <= 900
    with pytest.raises(Conflict, match="ada works on this job"):
        claim(desk.server, BEN, job.id)

    expire(desk, job.id)

    assert claim(desk.server, BEN, job.id).claimed_by == "ben"


def test_claiming_again_renews_and_is_told_once(desk):
    job = desk.add()
    claim(desk.server, ADA, job.id)
    desk.server.jobs.set(job.id, claimed_until=time.time() + 5)

    assert claim(desk.server, ADA, job.id).claimed_until > time.time() + 800
    assert desk.steps(job) == [("claimed", "ada")]


def test_a_claim_is_given_back_by_its_owner_alone(desk):
    job = claim(desk.server, ADA, desk.add().id)
    with pytest.raises(Conflict, match="ada works"):
        give_back(desk.server, BEN, job.id)

    assert give_back(desk.server, ADA, job.id).claimed_by == ""
    assert give_back(desk.server, BEN, job.id).claimed_by == ""
    assert desk.steps(job) == [("claimed", "ada"), ("claim_ended", "ada")]


def test_an_ended_claim_decides_nothing(desk):
    job = claim(desk.server, ADA, desk.add().id)
    expire(desk, job.id)

    with pytest.raises(Conflict, match="your claim on this job has ended"):
        decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256)

    assert desk.job(job).state is JobState.AWAITING_REVIEW


def test_next_passes_over_a_job_whose_folder_was_tampered_with(desk):
    broken, good = desk.add(), desk.add()
    log = desk.folders(broken).audit
    log.write_bytes(log.read_bytes().replace(b"image_released", b"image_relEased"))

    assert claim_next(desk.server, ADA).id == good.id
    assert desk.job(broken).claimed_by == ""


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_what_has_no_result_cannot_be_claimed(desk, state):
    job = desk._running("dr who")
    desk.server.jobs.move(job.id, state)

    with pytest.raises(Conflict, match=f"{state.value} and has no result"):
        claim(desk.server, ADA, job.id)


def test_with_two_people_next_gives_nobody_what_they_cannot_bring_further(tmp_path):
    desk = Desk.at(tmp_path / "state", two_person=True)
    desk.add(submitter="ada")
    approved_by_ada, fresh = desk.add(), desk.add()
    decide(desk.server, ADA, approved_by_ada.id, Verdict.APPROVED, SHA256)

    assert claim_next(desk.server, ADA).id == fresh.id
    assert claim_next(desk.server, BEN).submitter == "ada"
