"""The routes of jobs: what they take, whom they tell what, and that no person is told of."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monailabel_app.lib.jobs.states import JobState
from privdiff_infer.errors import WorkersLost
from privdiff_infer.image_files import decode_nrrd
from privdiff_infer.radiograph import decode_radiograph
from tests.conftest import write_picture
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp
from tests.unit.job_house import ANN, BOB, EVE, House

API = "/privdiff/v1/jobs"
UNKNOWN = "f" * 32


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> House:
    folder = tmp_path_factory.mktemp("house")
    studies = folder / "studies"
    studies.mkdir()
    write_picture(studies / "Doe_Jane.png", 5)
    return House(folder / "state", studies, tiny_bundle)


@pytest.fixture
def new_house(tmp_path: Path, tiny_bundle: Path) -> House:
    return House(tmp_path / "state", tmp_path, tiny_bundle, max_queued=3)


@pytest.fixture(scope="module")
def source() -> bytes:
    dataset = radiograph_dataset(ramp(shape=(96, 96)), PatientName="Doe^Jane", PatientID="PHI-4711")
    return dicom_bytes(dataset)


@pytest.fixture(scope="module")
def done(house: House, source: bytes) -> str:
    """A finished job of a DICOM file that ann sent."""
    files = {"files": ("Doe_Jane_19780304.dcm", source)}
    answer = house.client(ANN).post(API, files=files)
    assert answer.status_code == 201, answer.text
    job = house.run()
    assert job.state is JobState.AWAITING_REVIEW, job.reason
    return job.id


def files(count: int, content: bytes = b"x" * 100) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"Doe_{number}.dcm", content)) for number in range(count)]


def uploads(house: House) -> int:
    return len(list(house.server.folder.uploads.iterdir()))


def test_several_files_become_one_job_each(new_house):
    data = {"profile": "fast", "strength": "0.4", "priority": "batch", "batch": "b", "seed": "7"}
    answer = new_house.client(ANN).post(API, files=files(2), data=data)

    assert answer.status_code == 201
    first, second = answer.json()["jobs"]
    assert (first["position"], second["position"]) == (1, 2)
    assert first["options"]["profile"] == "fast" and first["options"]["seed"] == 7
    assert (first["priority"], first["batch"], first["submitter"]) == ("batch", "b", "ann")
    assert new_house.told(new_house.jobs.get(first["id"])) == ["job_queued"]


def test_images_of_the_datastore_are_queued_by_their_ids(house):
    (image,) = house.server.studies.entries()

    answer = house.client(ANN).post(API, data={"images": [image]})
    job = answer.json()["jobs"][0]
    house.client(ANN).delete(f"{API}/{job['id']}")

    assert answer.status_code == 201 and job["image"] == image
    assert "Doe" not in answer.text


def test_a_request_that_is_sent_again_makes_no_new_jobs(new_house):
    client, headers = new_house.client(ANN), {"Idempotency-Key": "k"}

    first = client.post(API, files=files(2), headers=headers)
    again = client.post(API, files=files(2), headers=headers)
    other = new_house.client(BOB).post(API, files=files(1), headers=headers)

    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 201)
    assert [job["id"] for job in first.json()["jobs"]] == [j["id"] for j in again.json()["jobs"]]
    assert uploads(new_house) == 3


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({}, 400),
        ({"images": ["no-such-image"]}, 404),
        ({"images": ["../../etc/passwd"]}, 404),
        ({"model": "nothing"}, 404),
        ({"strength": "0"}, 422),
        ({"strength": "nan"}, 422),
        ({"seed": "-1"}, 422),
        ({"profile": "magic"}, 422),
        ({"priority": "0"}, 422),
        ({"batch": "b" * 101}, 422),
    ],
)
def test_impossible_requests_are_refused_and_leave_nothing(new_house, data, status):
    sent = [] if not data or "images" in data else files(1)

    answer = new_house.client(ANN).post(API, files=sent, data=data)

    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error", "message", "hint"}
    assert uploads(new_house) == 0 and not new_house.jobs.page().jobs


def test_a_full_queue_says_so(new_house):
    client = new_house.client(ANN)
    assert client.post(API, files=files(3)).status_code == 201

    answer = client.post(API, files=files(1))

    assert (answer.status_code, answer.json()["error"]) == (429, "busy")
    assert uploads(new_house) == 3


def test_a_queued_job_is_cancelled_with_its_upload(new_house):
    client = new_house.client(ANN)
    job_id = client.post(API, files=files(1)).json()["jobs"][0]["id"]

    cancelled, again = client.delete(f"{API}/{job_id}"), client.delete(f"{API}/{job_id}")

    assert cancelled.json()["state"] == "cancelled"
    assert again.status_code == 409
    assert uploads(new_house) == 0
    assert new_house.told(new_house.jobs.get(job_id)) == ["job_queued", "job_cancelled"]


def test_a_job_that_was_begun_and_waits_again_is_cancelled_with_its_folder(new_house, tmp_path):
    def lose_workers(_: object) -> None:
        raise WorkersLost

    write_picture(tmp_path / "x.png", 0)
    new_house.upload((tmp_path / "x.png").read_bytes())
    new_house.engine.before = lose_workers
    waits = new_house.run()
    root = new_house.server.folder.job(waits.id).root
    assert waits.state is JobState.QUEUED and root.exists()

    new_house.client(ANN).delete(f"{API}/{waits.id}")

    assert not root.exists()
    assert uploads(new_house) == 0


def test_users_see_their_own_jobs_and_reviewers_all(house, done):
    listed = {
        who.name: [
            job["id"] for job in house.client(who).get(API, params={"state": state}).json()["jobs"]
        ]
        for who, state in (
            (ANN, "awaiting_review"),
            (BOB, "awaiting_review"),
            (EVE, "awaiting_review"),
        )
    }

    assert listed == {"ann": [done], "bob": [], "eve": [done]}
    assert house.client(BOB).get(API).json()["counts"]["awaiting_review"] == 0


@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("DELETE", ""), ("GET", "/result"), ("GET", "/report")]
)
def test_another_users_job_is_not_there(house, done, method, rest):
    theirs = house.client(BOB).request(method, f"{API}/{done}{rest}")
    nobodys = house.client(BOB).request(method, f"{API}/{UNKNOWN}{rest}")

    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.json() == nobodys.json()


@pytest.mark.parametrize("route", ["source", "difference"])
def test_originals_are_for_reviewers_and_leave_an_entry(house, done, route):
    before = house.told(house.jobs.get(done)).count("original_shown")

    refused = house.client(ANN).get(f"{API}/{done}/{route}")
    shown = house.client(EVE).get(f"{API}/{done}/{route}")

    assert refused.status_code == 403
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")
    assert house.told(house.jobs.get(done)).count("original_shown") == before + 1


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [
        ("file", "application/dicom"),
        ("dicom", "application/dicom"),
        ("nrrd", "application/x-nrrd"),
        ("png", "image/png"),
    ],
)
def test_every_kind_of_result_holds_the_released_pixels(house, done, kind, media_type):
    client = house.client(ANN)
    record = client.get(f"{API}/{done}/result")

    answer = client.get(f"{API}/{done}/result", params={"kind": kind})

    digest = hashlib.sha256(record.content).hexdigest()
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-privdiff-sha256"] == digest == house.jobs.get(done).sha256
    assert answer.headers["etag"].strip('"') == hashlib.sha256(answer.content).hexdigest()
    assert answer.headers["content-disposition"].startswith('attachment; filename="cxr-')
    released = decode_radiograph(record.content)
    pixels, spacing_mm = pixels_of(answer.content, kind)
    assert np.allclose(released.pixels, pixels, atol=1 / 255)
    assert spacing_mm == (pytest.approx(released.spacing_mm, rel=1e-3) if spacing_mm else None)


def pixels_of(content: bytes, kind: str) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Return pixels as they were written; the reader of PNG knows no spacing."""
    if kind == "nrrd":
        return decode_nrrd(content)
    sent = decode_radiograph(content)
    return sent.pixels, sent.spacing_mm


