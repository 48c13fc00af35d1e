"""A real `privdiff serve` with a folder, driven by the stock MONAI Label client."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests.conftest import write_picture
from tests.integration.server import ANSWER_SECONDS, RunningServer, running_server
from tests.unit.dicom_factory import dicom_bytes, radiograph_dataset, ramp

pytest.importorskip("cgi", reason="the stock client needs cgi, which Python 3.13 removed")
pytestmark = pytest.mark.filterwarnings("ignore:'cgi' is deprecated")

PICTURES = 3
QUICK_SECONDS = 15.0
"""For an answer on a machine that is busy with a test's other processes."""


def make_studies(folder: Path) -> Path:
    """Write originals whose names tell, and what must not be listed."""
    studies = folder / "studies"
    (studies / "Doe^Jane").mkdir(parents=True)
    for number in range(PICTURES):
        write_picture(studies / "Doe^Jane" / f"Doe_Jane_1978-0{number + 1}.png", number)
    (studies / "IM0001").write_bytes(dicom_bytes(radiograph_dataset(ramp(shape=(96, 80)))))
    (studies / "notes.txt").write_text("Doe")
    write_picture(studies / ".hidden.png", 7)
    write_picture(folder / "outside.png", 8)
    (studies / "link.png").symlink_to(folder / "outside.png")
    return studies


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of everything below a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def client_of(server: RunningServer, folder: Path) -> Any:
    """Return the stock client of a server."""
    from monailabel.client import MONAILabelClient

    return MONAILabelClient(server.url, tmpdir=str(folder))


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_studies(tmp_path_factory.mktemp("originals"))


