"""Routes of review and of reader studies, without processes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from monailabel_app.lib import answers
from monailabel_app.lib.review import routes as review
from monailabel_app.lib.security.middleware import protect
from monailabel_app.lib.security.roles import Principal, Role
from monailabel_app.lib.study import routes as study
from privdiff_infer.review_pictures import write_review_pictures
from tests.unit.review_desk import ADA, BEN, SHA256, Desk

API = "/privdiff/v1"
STUDIES = f"{API}/reader-studies"
PEOPLE = {
    "ada": ADA,
    "ben": BEN,
    "cai": Principal("cai", Role.REVIEWER),
    "boss": Principal("boss", Role.ADMIN),
    "uma": Principal("uma", Role.USER),
}

Ask = Callable[..., TestClient]


class Names:
    """Knows people by their names alone."""

    async def principal(self, token: str) -> Principal | None:
        return PEOPLE.get(token)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.at(tmp_path / "state")


@pytest.fixture
def client(desk: Desk) -> Callable[[str], TestClient]:
    app = FastAPI()
    app.state.server = desk.server
    app.include_router(review.router)
    app.include_router(study.router)
    answers.install(app)
    protect(app, Names(), 10**6)
    return lambda name: TestClient(app, headers={"Authorization": f"Bearer {name}"})


def said(decision: str = "approved", sha256: str = SHA256, comment: str = "") -> dict[str, str]:
    return {"decision": decision, "sha256": sha256, "comment": comment}


class TestReview:
    def test_from_next_to_a_decision(self, desk, client):
        job = desk.add()

        claimed = client("ada").post(f"{API}/review/next").json()
        decided = client("ada").post(f"{API}/jobs/{job.id}/review", json=said()).json()

        assert (claimed["id"], claimed["claim"]["by"]) == (job.id, "ada")
        assert (decided["state"], decided["approvals"], decided["claim"]) == (
            "approved",
            ["ada"],
            None,
        )
        assert client("ada").post(f"{API}/review/next").status_code == 404

    def test_a_claim_is_taken_and_given_back(self, desk, client):
        path = f"{API}/jobs/{desk.add().id}/claim"
        assert client("ada").post(path).status_code == 200
        refused = client("ben").post(path)
        assert (refused.status_code, refused.json()["error"]) == (409, "conflict")
        assert client("ada").delete(path).json()["claim"] is None

    @pytest.mark.parametrize(
        "body",
        [
            {},
            said("perhaps"),
            said(sha256="0" * 63),
            said(comment="a" * 2001),
            said() | {"more": 1},
        ],
    )
    def test_impossible_decisions_are_refused(self, desk, client, body):
        path = f"{API}/jobs/{desk.add().id}/review"
        answer = client("ada").post(path, json=body)
        assert answer.status_code == 422
        assert set(answer.json()) == {"error", "message", "hint"}

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/jobs/{}/claim"),
            ("DELETE", "/jobs/{}/claim"),
            ("POST", "/review/next"),
            ("POST", "/jobs/{}/review"),
            ("POST", "/jobs/{}/publish"),
            ("POST", "/jobs/{}/published"),
        ],
    )
    def test_users_may_not_review(self, desk, client, method, path):
        body = said() if path.endswith("/review") else {"sha256": SHA256, "store": "http://pacs/d"}
        path = API + path.format(desk.add().id)
        assert client("uma").request(method, path, json=body).status_code == 403
        assert client("nobody").request(method, path, json=body).status_code == 401

    @pytest.mark.parametrize("job_id", ["0" * 32, "x", "..%2f..%2fetc"])
    def test_unknown_jobs(self, client, job_id):
        answer = client("ada").post(f"{API}/jobs/{job_id}/claim")
        assert answer.status_code in (404, 422)

    def test_what_is_not_approved_is_not_published(self, tmp_path):
        desk = Desk.at(tmp_path / "other", store="http://127.0.0.1:1/dicom-web")
        app = FastAPI()
        app.state.server = desk.server
        app.include_router(review.router)
        answers.install(app)
        protect(app, Names(), 10**6)
        ada = TestClient(app, headers={"Authorization": "Bearer ada"})
        job = desk.add()

        refused = ada.post(f"{API}/jobs/{job.id}/publish")
        reported = ada.post(
            f"{API}/jobs/{job.id}/published", json={"sha256": SHA256, "store": "http://pacs/d"}
        )

        assert (refused.status_code, reported.status_code) == (409, 409)
        assert "not approved" in refused.json()["message"]
        ada.post(f"{API}/jobs/{job.id}/review", json=said())
        no_dicom = ada.post(f"{API}/jobs/{job.id}/publish")
        assert (no_dicom.status_code, no_dicom.json()["error"]) == (409, "not_delivered")
        assert "no DICOM file" in no_dicom.json()["message"]
        assert desk.job(job).published == 0

    def test_without_a_store_there_is_nothing_to_publish_to(self, desk, client):
        job = desk.add()
        answer = client("ada").post(f"{API}/jobs/{job.id}/publish")
        assert (answer.status_code, answer.json()["error"]) == (409, "conflict")
        assert "no store" in answer.json()["message"]


class TestPages:
    @pytest.mark.parametrize("page", ["review", "reader-study"])
    def test_page_and_all_that_it_names_are_served_to_everybody(self, client, page):
        html = client("nobody").get(f"/privdiff/{page}")
        assert html.status_code == 200
        assert "default-src 'none'" in html.headers["content-security-policy"]
        named = [part.split('"')[0] for part in html.text.split('="') if part.startswith(page)]
        assert named
        for name in named:
            part = client("nobody").get(f"/privdiff/{name}")
            assert part.status_code == 200
            assert part.headers["content-type"].startswith(("text/css", "text/javascript"))
        assert "<script>" not in html.text
        assert "style=" not in html.text
        assert "http" not in html.text

    @pytest.mark.parametrize("name", ["routes.py", "..%2froutes.py", "none.js"])
    def test_nothing_else_is(self, client, name):
        assert client("nobody").get(f"/privdiff/review/{name}").status_code in (401, 404)


def add_pictures(desk: Desk, job, outline: bool = False) -> None:
    """Write the review pictures of a job: the original bright, the redrawn image dark."""
    folders = desk.folders(job)
    name = Path(job.output).stem
    shape = (64, 48)
    write_review_pictures(
        folders.review, name, np.full(shape, 0.8, np.float32), np.full(shape, 0.2, np.float32)
    )
    picture = Image.new("L", (48, 64), 51)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    (folders.root / job.output).write_bytes(buffer.getvalue())
    if outline:
        path = folders.review / f"{name}-original.png"
        marked = Image.open(path).convert("RGB")
        marked.paste((217, 119, 6), (100, 100, 140, 140))
        marked.save(path)


class TestReaderStudy:
    @pytest.fixture
    def jobs(self, desk: Desk) -> list[str]:
        made = [desk.add() for _ in range(4)]
        for job in made:
            add_pictures(desk, job)
        return [job.id for job in made]

    @pytest.fixture
    def planned(self, client, jobs) -> str:
        body = {"title": "Spring", "jobs": jobs, "findings": ["Edema", "Effusion"]}
        answer = client("boss").post(STUDIES, json=body)
        assert answer.status_code == 201, answer.json()
        return answer.json()["id"]

    def brightness(self, client, name: str, path: str, side: str) -> float:
        content = client(name).get(f"{path}/{side}").content
        return float(np.asarray(Image.open(io.BytesIO(content))).mean())

    def test_only_administrators_plan_and_evaluate(self, client, jobs, planned):
        body = {"title": "Spring", "jobs": jobs}
        assert client("ada").post(STUDIES, json=body).status_code == 403
        for path in ("statistics", "answers.csv"):
            assert client("ada").get(f"{STUDIES}/{planned}/{path}").status_code == 403
        assert client("uma").get(STUDIES).status_code == 403

    @pytest.mark.parametrize("change", ["twice", "held", "unknown", "none"])
    def test_impossible_plans_are_refused(self, desk, client, jobs, change):
        chosen = {
            "twice": jobs + jobs[:1],
            "held": [desk.add_held().id],
            "unknown": ["0" * 32],
            "none": [],
        }[change]
        answer = client("boss").post(STUDIES, json={"title": "Spring", "jobs": chosen})
        assert 400 <= answer.status_code < 500
        assert client("boss").get(STUDIES).json() == []

    def test_sides_are_mixed_and_nothing_tells_them(self, desk, client, planned):
        sides = []
        for position in range(1, 5):
            path = f"{STUDIES}/{planned}/items/{position}"
            left = self.brightness(client, "ada", path, "left")
            right = self.brightness(client, "ada", path, "right")
            assert {round(left), round(right)} == {204, 51}
            sides.append(left > right)
            assert set(client("ada").get(path).json()) == {"position", "items", "answers"}
            headers = client("ada").get(f"{path}/left").headers
            assert "x-privdiff-sha256" not in headers
        assert sides.count(True) == 2

    def test_outlines_of_text_are_on_both_pictures(self, desk, client):
        job = desk.add()
        add_pictures(desk, job, outline=True)
        body = {"title": "Marked", "jobs": [job.id], "findings": ["Edema"]}
        path = f"{STUDIES}/{client('boss').post(STUDIES, json=body).json()['id']}/items/1"
        grey = [
            np.asarray(Image.open(io.BytesIO(client("ada").get(f"{path}/{side}").content)))
            for side in ("left", "right")
        ]
        assert grey[0].shape == grey[1].shape == (64, 48)
        corner = (slice(14, 16), slice(14, 16))
        # Equal but for what the resampling brings in from beside the outline (204 and 51).
        np.testing.assert_allclose(grey[0][corner].astype(int), grey[1][corner], atol=8)

    def test_answers_are_saved_one_by_one_and_survive_a_restart(self, desk, client, planned):
        path = f"{STUDIES}/{planned}/items/1/answers"
        for answer in ("inadequate", "adequate"):
            body = {"finding": "Edema", "answer": answer}
            saved = client("ada").put(path, json=body).json()
        assert saved["answers"] == {"Edema": "adequate"}
        seen = client("ada").get(f"{STUDIES}/{planned}").json()
        assert (seen["done"], seen["next"]) == (0, 1)
        client("ada").put(path, json={"finding": "Effusion", "answer": "not_assessable"})

        restarted = desk.with_settings()

        again = study.StudyStore(restarted.server.jobs.engine)
        assert len(again.answers(planned, "ada")) == 2
        assert client("ada").get(f"{STUDIES}/{planned}").json()["next"] == 2
        assert client("ben").get(f"{STUDIES}/{planned}").json()["next"] == 1

    @pytest.mark.parametrize(
        ("position", "body", "status"),
        [
            (1, {"finding": "Mass", "answer": "adequate"}, 404),
            (5, {"finding": "Edema", "answer": "adequate"}, 404),
            (0, {"finding": "Edema", "answer": "adequate"}, 422),
            (1, {"finding": "Edema", "answer": "maybe"}, 422),
        ],
    )
    def test_impossible_answers_are_refused(self, client, planned, position, body, status):
        path = f"{STUDIES}/{planned}/items/{position}/answers"
        assert client("ada").put(path, json=body).status_code == status

    def test_export_and_statistics_name_nobody(self, client, planned, jobs):
        for name in ("ada", "ben", "cai"):
            for position in range(1, 5):
                path = f"{STUDIES}/{planned}/items/{position}/answers"
                for finding in ("Edema", "Effusion"):
                    body = {"finding": finding, "answer": "adequate"}
                    client(name).put(path, json=body)
        boss = client("boss")

        text = boss.get(f"{STUDIES}/{planned}/answers.csv").text
        found = boss.get(f"{STUDIES}/{planned}/statistics").json()

        rows = list(csv.DictReader(io.StringIO(text)))
        assert len(rows) == 24
        assert {row["original"] for row in rows} == {"left", "right"}
        assert {row["item"] for row in rows} == {"1", "2", "3", "4"}
        for secret in ("ada", "ben", "cai", *jobs):
            assert secret not in text
            assert secret not in str(found)
        assert (found["answers"], found["expected"], found["items"]) == (24, 24, 4)
        edema = found["findings"][0]
        assert edema["unanimous"]["rate"] == 1.0
        assert edema["unanimous"]["inadequacy_bound"] == pytest.approx(1 - 0.05 ** (1 / 4))
        assert edema["all_readers"]["kappa"] is None
        assert edema["all_readers"]["agreement"] == 1.0
        assert len(edema["pairs"]) == 3