def test_a_result_of_another_format_is_no_dicom(house, tmp_path):
    write_picture(tmp_path / "x.png", 1)
    job_id = house.upload((tmp_path / "x.png").read_bytes()).id
    house.run()

    answer = house.client(ANN).get(f"{API}/{job_id}/result", params={"kind": "dicom"})

    assert answer.status_code == 409
    assert "image/png" in answer.json()["message"]


def test_there_is_no_result_before_the_end_nor_of_a_failure(house):
    client, job_id = house.client(ANN), house.upload(b"no image").id

    early = client.get(f"{API}/{job_id}/result")
    house.run()
    late = client.get(f"{API}/{job_id}/result")

    assert (early.status_code, late.status_code) == (409, 404)
    assert client.get(f"{API}/{job_id}").json()["reason"].startswith("this is not an image")


def test_a_result_that_was_changed_is_not_sent(house, source):
    job_id = house.upload(source).id
    job = house.run()
    (house.server.folder.job(job_id).root / job.output).write_bytes(b"changed")

    assert house.client(ANN).get(f"{API}/{job_id}/result").status_code == 409


def test_a_held_result_is_for_reviewers(house, done):
    job = house.jobs.get(done)
    house.jobs.set(done, state=JobState.HELD.value)

    answers = [house.client(who).get(f"{API}/{done}/result").status_code for who in (ANN, EVE)]
    house.jobs.set(done, state=job.state.value)

    assert answers == [403, 200]


