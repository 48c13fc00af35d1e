"""Fine-tuning through a real server: watched, killed, continued, ended early, compared, served."""

from __future__ import annotations

import io
import json
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from tests.conftest import write_picture
from tests.integration.server import RunningServer, running_server
from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import TINY_RESNET

pytestmark = pytest.mark.slow

TRAINING = "/privdiff/v1/training"
MODELS = "/privdiff/v1/models"
MANY = {"steps": 4000, "batch_size": 4, "seed": 3}
SECONDS = 240
"""For what takes ten on a machine that does nothing else."""


class Site:
    """A place with a server, a cohort and evaluators, which may come later."""

    def __init__(self, root: Path, bundle: Path) -> None:
        self.root, self.bundle = root, bundle
        self.studies = root / "studies"
        self.studies.mkdir()
        write_picture(self.studies / "one.png", 1)
        (root / "cohort").mkdir()
        self.manifest = write_cohort(root / "cohort", patients=30)
        self.evaluators = root / "evaluators"

    def server(self) -> Any:
        variables = {
            "PRIVDIFF_SERVER_COHORT": str(self.manifest),
            "PRIVDIFF_SERVER_EVALUATORS": str(self.evaluators),
            "PRIVDIFF_SERVER_DEVICE": "cpu",
        }
        return running_server(
            self.root,
            self.studies,
            bundle=self.bundle,
            state=self.root / "state",
            environment=variables,
            health="/info/",
        )

    def bring_evaluators(self) -> None:
        torch.manual_seed(7)
        IdentityEmbedder(TINY_RESNET, 32, 8, 4).save_pretrained(self.evaluators / "identity")
        RadiographReader(TINY_RESNET, 32).save_pretrained(self.evaluators / "reader")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Site:
    return Site(tmp_path_factory.mktemp("site"), tiny_bundle)


def train(server: RunningServer, parameters: dict[str, Any]) -> None:
    answer = server.post("/train/privdiff", json=parameters)
    assert answer.status_code == 200, answer.text


def newest(server: RunningServer) -> dict[str, Any]:
    runs = server.get(TRAINING).json()["training"]
    return runs[0] if runs else {"state": "", "step": 0, "stage": ""}


def wait_until(server: RunningServer, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the newest run once it is as it should be."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        run = newest(server)
        if reached(run):
            return run
        assert run["state"] != "failed", server.logs()[-4000:]
        time.sleep(0.2)
    raise AssertionError(f"{newest(server)}; {server.logs()[-4000:]}")


def wait_for_its_process(server: RunningServer) -> None:
    """Wait until MONAI Label says that nothing trains."""
    deadline = time.monotonic() + SECONDS
    while server.get("/train/?check_if_running=true").status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def version_of_a_job(server: RunningServer, site: Site) -> str:
    with (site.studies / "one.png").open("rb") as file:
        answer = server.post("/infer/privdiff?output=json", files={"file": file}, timeout=SECONDS)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model_version"])


@pytest.fixture(scope="module")
def killed(site: Site) -> Iterator[tuple[RunningServer, str]]:
    """A server without evaluators, and the id of a run that was watched, killed and goes on."""
    with site.server() as server:
        train(server, MANY)
        run = wait_until(server, lambda run: run["step"] > 10)
        yield server, run["id"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"manifest": "/etc/passwd"},
        {"steps": 0},
        {"steps": "many"},
        {"profile": "../standard"},
        {"learning_rate": -1},
        {"max_minutes": 0},
    ],
)
def test_impossible_parameters_are_refused_before_anything_starts(
    killed: tuple[RunningServer, str], parameters: dict[str, Any]
) -> None:
    server, _ = killed
    assert server.post("/train/privdiff", json=parameters).status_code == 400


def test_fine_tuning_from_start_to_the_next_job(killed: tuple[RunningServer, str], site: Site):
    server, run_id = killed

    watched_while_it_runs(server, run_id)
    step = killed_and_continued(server, run_id)
    ended_early(server, run_id, step)
    refused_without_comparison(server)
    server.kill()

    site.bring_evaluators()
    with site.server() as restarted:
        assert newest(restarted)["id"] == run_id, "progress survives a restart"
        compared_and_served(restarted, site, run_id)
    nothing_private_is_told(site, restarted.logs())


