"""Hostile requests against a real server: always a 4xx, never a file that is nobody's business."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from monailabel_app.lib.verification import verify_state
from tests.integration.hostile import CANARY, Attack, multipart
from tests.integration.siege import PATIENT, Target, besiege, open_target
from tests.unit.outputs import AUDIT_KEY

COUNT = 300
SEED = 20

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Target]:
    with open_target(tmp_path_factory.mktemp("hostile"), tiny_bundle) as found:
        yield found


def test_hostile_requests_are_refused_and_the_server_goes_on(target):
    tally = besiege(target, SEED, COUNT)

    assert tally.wrong == []
    assert tally.leaks == []
    assert target.attacker.dropped == 0
    assert target.server.get("/info/").status_code == 200
    assert verify_state(target.server.state, AUDIT_KEY).findings == []


def test_a_connection_can_be_used_after_an_upload_that_was_too_large(target):
    form = {"Content-Type": "multipart/form-data; boundary=limit"}
    begun = multipart([("file", "a.dcm", b"")])[0].partition(b"\r\n--limit--")[0]
    chunks = [begun, *[b"x" * 50_000] * 60]
    refused = [
        target.attacker.send(Attack("huge", "POST", "/infer/privdiff", form, body))
        for body in (b"x" * 3_000_000, chunks)
    ]

    assert [answer.status for answer in refused] == [413, 413]
    assert json.loads(refused[1].body)["error"] == "too_large"
    assert target.attacker.send(Attack("", "GET", "/info/")).status == 200
    assert target.attacker.dropped == 0


@pytest.mark.parametrize("role", ["user", "reviewer"])
def test_roles_hold_against_the_real_routes(target, role):
    token = target.provider.token(realm_access=None, roles=[f"privdiff-{role}"])

    def status(method: str, path: str) -> int:
        return target.attacker.send(Attack("role", method, path, token=token)).status

    assert status("GET", "/info/") == 200
    assert {status(*route) for route in ADMINS_ALONE} == {403}
    assert status("GET", "/datastore/dataset") == (403 if role == "user" else 200)


ADMINS_ALONE = (
    ("POST", "/train/privdiff"), ("DELETE", "/train/"), ("POST", "/batch/infer/privdiff"),
    ("DELETE", "/batch/infer"), ("GET", "/train/"),
)  # fmt: skip


def test_without_a_token_no_route_is_reached(target):
    schema = target.server.get("/openapi.json").json()
    routes = [(method, path) for path, of in schema["paths"].items() for method in of]
    statuses = {
        (method, path): target.attacker.send(
            Attack("", method.upper(), path.replace("{", "").replace("}", ""), token="")
        ).status
        for method, path in routes
        if path != "/privdiff/v1/health" and path.startswith(("/privdiff/v1", "/info", "/infer"))
    }

    assert len(routes) > 10
    assert set(statuses.values()) == {401}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="schemathesis needs Python 3.11")
def test_requests_against_the_description_never_fail(target):
    """What fits and what does not fit our OpenAPI: no 5xx, and no canary."""
    import schemathesis
    from schemathesis.generation import GenerationMode

    schema = target.server.get("/openapi.json").json()
    loaded = schemathesis.openapi.from_dict(schema)
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    operations = [found.ok() for found in loaded.get_all_operations()]
    cases = st.one_of(
        [
            operation.as_strategy(generation_mode=mode)
            for operation in operations
            for mode in modes
            if (operation.method.upper(), operation.path) not in STARTS_LONG_WORK
        ]
    )

    @settings(
        max_examples=COUNT // 3,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def check(case):
        headers = {"Authorization": f"Bearer {target.server.token}"}
        answer = case.call(base_url=target.server.url, headers=headers, timeout=60)
        assert answer.status_code < 500, answer.text
        assert CANARY.encode() not in answer.content

    check()


STARTS_LONG_WORK = (("POST", "/train/{model}"), ("POST", "/batch/infer/{model}"))


def test_no_log_has_what_came_in(target):
    body, form = multipart([("file", f"{PATIENT}.dcm", target.image[:-500])])
    secret_token = target.provider.token(sub="none", realm_access=None)
    requests = [
        Attack("", "POST", f"/infer/privdiff?image={PATIENT}"),
        Attack("", "POST", "/infer/privdiff", form, body),
        Attack("", "GET", f"/{PATIENT}"),
        Attack("", "GET", f"/session/{PATIENT}"),
        Attack("", PATIENT, "/info/"),
        Attack("", "GET", f"/datastore/image?image={PATIENT}"),
        Attack("", "POST", "/activelearning/first", {"X": PATIENT}, b'{"client_id": "Planted-J"}'),
        Attack("", "GET", "/info/", token=secret_token),
    ]
    for request in requests:
        target.attacker.send(request)

    logs = target.server.logs()
    assert '"event": "request"' in logs
    assert "Planted" not in logs
    assert CANARY not in logs
    assert secret_token not in logs
    assert target.server.token not in logs
