"""The client against a real HTTP server that misbehaves as told."""

from __future__ import annotations

import ast
import hashlib
import shutil
import ssl
import sys
import threading
import time
from email import message_from_bytes
from pathlib import Path

import privdiff_client
import pytest
from privdiff_client import (
    ApiError,
    Cancelled,
    ClientError,
    Conflict,
    Decision,
    DicomwebTarget,
    DigestMismatch,
    JobState,
    OptionError,
    Options,
    PrivDiffClient,
    StoreRefused,
    UnexpectedAnswer,
    Unreachable,
)

from tests.integration.authority import Authority
from tests.unit.scripted_server import Reply, ScriptedServer, running

API = "/privdiff/v1"
TOKEN = "s3cret-t0ken"
CONTENT = b"\0" * 128 + b"DICM and more"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
STORED = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}]}}
REFUSED = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xA700]}}]}}
PACKAGE = Path(privdiff_client.__file__).parent


@pytest.fixture
def server():
    with running() as found:
        yield found


@pytest.fixture
def client(server, monkeypatch):
    monkeypatch.setattr("privdiff_client.transport.WAIT_SECONDS", (0.01, 0.01))
    monkeypatch.setattr("privdiff_client.client.POLL_SECONDS", 0.01)
    with PrivDiffClient(server.url, TOKEN, answer_seconds=5) as found:
        yield found


def job(state: str = "queued", **fields: object) -> dict[str, object]:
    return {"id": "0f", "state": state, "sha256": SHA256, **fields}


def result(content: bytes = CONTENT, sha256: str = SHA256) -> Reply:
    return Reply(content, headers={"X-PrivDiff-SHA256": sha256, "Content-Type": "application/x"})


def form(server: ScriptedServer) -> list[tuple[str, str | None, bytes]]:
    """Return (name, file name, content) of the parts of the last request."""
    request = server.requests[-1]
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    return [
        (
            str(part.get_param("name", header="Content-Disposition")),
            part.get_filename(),
            part.get_payload(decode=True),
        )
        for part in message_from_bytes(head + request.content).get_payload()
    ]


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_client_runs_in_python_3_9_with_requests_alone(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    modules = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.level == 0
            else []
        )
    }

    roots = {module.partition(".")[0] for module in modules}

    assert roots <= set(sys.stdlib_module_names) | {"requests"}


def test_health_me_and_models_are_read(server, client):
    server.on(f"GET {API}/health", {"status": "ok", "version": "1.2"})
    server.on(f"GET {API}/me", {"name": "ann", "role": "reviewer", "store": True, "hat": "red"})
    cell = {"linkage_auc": 0.7, "findings_auc": 0.6, "interval": [0.6, 0.8], "n": 9, "more": 1}
    bundle = {"name": "a", "version": "1", "measured": {"fast": {"0.7": cell}}, "licence": "x"}
    broken = {"id": "b-1", "default": False, "problem": "damaged", "bundle": None}
    model = {"id": "a-1", "default": True, "bundle": bundle}
    server.on(f"GET {API}/models", {"default": "a-1", "models": [model, broken]})

    assert client.health() == "1.2"
    assert client.me().may_review and client.me().store
    strength, figures = client.models()[0].nearest_measured("fast", 0.9)
    assert (strength, figures.linkage_auc) == (0.7, 0.7)
    assert client.models()[0].nearest_measured("paper", 0.9) is None
    assert [(found.id, found.problem) for found in client.models()] == [
        ("a-1", ""),
        ("b-1", "damaged"),
    ]


def test_upload_keeps_the_name_of_the_file_here(server, client, tmp_path):
    server.on(f"POST {API}/jobs", Reply({"jobs": [job(), job()]}, 201))
    local = tmp_path / "Doe_Jane.dcm"
    local.write_bytes(b"\0" * 128 + b"DICM")

    jobs = client.submit([local, b"\x89PNG"], images=["i1"], options=Options(strength=0.7))

    assert [found.state for found in jobs] == [JobState.QUEUED] * 2
    assert form(server) == [
        ("files", "image-1.dcm", local.read_bytes()),
        ("files", "image-2.png", b"\x89PNG"),
        ("strength", None, b"0.7"),
        ("images", None, b"i1"),
    ]
    assert b"Doe" not in server.requests[-1].content


def test_file_that_cannot_be_read_is_not_named(server, client, tmp_path):
    with pytest.raises(OptionError, match="cannot be read") as caught:
        client.submit([tmp_path / "Doe_Jane.dcm"])

    assert "Doe" not in str(caught.value) and not server.requests


def test_queueing_is_repeated_under_the_same_key(server, client):
    server.on(f"POST {API}/jobs", Reply(None, 503), Reply({"jobs": [job()]}, 201))

    client.submit([b"a"])

    keys = [request.headers["Idempotency-Key"] for request in server.requests]
    assert len(keys) == 2 and len(set(keys)) == 1 and len(keys[0]) >= 32