@pytest.fixture(scope="module")
def server(
    studies: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    cohort = folder / "manifest.csv"
    cohort.write_text("image,patient_id,findings\n")
    with running_server(folder, studies, "--cohort", str(cohort), bundle=tiny_bundle) as running:
        yield running


@pytest.fixture
def client(server: RunningServer, tmp_path: Path) -> Any:
    return client_of(server, tmp_path)


@pytest.fixture
def image(server: RunningServer) -> str:
    """The id of a PNG."""
    return next(name for name in originals(server) if is_png(server, name))


def originals(server: RunningServer) -> list[str]:
    objects = server.get("/datastore/?output=all").json()["objects"]
    return [name for name in objects if name.startswith("img-")]


def is_png(server: RunningServer, image_id: str) -> bool:
    answer = server.get(f"/datastore/image?image={image_id}")
    return answer.headers["Content-Type"] == "image/png"


@contextlib.contextmanager
def paused_dispatcher(server: RunningServer) -> Iterator[None]:
    """Keep jobs from being taken."""
    [dispatcher] = [p for p in server.processes() if "dispatcher" in " ".join(p.cmdline())]
    dispatcher.suspend()
    try:
        yield
    finally:
        dispatcher.resume()


class TestInfo:
    def test_lists_what_the_server_can_do(self, client: Any) -> None:
        info = client.info()

        assert info["models"]["privdiff"]["type"] == "others"
        assert info["models"]["privdiff"]["config"]["profile"][0] == "standard"
        assert "privdiff" in info["trainers"]
        assert {"first", "random", "not_anonymized"} <= set(info["strategies"])

    def test_counts_files_of_images_alone(self, client: Any) -> None:
        assert client.info()["datastore"]["originals"] == PICTURES + 1

    def test_authentication_is_off(self, client: Any) -> None:
        assert not client.auth_enabled()

    def test_answers_while_an_inference_waits(
        self, server: RunningServer, client: Any, image: str
    ) -> None:
        answers: list[Any] = []
        waiting = threading.Thread(
            target=lambda: answers.append(client.infer("privdiff", image, {"seed": 5}))
        )
        with paused_dispatcher(server):
            waiting.start()
            time.sleep(1)
            began = time.monotonic()
            server.get("/info/").raise_for_status()
            took = time.monotonic() - began
            assert waiting.is_alive()
        waiting.join(ANSWER_SECONDS)

        assert took < QUICK_SECONDS
        assert answers


class TestInference:
    def test_returns_an_image_and_what_is_known_of_it(self, client: Any, image: str) -> None:
        file, params = client.infer("privdiff", image, {"profile": "fast", "strength": "0.5"})

        assert Image.open(file).format == "PNG"
        assert params["state"] == "awaiting_review"
        assert re.fullmatch("[0-9a-f]{64}", params["sha256"])

    @pytest.mark.parametrize(
        ("output", "kind"), [("image", "image/png"), ("json", "application/json")]
    )
    def test_output_chooses_the_answer(
        self, server: RunningServer, image: str, output: str, kind: str
    ) -> None:
        answer = server.post(f"/infer/privdiff?image={image}&output={output}")

        assert answer.headers["Content-Type"] == kind

    def test_takes_an_image_of_a_session(
        self, client: Any, server: RunningServer, tmp_path: Path
    ) -> None:
        write_picture(tmp_path / "Roe_Richard.png", 11)

        session = client.create_session(str(tmp_path / "Roe_Richard.png"))
        file, _ = client.infer("privdiff", "", {}, session_id=session["session_id"])
        client.remove_session(session["session_id"])

        assert "Roe" not in str(session)
        assert Image.open(file).format == "PNG"
        assert list((server.state / "sessions").iterdir()) == []

    def test_takes_a_file(self, client: Any, tmp_path: Path) -> None:
        write_picture(tmp_path / "sent.png", 12)

        file, params = client.infer("privdiff", "", {}, file=str(tmp_path / "sent.png"))

        assert Image.open(file).format == "PNG"
        assert params["state"] == "awaiting_review"

    def test_says_why_a_file_cannot_be_redrawn(self, server: RunningServer) -> None:
        answer = server.post("/infer/privdiff", files={"file": ("a.dcm", io.BytesIO(b"nothing"))})

        assert answer.status_code == 422
        assert answer.json()["error"] == "failed"

    @pytest.mark.parametrize(
        ("query", "params", "status"),
        [
            ("image=img-0123", "{}", 404),
            ("image=../../etc/passwd", "{}", 400),
            ("image=/etc/passwd", "{}", 400),
            ("session_id=0123", "{}", 404),
            ("session_id=..", "{}", 400),
            ("image={image}", '{"image": "/etc/passwd"}', 400),
            ("image={image}", '{"model": "other"}', 400),
            ("image={image}", '{"strength": 3}', 400),
            ("image={image}", "[]", 400),
            ("image={image}", "{", 400),
            ("image={image}&output=dicom_seg", "{}", 422),
            ("", "{}", 400),
        ],
    )
    def test_refuses_what_names_no_image_or_sets_what_nobody_may(
        self, server: RunningServer, image: str, query: str, params: str, status: int
    ) -> None:
        query = query.replace("{image}", image)

        answer = server.post(f"/infer/privdiff?{query}", data={"params": params})

        assert answer.status_code == status, answer.text
        assert {"error", "message", "hint"} <= answer.json().keys()

    def test_an_unknown_model_is_not_found(self, server: RunningServer, image: str) -> None:
        assert server.post(f"/infer/spleen?image={image}").status_code == 404


class TestBatch:
    def wait(self, server: RunningServer) -> dict[str, Any]:
        while (task := server.get("/batch/infer").json())["status"] in ("SUBMITTED", "RUNNING"):
            time.sleep(0.5)
        return task

    def manifest(self, server: RunningServer, task: dict[str, Any]) -> Any:
        file = server.state / "batches" / f"{task['request']['batch']}.json"
        return json.loads(file.read_text())

    def jobs(self, manifest: Any) -> list[dict[str, Any]]:
        return [record for record in manifest["images"] if "job" in record]

    def test_redraws_everything_once_and_names_what_is_not_there(
        self, server: RunningServer
    ) -> None:
        params = {"images": [*originals(server), "img-0"], "profile": "fast", "device": "cuda"}

        server.post("/batch/infer/privdiff", json=params).raise_for_status()
        first = self.wait(server)
        server.post("/batch/infer/privdiff", json=params).raise_for_status()
        second = self.wait(server)

        assert first["status"] == second["status"] == "DONE", server.logs()[-3000:]
        assert any("4 of 4 done" in line for line in first["details"])
        done, repeated = self.manifest(server, first), self.manifest(server, second)
        assert done["counts"] == {"awaiting_review": PICTURES + 1, "refused": 1}
        assert [record["skipped"] for record in self.jobs(done)] == [False] * (PICTURES + 1)
        assert [record["skipped"] for record in self.jobs(repeated)] == [True] * (PICTURES + 1)
        assert {r["job"] for r in self.jobs(done)} == {r["job"] for r in self.jobs(repeated)}

    def test_stopping_cancels_what_is_not_done(self, server: RunningServer) -> None:
        with paused_dispatcher(server):
            started = server.post("/batch/infer/privdiff", json={"seed": 4}).json()
            batch = started["request"]["batch"]
            while len(server.get(f"/privdiff/v1/jobs?batch={batch}").json()["jobs"]) <= PICTURES:
                time.sleep(0.5)
            stopped = server.request("DELETE", "/batch/infer").json()
            jobs = server.get(f"/privdiff/v1/jobs?batch={batch}").json()["jobs"]

        assert stopped["status"] == "STOPPED"
        assert {job["state"] for job in jobs} == {"cancelled"}

    @pytest.mark.parametrize(
        ("path", "params", "status"),
        [
            ("/batch/infer/other", {}, 404),
            ("/batch/infer/privdiff?run_sync=true", {}, 400),
            ("/batch/infer/privdiff?images=some", {}, 422),
            ("/batch/infer/privdiff", {"images": "some"}, 400),
            ("/batch/infer/privdiff", {"path": "/etc"}, 400),
            ("/train/other", {}, 404),
            ("/train/privdiff?run_sync=true", {}, 400),
            ("/train/privdiff", {"pretrained": "/etc"}, 400),
        ],
    )
    def test_bad_tasks_are_refused_before_they_begin(
        self, server: RunningServer, path: str, params: dict[str, Any], status: int
    ) -> None:
        assert server.post(path, json=params).status_code == status


class TestTraining:
    def test_the_process_of_a_task_starts_and_says_why_it_cannot(
        self, client: Any, server: RunningServer
    ) -> None:
        client.train_start("privdiff", {})
        # Not `check_if_running`: MONAI Label forgets the process a moment before it notes the end.
        task = client.train_status()
        while task["status"] in {"SUBMITTED", "RUNNING"}:
            time.sleep(0.5)
            task = client.train_status()

        assert task["status"] == "ERROR"
        assert "TrainingFailed" in "\n".join(task["details"])


class TestDatastore:
    def test_a_label_comes_back_as_it_was_saved(
        self, client: Any, image: str, tmp_path: Path
    ) -> None:
        label = tmp_path / "label.nrrd"
        label.write_bytes(b"NRRD0004 ...")

        saved = client.save_label(image, str(label), tag="final", params={"note": "ours"})
        back = client.download_label(saved["label"], "final")

        assert Path(back).read_bytes() == label.read_bytes()
        assert client.info()["datastore"]["completed"] == 1
        assert client.datastore()["objects"][image]["labels"]["final"]["info"]["note"] == "ours"

    def test_the_next_sample_has_a_name_that_tells_nothing(self, client: Any) -> None:
        sample = client.next_sample("not_anonymized", {})

        assert sample == {} or re.fullmatch(r"img-[0-9a-f]{24}\.\w+", sample["name"])
        assert "path" not in sample

    def test_no_clean_image_is_next_before_one_is_approved(self, client: Any) -> None:
        assert client.next_sample("first", {}) == {}

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/datastore/image?image=img-0", 404),
            ("GET", "/datastore/image?image=0123", 404),
            ("GET", "/datastore/label?label=img-0&tag=final", 404),
            ("GET", "/datastore/label?label={image}&tag=../..", 400),
            ("GET", "/datastore/label?label={image}&tag=no", 404),
            ("DELETE", "/datastore/image?id={image}", 405),
            ("PUT", "/datastore/image?image=x", 405),
            ("POST", "/activelearning/other", 404),
            ("PUT", "/model/privdiff", 404),
            ("GET", "/proxy/dicom/studies", 404),
            ("POST", "/reload", 404),
            ("GET", "/ohif/index.html", 404),
            ("GET", "/logs/", 404),
        ],
    )
    def test_what_is_not_there_or_not_served_is_said(
        self, server: RunningServer, image: str, method: str, path: str, status: int
    ) -> None:
        answer = server.request(method, path.replace("{image}", image))

        assert answer.status_code == status
        assert {"error", "message", "hint"} <= answer.json().keys()


