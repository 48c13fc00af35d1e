"""Decisions: bound to the bytes that were shown, by one person or by two."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.errors import Conflict, Forbidden, NotFound
from monailabel_app.lib.jobs.results import ResultKind, result_of
from monailabel_app.lib.jobs.states import JobState
from monailabel_app.lib.jobs.store import JobStore
from monailabel_app.lib.review import decisions as decisions_module
from monailabel_app.lib.review.claims import claim
from monailabel_app.lib.review.decisions import Verdict, decide
from monailabel_app.lib.review.publishing import deliver
from monailabel_app.lib.security.roles import Principal, Role
from privdiff_infer.release import Review
from privdiff_infer.review import decisions
from tests.unit.review_desk import ADA, BEN, CAI, SHA256, Desk

OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.at(tmp_path / "state")


@pytest.fixture
def pair(tmp_path: Path) -> Desk:
    """A server that wants two people."""
    return Desk.at(tmp_path / "state", two_person=True)


def folder_state(desk, job) -> Review:
    return decisions(desk.folders(job).root)[job.output].state


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_decision_is_in_folder_row_and_chain(desk, verdict):
    job = claim(desk.server, ADA, desk.add().id)

    decided = decide(desk.server, ADA, job.id, verdict, SHA256, "left apex is fine")

    assert decided.state.value == verdict.value
    assert (decided.decided_by, decided.comment, decided.claimed_by) == (
        "ada",
        "left apex is fine",
        "",
    )
    assert folder_state(desk, job).value == verdict.value
    assert desk.steps(job) == [("claimed", "ada"), (verdict.value, "ada")]
    assert desk.findings(job) == []


def test_repeating_a_decision_is_harmless(desk):
    job = claim(desk.server, ADA, desk.add().id)
    first = decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256, "fine")

    assert decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256, "fine") == first
    assert [event for event, _ in desk.steps(job)].count("approved") == 1


def test_other_bytes_than_those_of_the_file_are_refused(desk):
    job = desk.add()
    with pytest.raises(Conflict, match="not the one that was shown"):
        decide(desk.server, ADA, job.id, Verdict.APPROVED, OTHER)

    (desk.folders(job).root / job.output).write_bytes(b"other")

    for sha256 in (SHA256, OTHER):
        with pytest.raises(Conflict, match="not the one that was written"):
            decide(desk.server, ADA, job.id, Verdict.APPROVED, sha256)
    assert desk.job(job).state is JobState.AWAITING_REVIEW


def test_the_row_is_not_believed(desk):
    job = desk.add()
    desk.server.jobs.set(job.id, sha256=OTHER)

    with pytest.raises(Conflict, match="not the one that was shown"):
        decide(desk.server, ADA, job.id, Verdict.APPROVED, OTHER)
    assert decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256).sha256 == SHA256


def test_a_job_of_another_reviewer_is_left_alone(desk):
    job = claim(desk.server, ADA, desk.add().id)
    with pytest.raises(Conflict, match="ada works on this job"):
        decide(desk.server, BEN, job.id, Verdict.REJECTED, SHA256)


def test_changing_a_decision_needs_a_claim(desk):
    job = desk.add()
    decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256)
    with pytest.raises(Conflict, match="claim it first to change"):
        decide(desk.server, BEN, job.id, Verdict.REJECTED, SHA256)

    claim(desk.server, BEN, job.id)

    decided = decide(desk.server, BEN, job.id, Verdict.REJECTED, SHA256, "rib is lost")
    assert (decided.state, decided.decided_by) == (JobState.REJECTED, "ben")


def test_held_job_can_be_rejected_but_not_approved(desk):
    job = desk.add_held()
    with pytest.raises(Conflict, match="held and cannot be approved: too similar"):
        decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256)
    assert desk.job(job).state is JobState.HELD

    assert decide(desk.server, ADA, job.id, Verdict.REJECTED, SHA256).state is JobState.REJECTED


def test_a_held_image_that_was_rejected_is_for_reviewers_alone(desk):
    job = decide(desk.server, ADA, desk.add_held().id, Verdict.REJECTED, SHA256)
    assert result_of(desk.server, job, ADA, ResultKind.FILE).sha256 == SHA256
    with pytest.raises(Forbidden):
        result_of(desk.server, job, Principal("dr who", Role.USER), ResultKind.FILE)


def test_input_that_was_held_has_nothing_to_decide(desk):
    job = desk._running("dr who")
    desk.server.jobs.move(job.id, JobState.HELD, reason="the patient is under 18")
    with pytest.raises(Conflict, match="held before it was redrawn: the patient is under 18"):
        decide(desk.server, ADA, job.id, Verdict.REJECTED, SHA256)


def test_job_without_pictures_says_so(desk):
    job = desk.add()
    desk.folders(job).audit.unlink()
    with pytest.raises(Conflict, match="pictures of this job are gone"):
        decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256)


def test_unknown_job(desk):
    with pytest.raises(NotFound):
        decide(desk.server, ADA, "0" * 32, Verdict.APPROVED, SHA256)


def test_own_image_may_be_approved_where_one_person_is_enough(desk):
    job = desk.add(submitter="ada")
    assert decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256).state is JobState.APPROVED


def test_new_bytes_reset_the_approval(desk):
    job = desk.add()
    decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256)
    desk.redraw(job, b"redrawn anew")

    fresh = claim(desk.server, BEN, job.id)

    assert (fresh.state, fresh.decided_by) == (JobState.AWAITING_REVIEW, "")
    assert fresh.sha256 == hashlib.sha256(b"redrawn anew").hexdigest()


class TestTwoPeople:
    def test_the_first_approval_waits_for_a_second_person(self, pair):
        job = pair.add()

        first = decide(pair.server, ADA, job.id, Verdict.APPROVED, SHA256, "fine")

        assert (first.state, first.first_approver) == (JobState.AWAITING_REVIEW, "ada")
        assert folder_state(pair, job) is Review.PENDING
        second = decide(pair.server, BEN, job.id, Verdict.APPROVED, SHA256)
        assert (second.state, second.first_approver, second.decided_by) == (
            JobState.APPROVED,
            "ada",
            "ben",
        )
        assert folder_state(pair, job) is Review.APPROVED
        steps = [step for step in pair.steps(job) if step[0] != "claimed"]
        assert steps == [("approved_first", "ada"), ("approved", "ben")]
        assert pair.findings(job) == []

    def test_one_person_counts_once(self, pair):
        job = pair.add()
        first = decide(pair.server, ADA, job.id, Verdict.APPROVED, SHA256)

        assert decide(pair.server, ADA, job.id, Verdict.APPROVED, SHA256) == first  # a repeat
        with pytest.raises(Conflict, match="you approved this image already"):
            decide(pair.server, ADA, job.id, Verdict.APPROVED, SHA256, "again")

    def test_who_queued_it_is_none_of_the_two_but_may_reject(self, pair):
        job = pair.add(submitter="ada")
        with pytest.raises(Conflict, match="who queued an image"):
            decide(pair.server, ADA, job.id, Verdict.APPROVED, SHA256)
        assert decide(pair.server, ADA, job.id, Verdict.REJECTED, SHA256).state is JobState.REJECTED

    @pytest.mark.parametrize("who", [ADA, BEN], ids=lambda who: who.name)
    def test_either_rejects_alone_and_both_are_needed_again(self, pair, who):
        job = pair.add()
        decide(pair.server, ADA, job.id, Verdict.APPROVED, SHA256)
        assert decide(pair.server, who, job.id, Verdict.REJECTED, SHA256).first_approver == ""

        claim(pair.server, BEN, job.id)
        again = decide(pair.server, BEN, job.id, Verdict.APPROVED, SHA256)

        assert (again.state, again.first_approver) == (JobState.AWAITING_REVIEW, "ben")
        done = decide(pair.server, CAI, job.id, Verdict.APPROVED, SHA256)
        assert done.state is JobState.APPROVED

    def test_new_bytes_need_both_again(self, pair):
        job = pair.add()
        decide(pair.server, ADA, job.id, Verdict.APPROVED, SHA256)
        pair.redraw(job, b"other")

        first = decide(pair.server, BEN, job.id, Verdict.APPROVED, OTHER)

        assert (first.state, first.first_approver) == (JobState.AWAITING_REVIEW, "ben")

    def test_what_its_submitter_approved_when_one_was_enough_needs_two_others(self, desk):
        job = desk.add(submitter="ada")
        decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256)
        pair = desk.with_settings(two_person=True, store="https://store.example/dicom-web")

        claim(pair.server, BEN, job.id)
        first = decide(pair.server, BEN, job.id, Verdict.APPROVED, SHA256)

        assert (first.state, first.first_approver) == (JobState.AWAITING_REVIEW, "ben")
        with pytest.raises(Conflict, match="one person approved this image, and two must"):
            deliver(pair.server, BEN, job.id)
        second = decide(pair.server, CAI, job.id, Verdict.APPROVED, SHA256)
        assert (second.state, second.first_approver) == (JobState.APPROVED, "ben")
        assert pair.findings(job) == []

    def test_what_it_and_another_approved_when_one_was_enough_does_not_leave(self, desk):
        job = desk.add(submitter="ada")
        for who in (BEN, ADA):
            claim(desk.server, who, job.id)
            decide(desk.server, who, job.id, Verdict.APPROVED, SHA256)
        pair = desk.with_settings(two_person=True, store="https://store.example/dicom-web")

        with pytest.raises(Conflict, match="one person approved this image, and two must"):
            deliver(pair.server, BEN, job.id)

    def test_two_at_once_end_in_one_approval_by_two(self, pair):
        job = pair.add()

        def approve(who):
            try:
                decide(pair.server, who, job.id, Verdict.APPROVED, SHA256)
            except Conflict:
                decide(pair.server, who, job.id, Verdict.APPROVED, SHA256)

        with ThreadPoolExecutor(2) as pool:
            results = [pool.submit(approve, who) for who in (ADA, BEN)]
            errors = [result.exception() for result in results]

        found = pair.job(job)
        if found.state is JobState.APPROVED:
            assert {found.first_approver, found.decided_by} == {"ada", "ben"}
        else:  # one of them was told twice that the other one works on it
            assert [isinstance(error, Conflict) for error in errors].count(True) == 1
            assert found.state is JobState.AWAITING_REVIEW


class Stop(BaseException):
    """Stands for a server that dies."""


def dies(*_: object, **__: object) -> None:
    raise Stop


class TestStops:
    """Whatever part a server that dies leaves undone is done by who asks next."""

    def stopped(self, desk, monkeypatch, owner, name):
        job = desk.add()
        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(owner, name, dies)
            decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256, "fine")
        return job

    @pytest.mark.parametrize(
        ("owner", "name", "entries"),
        [
            ("privdiff_infer.review", "write_records", 1),
            (decisions_module, "_finish", 1),
            (JobStore, "move", 2),  # the entry is told again
        ],
    )
    def test_the_decision_that_was_recorded_holds(self, desk, monkeypatch, owner, name, entries):
        target = __import__(owner, fromlist=["_"]) if isinstance(owner, str) else owner
        job = self.stopped(desk, monkeypatch, target, name)
        assert desk.job(job).state is JobState.AWAITING_REVIEW

        again = decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256, "fine")

        assert (again.state, again.decided_by) == (JobState.APPROVED, "ada")
        events = [event for event, _ in desk.steps(job)]
        assert events.count("approved") == entries
        assert desk.findings(job) == []

    def test_what_was_not_recorded_was_not_decided(self, desk, monkeypatch):
        job = self.stopped(desk, monkeypatch, decisions_module, "record")

        assert claim(desk.server, ADA, job.id).state is JobState.AWAITING_REVIEW

    def test_a_chain_that_cannot_be_written_keeps_the_row(self, desk, monkeypatch):
        job = desk.add()
        claim(desk.server, ADA, job.id)
        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(ServerAudit, "record", dies)
            decide(desk.server, ADA, job.id, Verdict.APPROVED, SHA256)
        assert desk.job(job).state is JobState.AWAITING_REVIEW

        assert claim(desk.server, ADA, job.id).state is JobState.APPROVED
        assert ("approved", "ada") in desk.steps(job)