def test_nothing_is_queued_without_an_image(client):
    with pytest.raises(OptionError):
        client.submit()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "Refused"),
        (401, "Unauthenticated"),
        (403, "Forbidden"),
        (404, "NotFound"),
        (409, "Conflict"),
        (413, "Refused"),
        (422, "Refused"),
        (429, "Busy"),
        (500, "ServerFailed"),
        (503, "ServerFailed"),
    ],
)
def test_refusal_carries_what_the_server_says(server, client, status, kind):
    server.on(f"GET {API}/me", Reply({"error": "e", "message": "why", "hint": "do"}, status))

    with pytest.raises(ApiError) as caught:
        client.me()

    assert type(caught.value).__name__ == kind
    assert str(caught.value) == "why; do" and caught.value.status == status


def test_refusal_without_json_still_says_something(server, client):
    server.on(f"GET {API}/me", Reply(b"<html>nginx</html>", 502))

    with pytest.raises(ApiError, match="status 502; check the address"):
        client.me()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(b"<html>"), UnexpectedAnswer),
        (Reply({"id": "0f"}), UnexpectedAnswer),
        (Reply(["0f"]), UnexpectedAnswer),
        (Reply(None, 302, {"Location": "http://example.org/"}), UnexpectedAnswer),
        (Reply(job(), cut=True), Unreachable),
        (Reply(job(), silence=0.6), Unreachable),
    ],
    ids=["html", "incomplete", "list", "redirect", "cut", "slow"],
)
def test_strange_answers_become_errors(server, client, reply, kind):
    server.on(f"GET {API}/jobs/0f", reply)
    client._transport._answer_seconds = 0.2

    with pytest.raises(kind):
        client.job("0f")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host",
        "ftp://host",
        "https://",
        "https://a:b@host",
        "https://h?token=1",
        "http://[",
        "http://h:0",
    ],
)
def test_impossible_addresses_are_refused(url):
    with pytest.raises(OptionError):
        PrivDiffClient(url)


def test_token_does_not_travel_in_the_clear():
    with pytest.raises(OptionError, match="https"):
        PrivDiffClient("http://hospital.example.org", TOKEN)


def test_token_is_sent_and_never_shown(server, client, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))

    with pytest.raises(ClientError) as caught:
        client.me()

    request = server.requests[-1]
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in request.path
    shown = [repr(client), repr(vars(client)), repr(vars(client._transport)), repr(caught.value)]
    assert not any(TOKEN in text for text in shown)


def test_this_computer_is_not_reached_through_a_proxy(server, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "")
    server.on(f"GET {API}/me", {"name": "ann", "role": "user"})
    with running() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)

        assert PrivDiffClient(server.url, TOKEN).me().name == "ann"

        assert not proxy.requests


def test_server_that_is_away_is_named(client, server):
    away = PrivDiffClient("http://127.0.0.1:9", TOKEN)

    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 cannot be reached; check") as caught:
        away.me()

    assert caught.value.__cause__ is None and caught.value.__suppress_context__


@pytest.mark.parametrize("call", ["publish", "next_to_review"])
def test_what_is_not_harmless_is_not_repeated(server, client, call):
    server.on(f"POST {API}/jobs/0f/publish", Reply(None, 503))
    server.on(f"POST {API}/review/next", Reply(None, 503))

    with pytest.raises(ApiError):
        client.publish("0f") if call == "publish" else client.next_to_review()

    assert len(server.requests) == 1


def test_ids_cannot_leave_their_place_in_the_path(server, client):
    with pytest.raises(ApiError):
        client.job("../models?x=1")

    assert server.requests[-1].path == f"{API}/jobs/..%2Fmodels%3Fx%3D1"


def test_pages_are_walked_to_the_end(server, client):
    server.on(
        f"GET {API}/jobs",
        {"jobs": [job(), job()], "next": "7", "counts": {"queued": 3}},
        {"jobs": [job()], "next": None, "counts": {"queued": 3}},
    )

    found = list(client.jobs(states=[JobState.QUEUED, JobState.HELD], limit=2))

    assert len(found) == 3
    assert server.requests[0].path.endswith("?state=queued&state=held&limit=2")
    assert server.requests[1].path.endswith("&after=7")


def test_states_of_a_newer_server_are_read(server, client):
    server.on(f"GET {API}/jobs/0f", job("levitating", figures=None, claim={"by": "ann"}))

    found = client.job("0f")

    assert found.state is JobState.UNKNOWN and found.claim.by == "ann"


def test_waiting_tells_every_change_and_survives_a_restart(server, client):
    progress = {"step": 1, "steps": 2, "fraction": 0.5}
    server.on(
        f"GET {API}/jobs/0f",
        job(),
        job(),
        Reply(job(), cut=True),
        Reply(job(), cut=True),
        Reply(job(), cut=True),
        job("running", progress=progress),
        job("awaiting_review"),
    )
    heard = []

    done = client.wait("0f", lambda job: heard.append((job.state.value, job.progress.fraction)))

    assert done.state is JobState.AWAITING_REVIEW
    assert heard == [("queued", 0), ("running", 0.5), ("awaiting_review", 0)]