@pytest.mark.parametrize("kind", ["json", "html"])
def test_the_report_of_a_job_is_sent(house, done, kind):
    answer = house.client(ANN).get(f"{API}/{done}/report", params={"kind": kind})

    assert answer.status_code == 200
    assert kind in answer.headers["content-type"]


def test_nothing_but_pictures_of_the_original_tells_of_the_person(house, done, source):
    planted = [b"Doe", b"Jane", b"DOE", b"PHI-4711", b"19780304"]
    uid = radiograph_dataset(ramp()).SOPInstanceUID.encode()
    paths = [
        (API, {}),
        (f"{API}/{done}", {}),
        *((f"{API}/{done}/result", {"kind": kind}) for kind in ("file", "nrrd", "png")),
        *((f"{API}/{done}/report", {"kind": kind}) for kind in ("json", "html")),
    ]
    for path, query in paths:
        for who in (ANN, EVE):
            answer = house.client(who).get(path, params=query)
            told = answer.content + str(answer.headers).encode()
            assert not [word for word in (*planted, uid) if word in told], (path, query)
            assert str(house.settings.state).encode() not in told


def test_progress_and_time_left_are_told(new_house, tmp_path):
    client = new_house.client(ANN)
    job_id = client.post(API, files=files(1)).json()["jobs"][0]["id"]
    new_house.jobs.take()
    new_house.jobs.set(job_id, started=new_house.jobs.get(job_id).started - 10)
    new_house.jobs.report_steps({job_id: (5, 10)})

    job = client.get(f"{API}/{job_id}").json()

    assert job["progress"] == {"step": 5, "steps": 10, "fraction": 0.5}
    assert 10 <= job["eta_seconds"] < 12
    assert job["position"] is None


def test_an_upload_of_any_name_and_type_is_looked_at(house, tmp_path):
    buffer = BytesIO()
    write_picture(tmp_path / "x.png", 2)
    Image.open(tmp_path / "x.png").save(buffer, "JPEG")
    sent = {"files": ("../../evil.exe", buffer.getvalue(), "text/html")}

    job_id = house.client(ANN).post(API, files=sent).json()["jobs"][0]["id"]

    assert house.run().id == job_id
    assert house.jobs.get(job_id).state is JobState.AWAITING_REVIEW
