"""Publishing from the server: approved bytes alone, once, whatever the store does."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from monailabel_app.lib.errors import ApiError, Conflict
from monailabel_app.lib.jobs.job import Job
from monailabel_app.lib.jobs.states import JobState
from monailabel_app.lib.review import publishing
from monailabel_app.lib.review.claims import claim
from monailabel_app.lib.review.decisions import Verdict, decide
from monailabel_app.lib.review.publishing import NotDelivered, deliver, publish, report
from monailabel_app.lib.server import Server
from monailabel_app.lib.settings import ServerSettings
from privdiff_infer import publish as publish_module
from privdiff_infer.dicom import web_session
from privdiff_infer.verification import verify
from tests.integration.filled_state import fill
from tests.integration.orthanc import Orthanc, free_port, needs_orthanc
from tests.integration.unruly_proxy import Answer, running_proxy
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp
from tests.unit.outputs import AUDIT_KEY
from tests.unit.review_desk import ADA, BEN, Desk

pytestmark = needs_orthanc

SECRETS = ("Doe", "PHI-4711", "1.2.826")


@pytest.fixture(autouse=True)
def quick_and_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_session, "WAIT_SECONDS", (0.01,))
    monkeypatch.setattr(publish_module, "WAIT_SECONDS", (0.01,))
    monkeypatch.setenv("PRIVDIFF_LEDGER_FILE", str(tmp_path / "ledger"))


@dataclass(frozen=True)
class Redrawn:
    """A server with one job whose result is a DICOM file."""

    desk: Desk
    first: Job

    @property
    def server(self) -> Server:
        return self.desk.server

    @property
    def job(self) -> Job:
        return self.server.jobs.get(self.first.id)

    @property
    def content(self) -> bytes:
        return (self.folder / self.first.output).read_bytes()

    @property
    def folder(self) -> Path:
        return self.desk.folders(self.first).root

    def to(self, store: str, **settings: object) -> Redrawn:
        """Return the same after a restart with another store."""
        return Redrawn(self.desk.with_settings(store=store, **settings), self.first)

    def approve(self) -> Redrawn:
        claim(self.server, ADA, self.first.id)
        decide(self.server, ADA, self.first.id, Verdict.APPROVED, self.first.sha256)
        return self


@pytest.fixture
def redrawn(tmp_path: Path, tiny_bundle: Path) -> Redrawn:
    image = tmp_path / "doe.dcm"
    image.write_bytes(dicom_bytes(radiograph_dataset(ramp(12))))
    settings = ServerSettings(state=tmp_path / "state", studies=str(tmp_path))
    (job,) = fill(settings, [image], tiny_bundle)
    return Redrawn(Desk.at(settings.state), job)


def test_the_store_has_the_approved_bytes_and_a_repeat_is_harmless(
    redrawn: Redrawn, orthanc: Orthanc
) -> None:
    at = redrawn.to(orthanc.url).approve()

    job, answer = asyncio.run(publish(at.server, BEN, at.first.id))
    again, second = asyncio.run(publish(at.server, BEN, at.first.id))

    assert (job.state, answer) == (JobState.PUBLISHED, "the store has taken it")
    assert job.published > 0
    assert (again, second) == (job, "the store has it already")
    assert orthanc.files() == [at.content]
    assert at.desk.steps(job).count(("published", "ben")) == 1
    assert verify(at.folder, AUDIT_KEY).findings == []
    with pytest.raises(Conflict, match="published and cannot be taken back"):
        decide(at.server, ADA, job.id, Verdict.REJECTED, at.first.sha256)


@pytest.mark.parametrize("state", ["awaiting_review", "rejected"])
def test_what_is_not_approved_does_not_leave(
    redrawn: Redrawn, orthanc: Orthanc, state: str
) -> None:
    at = redrawn.to(orthanc.url)
    if state == "rejected":
        decide(at.server, ADA, at.first.id, Verdict.REJECTED, at.first.sha256)

    with pytest.raises(Conflict, match=f"{state}, not approved"):
        deliver(at.server, ADA, at.first.id)

    assert orthanc.files() == []


def test_a_row_that_says_approved_is_not_believed(redrawn: Redrawn, orthanc: Orthanc) -> None:
    at = redrawn.to(orthanc.url)
    at.server.jobs.move(at.first.id, JobState.APPROVED, decided_by="mallory", decided=1.0)

    with pytest.raises(Conflict, match="not approved"):
        deliver(at.server, ADA, at.first.id)

    assert at.job.state is JobState.AWAITING_REVIEW
    assert orthanc.files() == []


def test_one_approval_is_too_few_once_the_server_wants_two(
    redrawn: Redrawn, orthanc: Orthanc
) -> None:
    at = redrawn.approve().to(orthanc.url, two_person=True)
    with pytest.raises(Conflict, match="one person approved this image, and two must"):
        deliver(at.server, ADA, at.first.id)

    claim(at.server, BEN, at.first.id)
    decide(at.server, BEN, at.first.id, Verdict.APPROVED, at.first.sha256)

    assert deliver(at.server, ADA, at.first.id)[0].state is JobState.PUBLISHED


def test_changed_bytes_do_not_leave(redrawn: Redrawn, orthanc: Orthanc) -> None:
    at = redrawn.to(orthanc.url).approve()
    file = at.folder / at.first.output
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")

    with pytest.raises(NotDelivered, match="not the one that was approved"):
        deliver(at.server, ADA, at.first.id)

    assert orthanc.files() == []


@pytest.mark.parametrize(
    ("status", "words"), [(401, "PRIVDIFF_DICOMWEB"), (403, "not published"), (503, "503")]
)
def test_a_store_that_refuses_is_explained_and_changes_nothing(
    redrawn: Redrawn, orthanc: Orthanc, status: int, words: str
) -> None:
    with running_proxy(orthanc.url.removesuffix("/dicom-web")) as proxy:
        at = redrawn.to(proxy.url).approve()
        proxy.behaviour = lambda request, forward: Answer(status)

        with pytest.raises(NotDelivered) as refused:
            deliver(at.server, ADA, at.first.id)

        assert words in str(refused.value)
        assert not [secret for secret in SECRETS if secret in str(refused.value)]
        assert refused.value.status == 409
        assert at.job.state is JobState.APPROVED
        proxy.behaviour = lambda request, forward: forward(request)
        assert deliver(at.server, ADA, at.first.id)[0].state is JobState.PUBLISHED
    assert orthanc.files() == [at.content]
    assert ("publish_failed", "ada") in at.desk.steps(at.first)


def test_a_store_that_is_down_changes_nothing(redrawn: Redrawn) -> None:
    at = redrawn.to(f"http://127.0.0.1:{free_port()}/dicom-web").approve()

    with pytest.raises(NotDelivered, match="was not published"):
        deliver(at.server, ADA, at.first.id)

    assert at.job.state is JobState.APPROVED
    assert verify(at.folder, AUDIT_KEY).findings == []


def test_a_store_that_hangs_is_waited_for_so_long_and_no_longer(
    redrawn: Redrawn, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "PUBLISH_SECONDS", 0.3)
    with running_proxy(orthanc.url.removesuffix("/dicom-web")) as proxy:
        at = redrawn.to(proxy.url).approve()

        def slow(request, forward):
            time.sleep(1)
            return forward(request)

        proxy.behaviour = slow
        with pytest.raises(NotDelivered, match="has not answered"):
            asyncio.run(publish(at.server, ADA, at.first.id))
        deadline = time.monotonic() + 60
        while at.job.state is not JobState.PUBLISHED and time.monotonic() < deadline:
            time.sleep(0.1)

    assert at.job.state is JobState.PUBLISHED
    assert orthanc.files() == [at.content]


def test_nothing_unapproved_leaves_whatever_happens_at_once(
    redrawn: Redrawn, orthanc: Orthanc
) -> None:
    at = redrawn.to(orthanc.url)

    def repeat(action) -> None:
        for _ in range(6):
            with suppress(ApiError):
                action()

    def say(who, verdict):
        claim(at.server, who, at.first.id)
        decide(at.server, who, at.first.id, verdict, at.first.sha256)

    with ThreadPoolExecutor(4) as pool:
        done = [
            pool.submit(repeat, lambda: say(ADA, Verdict.APPROVED)),
            pool.submit(repeat, lambda: say(BEN, Verdict.REJECTED)),
            pool.submit(repeat, lambda: deliver(at.server, ADA, at.first.id)),
            pool.submit(repeat, lambda: deliver(at.server, BEN, at.first.id)),
        ]
        for one in done:
            one.result()

    with suppress(ApiError):  # whatever was left half-way is repaired
        claim(at.server, ADA, at.first.id)
    events = [
        entry.event.value
        for entry in at.desk.entries(at.first)
        if entry.event.value in ("approved", "rejected", "published")
    ]
    if "published" in events:
        assert events[events.index("published") - 1] == "approved"
        assert events[-1] == "published"
        assert at.job.state is JobState.PUBLISHED
        assert orthanc.files() == [at.content]
    else:
        assert orthanc.files() == []
    assert verify(at.folder, AUDIT_KEY).findings == []


class TestReports:
    """A client has sent the bytes itself."""

    def test_a_report_is_recorded_as_a_publication_is(
        self, redrawn: Redrawn, tmp_path: Path
    ) -> None:
        at = redrawn.approve()
        store = "http://pacs.example/dicom-web"

        job = report(at.server, BEN, at.first.id, at.first.sha256, store, "200, 1.2.840.1.5 taken")
        again = report(at.server, BEN, at.first.id, at.first.sha256, store, "200")

        assert (job.state, again) == (JobState.PUBLISHED, job)
        published = [e for e in at.desk.entries(at.first) if e.event.value == "published"]
        assert [entry.facts["target"] for entry in published] == [store]
        assert published[0].facts["warning"] == "200, (uid) taken"
        with sqlite3.connect(tmp_path / "ledger") as ledger:
            assert [row[2] for row in ledger.execute("SELECT * FROM published")] == [1]
        assert ("published", "ben") in at.desk.steps(job)
        assert verify(at.folder, AUDIT_KEY).findings == []

    @pytest.mark.parametrize("wrong", ["bytes", "state", "store"])
    def test_a_wrong_report_changes_nothing(self, redrawn: Redrawn, wrong: str) -> None:
        at = redrawn if wrong == "state" else redrawn.approve()
        state = at.job.state
        sha256 = hashlib.sha256(b"other").hexdigest() if wrong == "bytes" else at.first.sha256
        store = "http://me:secret@pacs/d" if wrong == "store" else "http://pacs/d"

        with pytest.raises(Conflict) as refused:
            report(at.server, BEN, at.first.id, sha256, store)

        assert "secret" not in str(refused.value)
        assert at.job.state is state

    def test_a_second_version_of_a_source_is_told_to_be_withdrawn(
        self, redrawn: Redrawn, orthanc: Orthanc, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        at = redrawn.to(orthanc.url).approve()
        deliver(at.server, ADA, at.first.id)
        other = ServerSettings(state=tmp_path / "other", studies=str(tmp_path))
        image = tmp_path / "doe.dcm"
        (_, second) = fill(other, [image, image], tiny_bundle)
        twin = Redrawn(Desk.at(other.state), second).approve()

        with pytest.raises(Conflict, match="another version of its source"):
            report(twin.server, ADA, second.id, second.sha256, orthanc.url)

        assert twin.job.state is JobState.APPROVED
        assert ("publish_failed", "ada") in twin.desk.steps(second)