def test_no_page_of_another_origin_is_let_in(server: RunningServer) -> None:
    answer = server.get("/info/", headers={"Origin": "https://elsewhere.example"})

    assert "Access-Control-Allow-Origin" not in answer.headers


def test_nothing_tells_who_the_patients_are(server: RunningServer, client: Any) -> None:
    told = [str(client.info()), str(client.datastore()), server.logs()]
    told += [str(server.get("/privdiff/v1/jobs").json())]
    told += [" ".join(process.cmdline()) for process in server.processes()]

    assert not any("Doe" in text for text in told)


def test_only_the_owner_can_read_state(server: RunningServer) -> None:
    for path in (server.state, *server.state.iterdir()):
        if path.is_dir():
            assert path.stat().st_mode & 0o077 == 0, path.name


def test_nothing_is_written_into_the_studies(server: RunningServer, studies: Path) -> None:
    assert sorted(path.name for path in studies.iterdir()) == [
        ".hidden.png", "Doe^Jane", "IM0001", "link.png", "notes.txt",
    ]  # fmt: skip


def test_an_end_ends_everything_and_a_restart_goes_on(
    studies: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    with running_server(tmp_path, studies, bundle=tiny_bundle) as first:
        image = originals(first)[0]
        with paused_dispatcher(first):
            waiting = first.post(
                "/privdiff/v1/jobs", data={"images": [image], "profile": "fast"}, timeout=30
            ).json()["jobs"][0]
        processes = first.processes()
        code = first.stop()
        gone = psutil.wait_procs(processes, timeout=20)[1] == []

    with running_server(tmp_path, studies, bundle=tiny_bundle, state=first.state) as second:
        job = second.wait_for_job(waiting["id"])

    assert code == 0
    assert gone
    assert job["state"] == "awaiting_review"