def watched_while_it_runs(server: RunningServer, run_id: str) -> None:
    details = server.get(f"{TRAINING}/{run_id}").json()
    started = time.monotonic()
    info = server.get("/info/").json()
    seconds = time.monotonic() - started

    assert details["training"]["state"] == "running"
    assert details["training"]["stage"] == "training"
    assert details["training"]["eta_seconds"] > 0
    assert {"denoising", "spg", "similarity"} <= details["training"]["latest"]["figures"].keys()
    assert details["history"][0]["step"] == 1
    assert info["train_stats"]["privdiff"]["epoch"] > 10
    assert info["train_stats"]["privdiff"]["total_epochs"] == MANY["steps"]
    assert set(info["trainers"]["privdiff"]["config"]) == {
        "steps", "learning_rate", "batch_size", "seed", "profile", "max_minutes", "resume",
    }  # fmt: skip
    assert seconds < 5, "training steps back"
    assert server.post("/train/privdiff", json={"steps": 1}).status_code == 429


def killed_and_continued(server: RunningServer, run_id: str) -> int:
    """Return from which step the run went on."""
    assert server.request("DELETE", "/train/").status_code == 200
    run = wait_until(server, lambda run: run["state"] == "interrupted")
    assert run["id"] == run_id
    assert server.post(f"{TRAINING}/{run_id}/stop").status_code == 409

    train(server, MANY)
    resumed = wait_until(server, lambda now: now["step"] > run["step"])
    assert resumed["id"] == run_id
    history = server.get(f"{TRAINING}/{run_id}").json()["history"]
    steps = [point["step"] for point in history]
    assert steps == sorted(set(steps))
    return int(resumed["step"])


def ended_early(server: RunningServer, run_id: str, step: int) -> None:
    assert server.post(f"{TRAINING}/{run_id}/stop").status_code == 202
    run = wait_until(server, lambda run: run["state"] == "stopped")
    wait_for_its_process(server)

    assert step <= run["step"] < MANY["steps"]
    assert run["model"] == "tiny-1.0-ft1"
    assert "administrator" in run["reason"]
    names = server.get(f"{TRAINING}/{run_id}").json()["samples"]
    picture = server.get(f"{TRAINING}/{run_id}/samples/{names[-1]}")
    assert picture.headers["Content-Type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).size == (128, 128)
    folder = server.state / "training" / run_id
    assert stat.S_IMODE((folder / "samples" / names[-1]).stat().st_mode) == 0o600
    for name in ("..%2Fprogress.json", "step-999999.png", "step-000001.png%00"):
        assert server.get(f"{TRAINING}/{run_id}/samples/{name}").status_code in (400, 404)
    left = {path.name for path in folder.iterdir()}
    assert not left & {"run", "cache", "components"}, "what may hold images of the cohort goes"


def refused_without_comparison(server: RunningServer) -> None:
    models = {model["id"]: model for model in server.get(MODELS).json()["models"]}

    answer = server.post(f"{MODELS}/tiny-1.0-ft1/default")

    assert models["tiny-1.0-ft1"]["comparison"]["figures"] is None
    assert models["tiny-1.0"]["default"]
    assert answer.status_code == 409
    assert "no evaluators" in answer.json()["message"]


def compared_and_served(server: RunningServer, site: Site, run_id: str) -> None:
    assert version_of_a_job(server, site) == "1.0"

    train(server, MANY)
    wait_until(server, lambda run: run["stage"] == "comparing")
    run = wait_until(server, lambda run: run["stage"] == "ended")
    details = server.get(f"{TRAINING}/{run_id}").json()
    activated = server.post(f"{MODELS}/tiny-1.0-ft1/default")

    assert (run["id"], run["state"], run["model"]) == (run_id, "stopped", "tiny-1.0-ft1")
    figures = details["comparison"]["figures"]
    assert figures["patients"] >= 2
    assert 0 <= figures["new"]["same_image"]["value"] <= 1
    assert activated.status_code == 200, activated.text
    assert version_of_a_job(server, site) == "1.0-ft1", "without a restart"
    log = (server.state / "audit.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in log]
    assert events.count("training_started") == 3
    assert events.count("training_ended") == 3  # the first of them as it was killed
    told = [entry for entry in map(json.loads, log) if entry["event"].startswith("training_")]
    assert [entry.get("by") for entry in told if entry["event"] == "training_started"] == [
        "local"
    ] * 3
    assert events.count("model_activated") == 1


def nothing_private_is_told(site: Site, logs: str) -> None:
    for private in ("p0_0", "p1", str(site.manifest.parent)):
        assert private not in logs
