"""What stands before every route: who may pass, how large, from where, and how errors look."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from fastapi import Depends, FastAPI, Form, UploadFile
from fastapi.middleware.cors import CORSMiddleware
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException
from starlette.responses import Response

from monailabel_app.lib import answers
from monailabel_app.lib.security.middleware import protect
from monailabel_app.lib.security.roles import Principal, Require, Role
from privdiff_infer.errors import ImageHeld, OptionError

TOKENS = {f"token-of-{role.value}": Principal(f"a {role.value}", role) for role in Role}
LIMIT = 10_000
LOCAL = {"host": "127.0.0.1:8000"}


class FromTable:
    """Knows the people of `TOKENS`."""

    async def principal(self, token: str) -> Principal | None:
        return TOKENS.get(token)


def make_app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True)

    @app.get("/info/")
    def info() -> dict[str, str]:
        return {"name": "here"}

    @app.get("/reload")
    @app.get("/model/{name}")
    @app.get("/logs/")
    def hidden() -> dict[str, str]:
        return {"secret": "canary"}

    @app.post("/infer/{model}")
    def infer(model: str, image: str = "", params: str = Form("{}")) -> dict[str, str]:
        return {"image": image, "params": params}

    @app.get("/privdiff/v1/health")
    def health() -> dict[str, str]:
        return {"status": "well"}

    @app.get("/privdiff/v1/me")
    def me(asking: Principal = Depends(Require(Role.USER))) -> dict[str, str]:  # noqa: B008
        return {"name": asking.name, "role": asking.role.value}

    @app.get("/privdiff/v1/jobs/{job}/source")
    def source(asking: Principal = Depends(Require(Role.REVIEWER))) -> Response:  # noqa: B008
        return Response(b"pixels", media_type="image/png")

    @app.post("/privdiff/v1/jobs")
    async def upload(files: list[UploadFile]) -> dict[str, int]:
        return {"size": sum([len(await file.read()) for file in files])}

    @app.get("/privdiff/v1/fails/{how}")
    def fails(how: str) -> None:
        raise {
            "value": ValueError("DOE^JANE"),
            "held": ImageHeld("no radiograph", "name one", detail="DOE^JANE"),
            "option": OptionError("/srv/DOE^JANE is wrong", "name another"),
            "http": HTTPException(500, "DOE^JANE"),
        }[how]

    answers.install(app)
    return app


def client_of(
    authenticator: FromTable | None,
    base_url: str = "http://127.0.0.1:8000",
    peer: str = "127.0.0.1",
):
    app = make_app()
    protect(app, authenticator, most_bytes=LIMIT)
    return TestClient(app, base_url=base_url, client=(peer, 50_000))


@pytest.fixture(scope="module")
def open_client() -> TestClient:
    return client_of(None)


@pytest.fixture(scope="module")
def client() -> TestClient:
    return client_of(FromTable(), "http://privdiff.example")


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer token-of-{role}"}


def assert_is_error(answer, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "message", "hint"}


@pytest.mark.parametrize(
    ("method", "path", "lowest"),
    [
        ("GET", "/info/", Role.USER),
        ("GET", "/privdiff/v1/me", Role.USER),
        ("GET", "/privdiff/v1/jobs/1/source", Role.REVIEWER),
        ("GET", "/datastore/dataset", Role.REVIEWER),
        ("DELETE", "/datastore/label?id=a&tag=final", Role.ADMIN),
        ("POST", "/train/privdiff", Role.ADMIN),
        ("POST", "/batch/infer/privdiff", Role.ADMIN),
    ],
)
@pytest.mark.parametrize("asking", list(Role))
def test_a_route_asks_for_its_role(client, method, path, lowest, asking):
    answer = client.request(method, path, headers=bearer(asking.value))

    if asking.includes(lowest):
        assert answer.status_code not in (401, 403)
    else:
        assert_is_error(answer, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "token-of-admin"},
        {"Authorization": "Bearer " + "x" * 9_000},
    ],
)
@pytest.mark.parametrize("path", ["/info/", "/privdiff/v1/me", "/logs/", "/nothing", "/infer/x"])
def test_nobody_gets_past_the_door(client, headers, path):
    answer = client.get(path, headers=headers)

    assert_is_error(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_two_authorization_headers_are_refused(client):
    both = [("Authorization", "Bearer token-of-user"), ("Authorization", "Bearer token-of-admin")]
    assert_is_error(client.get("/info/", headers=both), 400)


@pytest.mark.parametrize("path", ["/privdiff/v1/health", "/privdiff/review"])
def test_pages_without_data_need_no_token(client, path):
    assert client.get(path).status_code in (200, 404)


@pytest.mark.parametrize(
    "path",
    [
        "/logs/", "/reload", "/model/privdiff", "/train/other", "/ohif/index.html",
        "/proxy/dicom/studies", "/infer/wsi/privdiff", "/static/x", "/auth/", "/docs", "/",
        "/info/../logs/", "/info//", "//info/", "/info/%2e%2e/logs", "/info/%2f", "/info%00",
        "/infer/..%2f..%2fetc%2fpasswd", "/infer/..\\x", "/infer/%252e%252e",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD", "OPTIONS", "TRACE"])
def test_what_is_not_listed_is_refused_to_administrators_too(client, path, method):
    scope_url = client.base_url.copy_with(raw_path=path.encode())

    answer = client.request(method, scope_url, headers=bearer("admin"))

    assert answer.status_code in (404, 405)
    assert "canary" not in answer.text


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "PATCH", "DELETE"])
def test_a_listed_path_takes_its_methods_alone(client, method):
    assert client.request(method, "/info/", headers=bearer("admin")).status_code == 405


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[", "localhost@e"]
)
def test_without_authentication_only_this_machine_is_answered(open_client, host):
    for path in ("/info/", "/privdiff/v1/health"):
        assert_is_error(open_client.get(path, headers={"host": host}), 403)


@pytest.mark.parametrize(
    ("client", "server", "status"),
    [
        (("127.0.0.1", 5), ("127.0.0.1", 8000), 200),
        (("::1", 5), ("::1", 8000), 200),
        (("::ffff:127.0.0.1", 5), ("::ffff:127.0.0.1", 8000), 200),
        (None, ("/run/privdiff.sock", None), 200),
        (("203.0.113.9", 5), ("198.51.100.1", 8000), 403),
        (("203.0.113.9", 5), ("127.0.0.1", 8000), 403),  # told by a proxy on this machine
        (("127.0.0.1", 5), ("198.51.100.1", 8000), 403),
        (("name", 5), ("127.0.0.1", 8000), 403),
        (None, ("127.0.0.1", 8000), 403),  # broken off: nobody knows any more who it was
        (None, None, 403),
    ],
)
def test_without_authentication_the_addresses_of_the_connection_count(client, server, status):
    answers_ = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        answers_.append(message.get("status"))

    scope = {
        "type": "http", "method": "GET", "path": "/info/", "raw_path": b"/info/", "scheme": "http",
        "query_string": b"", "headers": [(b"host", b"localhost:8000")], "http_version": "1.1",
        "client": client, "server": server,
    }  # fmt: skip
    app = make_app()
    protect(app, None, most_bytes=LIMIT)
    asyncio.run(app(scope, receive, send))

    assert answers_[0] == status


def test_another_machine_is_no_administrator_whatever_host_it_names():
    client = client_of(None, peer="203.0.113.9")
    for path in ("/privdiff/v1/me", "/privdiff/v1/health"):
        assert_is_error(client.get(path, headers={"host": "localhost"}), 403)


def test_with_authentication_other_machines_are_answered():
    client = client_of(FromTable(), "http://privdiff.example", peer="203.0.113.9")
    assert client.get("/info/", headers=bearer("user")).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "LOCALHOST"])
def test_without_authentication_everybody_here_is_an_administrator(open_client, host):
    answer = open_client.get("/privdiff/v1/me", headers={"host": host})
    assert answer.json() == {"name": "local", "role": "admin"}


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "https://127.0.0.1:8000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_origins_cannot_send_requests(open_client, headers):
    assert_is_error(open_client.post("/infer/privdiff", headers=LOCAL | headers), 403)
    assert_is_error(open_client.get("/info/", headers=LOCAL | headers), 403)


def test_the_own_page_can(open_client):
    headers = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert open_client.get("/info/", headers=headers).status_code == 200


def test_no_answer_allows_another_origin(client):
    answer = client.get("/info/", headers=bearer("user") | {"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_pictures_are_not_kept_and_pages_not_framed(client):
    answer = client.get("/privdiff/v1/jobs/1/source", headers=bearer("reviewer"))

    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def whole() -> bytes:
    return b"x" * (LIMIT + 1)


def in_chunks() -> Iterator[bytes]:
    for _ in range(200):
        yield b"x" * 1000


@pytest.mark.parametrize("path", ["/infer/privdiff", "/privdiff/v1/jobs"])
@pytest.mark.parametrize("body", [whole, in_chunks])
def test_a_body_above_the_limit_is_refused(client, path, body):
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert_is_error(client.post(path, content=body(), headers=bearer("user") | form), 413)


def test_a_body_below_the_limit_arrives(client):
    files = {"files": b"x" * (LIMIT - 1000)}
    answer = client.post("/privdiff/v1/jobs", files=files, headers=bearer("user"))
    assert answer.json() == {"size": LIMIT - 1000}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/info/?" + "a=1&" * 300, {}, 414),
        ("/info/?a=" + "x" * 9000, {}, 414),
        ("/info/", {f"x-{n}": "y" for n in range(120)}, 431),
        ("/info/", {"x": "y" * 40_000}, 431),
        ("/info/", {"content-length": "many"}, 400),
        ("/info/", {"content-length": "-5"}, 200),
    ],
)
def test_addresses_and_headers_have_limits(client, path, headers, status):
    assert client.get(path, headers=bearer("user") | headers).status_code == status


@pytest.mark.parametrize(
    "image",
    ["/etc/passwd", "../x", "a/b", "a\\b", "..", ".hidden", "a\x00b", "a\nb", "x" * 300, "C:\\x"],
)
@pytest.mark.parametrize("name", ["image", "session_id"])
def test_ids_that_look_like_paths_do_not_reach_monai_label(client, name, image):
    answer = client.post("/infer/privdiff", params={name: image}, headers=bearer("user"))

    assert_is_error(answer, 400)
    assert image not in answer.json()["message"]


def test_an_id_given_twice_is_refused(client):
    answer = client.post("/infer/privdiff?image=a&image=b", headers=bearer("user"))
    assert_is_error(answer, 400)


@pytest.mark.parametrize("image", ["1.2.840.113619.2.1", "gray 01", "cxr-1", "Aufnahme_ü"])
def test_ids_of_images_pass(client, image):
    answer = client.post("/infer/privdiff", params={"image": image}, headers=bearer("user"))
    assert answer.json()["image"] == image


@pytest.mark.parametrize(
    ("how", "status"), [("value", 500), ("held", 422), ("option", 422), ("http", 400)]
)
def test_errors_are_json_without_what_they_are_about(client, caplog, how, status):
    with caplog.at_level(logging.ERROR):
        answer = client.get(f"/privdiff/v1/fails/{how}", headers=bearer("user"))

    assert_is_error(answer, status)
    assert "DOE" not in answer.text


def test_what_nobody_foresaw_has_a_reference_in_the_log(client, caplog):
    answer = client.get("/privdiff/v1/fails/value", headers=bearer("user"))

    (record,) = [r for r in caplog.records if r.name == "monailabel_app.lib.answers"]
    assert record.facts["reference"] in answer.json()["message"]


def test_invalid_requests_do_not_quote_what_came(client):
    content = json.dumps({"DOE^JANE": "1.2.3"})
    answer = client.post("/privdiff/v1/jobs", content=content, headers=bearer("user"))

    assert_is_error(answer, 422)
    assert "DOE" not in answer.text
    assert "files" in answer.json()["message"]


def test_wrong_tokens_of_one_address_are_slowed_but_right_ones_pass(monkeypatch):
    client = client_of(FromTable(), "http://privdiff.example")
    answers_ = [client.get("/info/", headers={"Authorization": f"Bearer {n}"}) for n in range(30)]

    assert [a.status_code for a in answers_[:20]] == [401] * 20
    assert_is_error(answers_[-1], 429)
    assert client.get("/info/", headers=bearer("user")).status_code == 200
