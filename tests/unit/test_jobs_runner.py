"""The way of one job, with its failures; images are redrawn in this process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from sqlalchemy.exc import OperationalError

from monailabel_app.lib.errors import Conflict
from monailabel_app.lib.jobs.cleaning import Cleaner, delete_pictures
from monailabel_app.lib.jobs.engine import Engine, StopSignal, WorkerDied
from monailabel_app.lib.jobs.job import NewJob
from monailabel_app.lib.jobs.runner import LONGEST_PAUSE, Cancelled, Interrupted, JobRunner
from monailabel_app.lib.jobs.states import MAX_ATTEMPTS, JobState
from privdiff_infer.audit import continued_log
from privdiff_infer.cluster import Workers
from privdiff_infer.dicom.web import WebInstance
from privdiff_infer.errors import (
    BundleError,
    ImageHeld,
    OutputError,
    SecretError,
    StoreError,
    WorkersLost,
)
from privdiff_infer.release import Review
from privdiff_infer.review import record
from tests.conftest import write_picture
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp
from tests.unit.job_house import House


@pytest.fixture
def house(tmp_path: Path, tiny_bundle: Path) -> House:
    return House(tmp_path / "state", tmp_path, tiny_bundle)


@pytest.fixture
def picture(tmp_path: Path) -> bytes:
    write_picture(tmp_path / "x.png", 0)
    return (tmp_path / "x.png").read_bytes()


def files(house: House, job_id: str) -> list[Path]:
    root = house.server.folder.job(job_id).root
    return [path for path in root.rglob("*") if path.is_file()]


def raise_it(error: BaseException):
    def do(*_: object) -> None:
        raise error

    return do


def failing_with(error: Exception):
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_a_job_becomes_a_result_that_verifies(house, picture):
    house.upload(picture)

    job = house.run()

    folders = house.server.folder.job(job.id)
    assert job.state is JobState.AWAITING_REVIEW
    assert (folders.root / job.output).is_file()
    assert (job.model, job.model_version, job.linkage_limit) == ("tiny", "1.0", 1.0)
    assert set(job.figures) >= {"identity_similarity", "findings_after", "text_state"}
    assert job.finished >= job.started > 0
    assert house.findings(job) == []
    assert house.steps and house.told(job) == ["image_released"]
    assert not house.server.folder.upload(job.id).exists()


def test_the_worker_is_sent_no_header(house):
    seen = []
    house.engine.before = seen.append
    house.upload(dicom_bytes(radiograph_dataset(ramp())))

    job = house.run()

    assert job.output.endswith(".dcm")
    assert seen[0].dataset is None and seen[0].sop_instance_uid is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"no image at all", "this is not an image that can be read"),
        (dicom_bytes(radiograph_dataset(ramp()))[:2000], ""),
    ],
)
def test_a_broken_upload_is_a_failed_job_with_a_reason(house, content, reason):
    house.upload(content)

    job = house.run()

    assert job.state is JobState.FAILED
    assert job.reason and reason in job.reason
    assert house.told(job) == ["image_failed"]


def test_reasons_are_the_public_ones(house, picture):
    house.engine.before = raise_it(ImageHeld("this is a child", "do not", detail="age 004Y"))
    house.upload(picture)

    job = house.run()

    assert job.state is JobState.HELD
    assert job.reason == "this is a child; do not"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("x"), MemoryError()])
def test_no_memory_is_a_reason(house, picture, error):
    house.engine.before = raise_it(error)
    house.upload(picture)

    job = house.run()

    assert job.state is JobState.FAILED
    assert job.reason.startswith("not enough memory")


def test_an_image_that_kills_its_workers_ends(house, picture):
    house.engine.before = raise_it(WorkerDied())
    house.upload(picture)

    job = house.run()

    assert (job.state, house.engine.calls) == (JobState.FAILED, MAX_ATTEMPTS)
    assert f"died {MAX_ATTEMPTS} times" in job.reason


def test_an_image_that_kills_dispatchers_ends(house, picture):
    house.upload(picture)
    for _ in range(MAX_ATTEMPTS):
        house.jobs.take()
        house.jobs.recover()

    assert house.run().state is JobState.FAILED
    assert house.engine.calls == 0


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privdiff_infer.run.Run.finish", raise_it(OutputError("full", "free it")))


def test_a_full_disk_is_tried_again_later(house, picture, monkeypatch):
    monkeypatch.setattr("monailabel_app.lib.jobs.runner.SECONDS_BEFORE_RETRY", 0)
    house.upload(picture)
    with monkeypatch.context() as patch:
        fill_disk(patch)
        waits = house.run()

    done = house.run()

    assert (waits.state, done.state) == (JobState.QUEUED, JobState.AWAITING_REVIEW)
    assert house.findings(done) == []


def test_a_disk_that_stays_full_fails(house, picture, monkeypatch):
    monkeypatch.setattr("monailabel_app.lib.jobs.runner.SECONDS_BEFORE_RETRY", 0)
    fill_disk(monkeypatch)
    house.upload(picture)

    states = [house.run().state for _ in range(MAX_ATTEMPTS)]

    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]


DATABASE_LOST = OperationalError("select", {}, Exception("gone"))
FAULTS = {
    "workers": ("tests.unit.job_house.Here.redraw", WorkersLost()),
    "model of the workers": ("tests.unit.job_house.Here.redraw", BundleError("other", "copy it")),
    "model": ("monailabel_app.lib.jobs.runner.Run", BundleError("it is damaged", "copy it")),
    "registry": (
        "monailabel_app.lib.models.registry.ModelRegistry.resolve",
        Conflict("the default model is no longer there", "make another one the default"),
    ),
    "key": ("monailabel_app.lib.jobs.runner.Run", SecretError("no key", "make one")),
    "database": ("monailabel_app.lib.jobs.store.JobStore.set", DATABASE_LOST),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_server_are_no_attempts(house, picture, fault, monkeypatch):
    monkeypatch.setattr("monailabel_app.lib.jobs.runner.FIRST_PAUSE", 0)
    job_id = house.upload(picture).id
    with monkeypatch.context() as patch:
        place, error = FAULTS[fault]
        patch.setattr(place, failing_with(error))
        waiting = [house.run() for _ in range(MAX_ATTEMPTS + 1)]
    kept = house.server.folder.upload(job_id).exists()

    done = house.run()

    assert {(job.state, job.attempts) for job in waiting} == {(JobState.QUEUED, 0)}
    assert waiting[0].reason.endswith("the job waits and is tried again")
    assert kept
    assert (done.state, done.attempts, done.reason) == (JobState.AWAITING_REVIEW, 1, "")
    assert house.told(done) == ["image_released"]
    assert house.findings(done) == []


def test_a_database_that_is_lost_as_a_worker_dies_is_no_attempt(house, picture, monkeypatch):
    house.engine.before = raise_it(WorkerDied())
    monkeypatch.setattr(
        "monailabel_app.lib.jobs.store.JobStore.begin_again", failing_with(DATABASE_LOST)
    )
    house.upload(picture)

    job = house.run()

    assert (job.state, job.attempts) == (JobState.QUEUED, 0)


def test_pauses_grow_and_have_an_end(house, picture):
    house.engine.before = raise_it(WorkersLost())
    job_id = house.upload(picture).id
    runner = JobRunner(
        house.settings, house.jobs, house.server.audit, house.engine, lambda *_: None
    )
    pauses = []
    for _ in range(9):
        runner.run(house.jobs.take(), StopSignal())
        pauses.append(round(house.jobs.get(job_id).not_before - time.time()))
        house.jobs.set(job_id, not_before=0.0)

    assert pauses[:3] == [5, 10, 20]
    assert max(pauses) == pauses[-1] == LONGEST_PAUSE


def test_a_model_that_a_client_named_and_nobody_has_fails(house, picture):
    house.upload(picture, model="no-such-model")

    assert house.run().state is JobState.FAILED


@pytest.mark.parametrize(
    ("is_passing", "state"), [(True, JobState.QUEUED), (False, JobState.FAILED)]
)
def test_a_job_waits_for_a_store_that_is_away(house, monkeypatch, is_passing, state):
    class Store:
        def retrieve(self, *_: str) -> bytes:
            raise StoreError("the store does not answer", "wait", is_passing=is_passing)

    monkeypatch.setattr("privdiff_infer.dicom.web.open_store", lambda _: Store())
    house.jobs.add(NewJob(WebInstance("https://host/rs", "1.2", "1.2.3", "1.2.3.4"), "ann"))

    job = house.run()

    assert job.state is state
    assert job.reason.startswith("the store does not answer; ")
    assert (job.attempts, house.told(job)) == ((0, []) if is_passing else (1, ["image_failed"]))


def test_a_scheduler_that_does_not_answer_is_lost(house):
    class Silent:
        def nthreads(self) -> dict[str, int]:
            raise OSError("timed out")

    engine = object.__new__(Engine)
    engine._settings = house.settings.model_copy(update={"scheduler": "tls://host:1"})
    engine._workers = Workers(Silent(), own=0)

    with pytest.raises(WorkersLost):
        _ = engine.workers


def test_a_job_that_is_cancelled_leaves_nothing(house, picture):
    job_id = house.upload(picture).id
    stop = StopSignal()
    house.engine.before = lambda _: (house.jobs.cancel(job_id), stop.set(Cancelled()))

    job = house.run(stop)

    assert job.state is JobState.CANCELLED
    assert files(house, job_id) == []
    assert not house.server.folder.upload(job_id).exists()


def test_a_job_that_is_cancelled_as_it_ends_stays_cancelled(house, picture):
    job_id = house.upload(picture).id
    house.engine.after = lambda: house.jobs.cancel(job_id)

    job = house.run()

    assert (job.state, job.sha256) == (JobState.CANCELLED, "")
    assert files(house, job_id) == []


def test_a_job_goes_on_after_its_dispatcher_ended(house, picture):
    house.upload(picture)
    stop = StopSignal()
    house.engine.before = lambda _: stop.set(Interrupted())

    waits = house.run(stop)
    house.engine.before = lambda _: None
    done = house.run()

    assert (waits.state, waits.attempts) == (JobState.QUEUED, 0)
    assert (done.state, done.attempts) == (JobState.AWAITING_REVIEW, 1)
    assert house.findings(done) == []


def test_a_result_whose_row_was_not_written_is_not_redrawn(house, picture, monkeypatch):
    house.upload(picture)
    with monkeypatch.context() as patch:
        patch.setattr(
            "monailabel_app.lib.jobs.runner.JobRunner._end", raise_it(KeyboardInterrupt())
        )
        with pytest.raises(KeyboardInterrupt):
            house.run()
    house.jobs.recover()

    job = house.run()

    assert (job.state, house.engine.calls) == (JobState.AWAITING_REVIEW, 1)
    assert house.findings(job) == []


@pytest.mark.parametrize("left", ["", "run.json", "release", "audit.jsonl"])
def test_a_run_that_was_only_half_begun_blocks_nothing(house, picture, left):
    job_id = house.upload(picture).id
    folders = house.server.folder.job(job_id)
    folders.root.mkdir()
    if left == "release":
        folders.create()
    elif left:
        folders.create()
        (folders.private / left).write_bytes(b"")

    job = house.run()

    assert job.state is JobState.AWAITING_REVIEW
    assert house.findings(job) == []


def test_pictures_go_and_the_chain_still_verifies(house, picture):
    house.upload(picture)
    job = house.run()
    folders = house.server.folder.job(job.id)

    with continued_log(folders) as log:
        delete_pictures(folders, log, results=False)
    assert list(folders.review.iterdir()) == []
    assert (folders.root / job.output).is_file()
    assert house.findings(job) == []

    with continued_log(folders) as log:
        delete_pictures(folders, log, results=True)
    assert not (folders.root / job.output).exists()
    assert house.findings(job) == []


@pytest.mark.parametrize(
    ("state", "goes"),
    [
        (JobState.REJECTED, True),
        (JobState.HELD, True),
        (JobState.APPROVED, False),
        (JobState.PUBLISHED, False),
        (JobState.AWAITING_REVIEW, False),
    ],
)
def test_old_jobs_are_cleaned_once(house, picture, state, goes):
    house.upload(picture)
    job = house.run()
    folders = house.server.folder.job(job.id)
    long_ago = time.time() - 31 * 86_400
    house.jobs.set(job.id, state=state.value, finished=long_ago, decided=long_ago)

    for _ in range(2):
        Cleaner(house.settings, house.jobs, house.server.audit).look()

    originals = list(folders.review.iterdir())
    assert bool(originals) == (state is JobState.AWAITING_REVIEW)
    assert (folders.root / job.output).exists() != goes
    assert house.told(job).count("job_expired") == (state is not JobState.AWAITING_REVIEW)
    assert house.findings(job) == []


def decide(house: House, job_id: str, days_ago: int, **values: object) -> None:
    then = time.time() - days_ago * 86_400
    house.jobs.set(job_id, finished=then, decided=then, **values)


def look(house: House) -> None:
    Cleaner(house.settings, house.jobs, house.server.audit).look()


def test_what_was_approved_and_is_rejected_later_goes_then(house, picture):
    house.upload(picture)
    job = house.run()
    result = house.server.folder.job(job.id).root / job.output
    decide(house, job.id, 62, state="approved")
    look(house)
    assert result.is_file()

    decide(house, job.id, 31, state="rejected", cleaned=time.time() - 32 * 86_400)
    look(house)

    assert not result.exists()
    assert house.findings(house.jobs.get(job.id)) == []


def test_what_is_approved_as_it_is_to_be_cleaned_stays(house, picture):
    house.upload(picture)
    job = house.run()
    folders = house.server.folder.job(job.id)
    decide(house, job.id, 31, state="rejected")
    record(folders.root, [job.output], Review.APPROVED, "eve")  # the row does not follow yet

    look(house)

    assert (folders.root / job.output).is_file()
    assert list(folders.review.iterdir())
    assert house.jobs.get(job.id).cleaned == 0


def test_a_changed_chain_keeps_results_but_no_originals(house, picture):
    house.upload(picture)
    job = house.run()
    folders = house.server.folder.job(job.id)
    decide(house, job.id, 31, state="rejected")
    folders.audit.write_bytes(folders.audit.read_bytes().replace(b"image_released", b"image_held"))

    look(house)

    assert (folders.root / job.output).is_file()
    assert list(folders.review.iterdir()) == []
    assert house.jobs.get(job.id).cleaned == 0


def test_jobs_that_cannot_be_cleaned_hold_up_no_others(house, picture, monkeypatch):
    monkeypatch.setattr("monailabel_app.lib.jobs.cleaning.JOBS_AT_ONCE", 1)
    monkeypatch.setattr("monailabel_app.lib.jobs.cleaning.SECONDS_BETWEEN_LOOKS", 0)
    for _ in range(2):
        house.upload(picture)
    broken, sound = house.run(), house.run()
    for job in (broken, sound):
        decide(house, job.id, 31, state="rejected")
    unlink = Path.unlink

    def refused(path: Path, *arguments: bool, **named: bool) -> None:
        if broken.id in path.parts:
            raise PermissionError
        unlink(path, *arguments, **named)

    monkeypatch.setattr(Path, "unlink", refused)
    cleaner = Cleaner(house.settings, house.jobs, house.server.audit)
    for _ in range(2):
        cleaner.look()

    assert house.jobs.get(broken.id).cleaned == 0
    assert house.jobs.get(sound.id).cleaned > 0


def test_uploads_that_go_by_themselves_are_no_error(house, monkeypatch):
    gone = house.server.folder.upload("f" * 32)
    monkeypatch.setattr(Path, "iterdir", lambda _: iter([gone]))

    look(house)


def test_uploads_without_need_go(house, picture):
    needed = house.upload(picture).id
    done = house.upload(picture).id
    house.jobs.cancel(done)
    stray = house.server.folder.upload("f" * 32)
    stray.write_bytes(b"being sent")

    Cleaner(house.settings, house.jobs, house.server.audit).look()

    left = {path.name for path in house.server.folder.uploads.iterdir()}
    assert left == {needed, stray.name}