def test_waiting_can_be_cancelled_and_ends_by_itself(server, client):
    server.on(f"GET {API}/jobs/0f", job())
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()

    with pytest.raises(Cancelled):
        client.wait("0f", cancelled=stop.is_set)
    with pytest.raises(Unreachable, match="not done yet"):
        client.wait("0f", timeout_seconds=0.05)


def test_a_silent_server_does_not_hold_a_cancelled_request(server, client):
    begin = time.monotonic()
    server.on(f"GET {API}/jobs/0f/result", Reply(None, 503))

    with pytest.raises(Cancelled):
        client.result("0f", cancelled=lambda: time.monotonic() - begin > 0.005)


def test_result_is_compared_with_its_digest(server, client):
    server.on(f"GET {API}/jobs/0f/result", result(), result(b"others"), Reply(CONTENT))

    assert client.result("0f").content == CONTENT
    with pytest.raises(DigestMismatch):
        client.result("0f")
    with pytest.raises(UnexpectedAnswer):
        client.result("0f")


def test_view_of_a_result_is_compared_with_its_own_digest(server, client):
    view = b"a picture"
    etag = f'"{hashlib.sha256(view).hexdigest()}"'
    headers = {"X-PrivDiff-SHA256": SHA256, "ETag": etag}
    server.on(f"GET {API}/jobs/0f/result", Reply(view, headers=headers))

    found = client.result("0f", "png")

    assert (found.content, found.sha256) == (view, SHA256)
    assert "picture" not in repr(found)


def test_review_names_the_bytes(server, client):
    server.on(f"POST {API}/jobs/0f/review", job("rejected"))

    assert client.review("0f", Decision.REJECTED, SHA256, "a ring").state is JobState.REJECTED

    assert server.requests[-1].content.decode() == (
        f'{{"decision": "rejected", "comment": "a ring", "sha256": "{SHA256}"}}'
    )


def test_approved_image_goes_to_a_store_of_our_own(server, client):
    server.on(f"GET {API}/jobs/0f", job("approved"))
    server.on(f"GET {API}/jobs/0f/result", result())
    server.on(f"POST {API}/jobs/0f/published", job("published"))
    server.on("POST /dicom-web/studies", STORED)
    target = DicomwebTarget(f"{server.url}/dicom-web", user="ü", password="pässword")

    publication = client.publish_to(target, "0f")

    sent, told = server.requests[-2:]
    assert publication.job.state is JobState.PUBLISHED
    assert CONTENT in sent.content and sent.headers["Authorization"].startswith("Basic ")
    assert f'"sha256": "{SHA256}", "store": "{target.url}"'.encode() in told.content
    assert publication.store_answer == "HTTP 200, stored"


@pytest.mark.parametrize(
    ("state", "content", "kind"),
    [
        ("awaiting_review", CONTENT, Conflict),
        ("rejected", CONTENT, Conflict),
        ("approved", b"others", DigestMismatch),
        ("approved", b"NRRD0004", OptionError),
    ],
)
def test_nothing_but_the_approved_bytes_is_sent(server, client, state, content, kind):
    sha256 = hashlib.sha256(content).hexdigest()
    approved = SHA256 if kind is DigestMismatch else sha256
    server.on(f"GET {API}/jobs/0f", job(state, sha256=approved))
    server.on(f"GET {API}/jobs/0f/result", result(content, sha256))

    with pytest.raises(kind):
        client.publish_to(DicomwebTarget(f"{server.url}/dicom-web"), "0f")

    assert not any(request.path.startswith("/dicom-web") for request in server.requests)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(REFUSED, 409), r"HTTP 409, code A700"),
        (Reply(REFUSED, 200), r"HTTP 200, code A700"),
        (Reply({}, 200), "did not confirm"),
        (Reply(b"<html>", 200), "did not confirm"),
        (Reply(None, 401), "does not let us in"),
        (Reply(None, 500), "HTTP 500"),
    ],
)
def test_store_must_confirm(server, reply, words):
    server.on("POST /studies", reply)

    with pytest.raises(StoreRefused, match=words):
        DicomwebTarget(server.url).store(CONTENT)


def test_store_may_warn(server):
    warned = {"00081199": {"Value": [{"00081196": {"vr": "US", "Value": [0xB000]}}]}}
    server.on("POST /studies", Reply(warned, 202))

    assert DicomwebTarget(server.url).store(CONTENT).text == "HTTP 202, stored, code B000"


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is absent")
def test_certificates_are_verified(tmp_path, monkeypatch):
    authority = Authority(tmp_path, "authority")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue("server"))
    with running(tls) as server:
        server.on(f"GET {API}/health", {"version": "1.2"})

        with pytest.raises(Unreachable, match="certificate that is not trusted"):
            PrivDiffClient(server.url, TOKEN).health()

        assert PrivDiffClient(server.url, TOKEN, ca=authority.certificate).health() == "1.2"
        assert len(server.requests) == 1
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
        assert PrivDiffClient(server.url, TOKEN).health() == "1.2"
