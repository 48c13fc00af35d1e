"""The way of one job, with its failures; images are redrawn in this process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from monailabel_app.lib.jobs.cleaning import Cleaner, delete_pictures
from monailabel_app.lib.jobs.engine import EngineLost, StopSignal, WorkerDied
from monailabel_app.lib.jobs.runner import Cancelled, Interrupted
from monailabel_app.lib.jobs.states import MAX_ATTEMPTS, JobState
from privdiff_infer.errors import ImageHeld, OutputError
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


def lose_workers(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.engine.before = raise_it(EngineLost())


def fill_disk(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privdiff_infer.run.Run.finish", raise_it(OutputError("full", "free it")))


@pytest.mark.parametrize("happens", [lose_workers, fill_disk])
def test_what_passes_is_tried_again_later(house, picture, happens, monkeypatch):
    monkeypatch.setattr("monailabel_app.lib.jobs.runner.SECONDS_BEFORE_RETRY", 0)
    house.upload(picture)
    with monkeypatch.context() as patch:
        happens(house, patch)
        waits = house.run()
    house.engine.before = lambda _: None

    done = house.run()

    assert (waits.state, done.state) == (JobState.QUEUED, JobState.AWAITING_REVIEW)
    assert house.findings(done) == []


@pytest.mark.parametrize("happens", [lose_workers, fill_disk])
def test_what_does_not_pass_fails(house, picture, happens, monkeypatch):
    monkeypatch.setattr("monailabel_app.lib.jobs.runner.SECONDS_BEFORE_RETRY", 0)
    happens(house, monkeypatch)
    house.upload(picture)

    states = [house.run().state for _ in range(MAX_ATTEMPTS)]

    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]


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

    delete_pictures(folders, results=False)
    assert list(folders.review.iterdir()) == []
    assert (folders.root / job.output).is_file()
    assert house.findings(job) == []

    delete_pictures(folders, results=True)
    assert not (folders.root / job.output).exists()
    assert house.findings(job) == []


@pytest.mark.parametrize(
    ("state", "goes"),
    [
        (JobState.REJECTED, True),
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


def test_uploads_without_need_go(house, picture):
    needed = house.upload(picture).id
    done = house.upload(picture).id
    house.jobs.cancel(done)
    stray = house.server.folder.upload("f" * 32)
    stray.write_bytes(b"being sent")

    Cleaner(house.settings, house.jobs, house.server.audit).look()

    left = {path.name for path in house.server.folder.uploads.iterdir()}
    assert left == {needed, stray.name}
