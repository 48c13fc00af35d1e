"""The bundles of a server: what is listed, which one a job takes, what may become the default."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from privdiff_training.assemble import write_metadata

from monailabel_app.lib.errors import BadRequest, Conflict, NotFound
from monailabel_app.lib.models.comparison import ComparisonRecord, comparison_file
from monailabel_app.lib.models.registry import ModelRegistry, Origin
from monailabel_app.lib.models.routes import router
from monailabel_app.lib.security.roles import LOCAL, Principal, Role
from monailabel_app.lib.server import Server
from monailabel_app.lib.settings import ServerSettings
from privdiff_infer.audit import Event
from privdiff_infer.model.bundle import METADATA, find_bundle, read_bundle
from privdiff_infer.vocabulary import DEFAULT_BUNDLE
from tests.conftest import tiny_metadata

EMBEDDED = read_bundle(find_bundle(DEFAULT_BUNDLE))
EMBEDDED_ID = f"{EMBEDDED.name}-{EMBEDDED.version}"
INTERVAL = {"value": 0.7, "low": 0.6, "high": 0.8, "patients": 9}
UNKNOWN = {"value": float("nan"), "low": float("nan"), "high": float("nan"), "patients": 0}


def figures(same_image: dict[str, Any]) -> dict[str, Any]:
    return {
        "same_image": same_image,
        "follow_up": INTERVAL,
        "findings": UNKNOWN,
        "kernel_distance": 0.1,
        "similarity": 0.2,
    }


class House:
    """A server whose bundles are copies of the tiny one."""

    def __init__(self, root: Path, tiny: Path) -> None:
        self.tiny = tiny
        self.settings = ServerSettings(state=root / "state", studies=str(root), bundle=str(tiny))
        self.server = Server.open(self.settings)
        self.registry = self.server.models

    def train(self, version: str, **changes: Any) -> Path:
        """Put a bundle where training puts it."""
        folder = self.server.folder.models / f"tiny-{version}"
        shutil.copytree(self.tiny, folder)
        write_metadata(folder, tiny_metadata(version=version, **changes))
        return folder

    def compare(self, new: Path, old: Path, same_image: dict[str, Any] = INTERVAL) -> None:
        """Write the comparison of two bundles."""
        record = ComparisonRecord.model_validate(
            {
                "old": {"id": old.name, "sha256": read_bundle(old).sha256},
                "new": {"id": new.name, "sha256": read_bundle(new).sha256},
                "profile": "standard",
                "time": datetime.now(timezone.utc),
                "figures": {
                    "old": figures(INTERVAL),
                    "new": figures(same_image),
                    "originals": figures(INTERVAL),
                    "labels_only": INTERVAL,
                    "new_minus_old": {"same_image": INTERVAL},
                    "findings_counted": [],
                    "images": 20,
                    "patients": 9,
                },
            }
        )
        comparison_file(new).write_text(record.model_dump_json())

    def activate(self, model_id: str) -> None:
        self.registry.activate(model_id, "Ada", self.server.audit)

    def restarted(self) -> ModelRegistry:
        return ModelRegistry(self.settings)

    def default(self) -> str:
        return self.restarted().resolve()[1].version


@pytest.fixture
def house(tmp_path: Path, tiny_bundle: Path) -> House:
    return House(tmp_path, tiny_bundle)


def problems(registry: ModelRegistry) -> dict[str, str]:
    return {model.id: model.problem for model in registry.models()}


def test_the_configured_bundle_is_the_default_until_one_is_chosen(house: House) -> None:
    listed = {model.origin for model in house.registry.models()}

    path, info = house.registry.resolve()

    assert (path, info.name) == (house.tiny, "tiny")
    assert listed == {Origin.CONFIGURED, Origin.EMBEDDED}


def test_a_new_bundle_appears_without_a_restart_and_its_default_survives_one(house: House) -> None:
    house.registry.models()
    house.compare(house.train("1.0-ft1"), house.tiny)

    house.activate("tiny-1.0-ft1")

    assert house.registry.resolve()[1].version == "1.0-ft1"
    assert house.default() == "1.0-ft1"
    log = house.server.folder.audit.read_text().splitlines()
    assert [json.loads(line)["event"] for line in log][-1] == Event.MODEL_ACTIVATED.value
    assert json.loads(log[-1])["by"] == "Ada"


@pytest.mark.parametrize(
    ("named", "version"),
    [("tiny-1.0", "1.0"), ("tiny-1.0-ft1", "1.0-ft1"), (EMBEDDED.name, EMBEDDED.version)],
)
def test_a_job_names_its_model_by_id_or_by_a_name_that_one_has(
    house: House, named: str, version: str
) -> None:
    house.compare(house.train("1.0-ft1"), house.tiny)

    assert house.registry.resolve(named)[1].version == version


def test_a_name_that_several_have_means_the_default(house: House) -> None:
    house.compare(house.train("1.0-ft1"), house.tiny)
    assert house.registry.resolve("tiny")[1].version == "1.0"
    house.activate(EMBEDDED_ID)

    with pytest.raises(BadRequest, match=r"name one of tiny-1\.0, tiny-1\.0-ft1"):
        house.registry.resolve("tiny")


@pytest.mark.parametrize("name", ["tiny-9", "../tiny", "/etc/passwd", "tiny-1.0/../tiny-1.0"])
def test_what_is_no_model_of_this_server_is_not_found(house: House, name: str) -> None:
    with pytest.raises(NotFound):
        house.registry.resolve(name)
    with pytest.raises(NotFound):
        house.activate(name)


def flip(folder: Path) -> None:
    file = folder / "denoiser" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip, "does not match its hash"),
        (lambda folder: (folder / "reader" / "config.json").unlink(), "does not match its hash"),
        (lambda folder: (folder / "more").write_text(""), "does not match its hash"),
        (lambda folder: (folder / METADATA).write_bytes(b"\xff{"), "is not understood"),
        (lambda folder: (folder / METADATA).unlink(), "has no metadata.json"),
        (shutil.rmtree, "no longer there"),
    ],
    ids=["weights", "missing", "added", "metadata", "without metadata", "gone"],
)
def test_a_damaged_bundle_is_listed_with_the_reason_and_never_used(
    house: House, damage: Callable[[Path], object], reason: str
) -> None:
    folder = house.train("1.0-ft1")
    house.compare(folder, house.tiny)
    house.activate("tiny-1.0-ft1")

    damage(folder)

    with pytest.raises(Conflict) as caught:
        house.registry.resolve()
    listed = problems(house.registry).get("tiny-1.0-ft1", "no longer there")
    assert listed
    assert reason in f"{caught.value} {listed}"
    assert str(house.settings.state) not in f"{caught.value} {listed}"
    house.activate("tiny-1.0")
    assert house.default() == "1.0"


def test_a_bundle_that_took_the_place_of_the_default_is_not_the_default(house: House) -> None:
    folder = house.train("1.0-ft1")
    house.compare(folder, house.tiny)
    house.activate("tiny-1.0-ft1")

    write_metadata(folder, tiny_metadata(version="1.0-ft1", summary="Another one."))

    with pytest.raises(Conflict, match="is not the bundle that was made the default"):
        house.registry.resolve()


def test_two_bundles_of_one_name_and_version_are_not_mixed_up(house: House) -> None:
    house.train("1.0", summary="An impostor.")

    path, _ = house.registry.resolve("tiny-1.0")
    reasons = [model.problem for model in house.registry.models() if model.id == "tiny-1.0"]

    assert path == house.tiny
    assert reasons == ["", "another model has this name and version"]


def test_a_bundle_that_was_not_compared_is_neither_used_nor_made_the_default(house: House) -> None:
    house.train("1.0-ft1")

    for use in (house.activate, house.registry.resolve):
        with pytest.raises(Conflict, match="was not measured"):
            use("tiny-1.0-ft1")
    assert house.default() == "1.0"


@pytest.mark.parametrize("record", ["{}", "", '{"old": 1}'])
def test_a_comparison_that_cannot_be_read_is_none(house: House, record: str) -> None:
    comparison_file(house.train("1.0-ft1")).write_text(record)

    with pytest.raises(Conflict, match="was not measured"):
        house.activate("tiny-1.0-ft1")


def test_a_comparison_without_linkage_does_not_count(house: House) -> None:
    house.compare(house.train("1.0-ft1"), house.tiny, same_image=UNKNOWN)

    with pytest.raises(Conflict, match="was not measured"):
        house.activate("tiny-1.0-ft1")


def test_a_comparison_counts_for_the_bytes_that_were_measured(house: House) -> None:
    folder = house.train("1.0-ft1")
    house.compare(folder, house.tiny)

    write_metadata(folder, tiny_metadata(version="1.0-ft1", summary="Trained on."))

    with pytest.raises(Conflict, match="was not measured"):
        house.activate("tiny-1.0-ft1")


def test_a_bundle_is_compared_with_the_very_one_it_replaces_and_back(house: House) -> None:
    first, second = house.train("1.0-ft1"), house.train("1.0-ft2")
    house.compare(first, house.tiny)
    house.compare(second, first)

    with pytest.raises(Conflict, match=r"not compared with tiny-1\.0, which it replaces"):
        house.activate("tiny-1.0-ft2")
    house.activate("tiny-1.0-ft1")
    house.activate("tiny-1.0-ft2")
    house.activate("tiny-1.0-ft1")
    house.activate("tiny-1.0")

    assert house.default() == "1.0"


def test_a_damaged_record_of_the_default_stops_jobs_rather_than_choosing(house: House) -> None:
    house.server.folder.default_model.write_text("{")

    with pytest.raises(Conflict, match="the record of the default model cannot be read"):
        house.registry.resolve()
    house.activate("tiny-1.0")
    assert house.default() == "1.0"


def test_a_configured_bundle_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    settings = ServerSettings(state=tmp_path, studies="", bundle=str(tmp_path / "secret" / "none"))

    with pytest.raises(Conflict, match="its folder is not there") as caught:
        ModelRegistry(settings).resolve()
    assert "secret" not in str(caught.value)


def test_naming_a_trained_bundle_in_the_settings_does_not_measure_it(house: House) -> None:
    folder = house.train("1.0-ft1")
    settings = house.settings.model_copy(update={"bundle": str(folder)})
    registry = ModelRegistry(settings)

    with pytest.raises(Conflict, match="was not measured"):
        registry.resolve()
    assert [model.id for model in registry.models()].count("tiny-1.0-ft1") == 1

    house.compare(folder, house.tiny)
    assert registry.resolve()[1].version == "1.0-ft1"


@pytest.fixture
def client(house: House) -> TestClient:
    """A server with the routes of models alone; the header says who asks."""
    app = FastAPI()
    app.include_router(router)
    app.state.server = house.server

    @app.middleware("http")
    async def who(request: Request, call_next: Any) -> Any:
        role = request.headers.get("role")
        request.state.principal = Principal("Ada", Role(role)) if role else LOCAL
        return await call_next(request)

    return TestClient(app, raise_server_exceptions=False)


def test_the_list_of_models_says_what_they_risk_and_may_be_used_for(
    house: House, client: TestClient
) -> None:
    house.compare(house.train("1.0-ft1"), house.tiny)
    house.train("1.0-ft2")
    flip(house.server.folder.models / "tiny-1.0-ft2")

    answer = client.get("/privdiff/v1/models", headers={"role": "user"}).json()

    models = {model["id"]: model for model in answer["models"]}
    embedded = models[EMBEDDED_ID]["bundle"]
    assert answer["default"] == "tiny-1.0"
    assert [name for name, model in models.items() if model["default"]] == ["tiny-1.0"]
    record = EMBEDDED.metadata.model_dump(mode="json")
    for name in ("measured", "operating_points"):
        assert embedded[name] == record[name] != {}
    assert embedded["linkage_limit"] == EMBEDDED.metadata.gates.linkage_similarity
    assert len(embedded["sha256"]) == 64
    assert {"licence", "training_data", "intended_use"} < embedded.keys()
    comparison = models["tiny-1.0-ft1"]["comparison"]
    assert comparison["old"]["id"] == house.tiny.name
    assert comparison["figures"]["new"]["findings"]["value"] is None
    assert "hash" in models["tiny-1.0-ft2"]["problem"]
    assert str(house.settings.state) not in json.dumps(answer)


def test_the_list_of_models_is_quick_once_they_have_been_hashed(client: TestClient) -> None:
    client.get("/privdiff/v1/models")

    started = time.perf_counter()
    for _ in range(5):
        client.get("/privdiff/v1/models")

    assert (time.perf_counter() - started) / 5 < 0.1  # 20 ms are meant; machines of tests are busy


def test_the_default_is_made_by_administrators(house: House, client: TestClient) -> None:
    house.compare(house.train("1.0-ft1"), house.tiny)
    route = "/privdiff/v1/models/tiny-1.0-ft1/default"

    made = client.post(route, headers={"role": "admin"})

    assert made.status_code == 200
    assert made.json()["default"] is True
    assert house.default() == "1.0-ft1"
