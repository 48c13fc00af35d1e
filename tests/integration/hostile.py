"""Requests that no honest client sends, thousands of them from one seed, and what comes back.

Everything goes over one connection that is kept, so a server that drops it shows; what no client
library would send goes over a socket of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

CANARY = "canary-2f7c19"
"""Text of files that no answer may hold."""

SECONDS = 60

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "FOO")


@dataclass(frozen=True)
class Attack:
    """One request.

    Attributes
    ----------
    kind
        What it tries.
    method, target
        As they are sent.
    headers
        Besides the token.
    body
        Bytes, or chunks of them.
    token
        None for the administrator's own.
    """

    kind: str
    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Sequence[bytes] = b""
    token: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.method} {self.target[:80]}"


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes
    ----------
    status
        Of HTTP; 0 where the connection was closed without an answer.
    body
        Of the answer.
    """

    status: int
    body: bytes


def plant_canaries(folder: Path) -> list[Path]:
    """Write files beside the studies that an attacker would like to read."""
    planted = []
    for name in ("secret.txt", "secret.dcm", "beside/secret.png", "studies-secret/secret.dcm"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CANARY)
        planted.append(path)
    return planted


class Attacker:
    """Sends attacks to a server and keeps the connection where it can.

    Parameters
    ----------
    port
        On the loopback interface.
    token
        Of an administrator, so that attacks get past the door.
    """

    def __init__(self, port: int, token: str) -> None:
        self._port, self._token = port, token
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self.dropped = 0

    def send(self, attack: Attack) -> Answer:
        """Send a request over the one connection; a drop is counted and the request repeated."""
        try:
            return self._send(attack)
        except TimeoutError:
            raise AssertionError(f"no answer to {attack}") from None
        except (http.client.HTTPException, ConnectionError):
            self.dropped += 1
            self._connection.close()
            return self._send(attack)

    def _send(self, attack: Attack) -> Answer:
        connection = self._connection
        connection.putrequest(attack.method, attack.target, skip_accept_encoding=True)
        token = self._token if attack.token is None else attack.token
        if token and "Authorization" not in attack.headers:
            connection.putheader("Authorization", f"Bearer {token}")
        for name, value in attack.headers.items():
            connection.putheader(name, value)
        if isinstance(attack.body, bytes):
            if "Content-Length" not in attack.headers:
                connection.putheader("Content-Length", str(len(attack.body)))
            connection.endheaders(attack.body or None)
        else:
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders(iter(attack.body), encode_chunked=True)
        response = connection.getresponse()
        return Answer(response.status, response.read())

    def send_raw(self, content: bytes) -> Answer:
        """Send bytes that need not be HTTP over a connection of their own."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=SECONDS) as raw:
            raw.sendall(content)
            raw.shutdown(socket.SHUT_WR)
            received = b""
            with contextlib.suppress(ConnectionResetError):  # it did not read all that we sent
                while block := raw.recv(65_536):
                    received += block
        head = received.split(b" ", 2)
        return Answer(int(head[1]) if len(head) > 2 else 0, received)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def attacks(
    seed: int, count: int, images: Sequence[bytes], secrets: Sequence[Path]
) -> Iterator[Attack]:
    """Yield `count` attacks, all kinds in turn.

    Parameters
    ----------
    seed
        Of all choices.
    count
        How many.
    images
        Valid files, which are sent broken.
    secrets
        Files that are asked for.
    """
    chance = random.Random(seed)
    kinds = (
        traversals(chance, secrets), ids(chance, secrets), params(chance, secrets), bodies(chance),
        broken_files(chance, images), multiparts(chance), heads(chance), methods(chance),
        huge(chance), notes(chance),
    )  # fmt: skip
    for number in range(count):
        yield next(kinds[number % len(kinds)])


ROOTS = (
    "/", "/info/", "/infer/", "/datastore/", "/session/", "/static/", "/ohif/", "/model/",
    "/privdiff/v1/jobs/", "/privdiff/review/", "/privdiff/review/static/", "/privdiff/v1/models/",
    "/privdiff/reader-study/", "/privdiff/v1/training/", "/proxy/dicom/", "/logs/",
)  # fmt: skip
UPS = (
    "..", "%2e%2e", "..%2f", "%2e%2e%2f", "..%5c", "..\\", "%252e%252e%252f", "....//", "..;",
    "%c0%ae%c0%ae%c0%af", "%uff0e%uff0e", "..%00", ".%2e", "/",
)  # fmt: skip


def traversals(chance: random.Random, secrets: Sequence[Path]) -> Iterator[Attack]:
    """Yield addresses that climb out of a folder."""
    while True:
        secret = chance.choice([*map(str, secrets), "/etc/passwd", "secret.txt", "jobs.db"])
        ups = [chance.choice(UPS)] * chance.randint(1, 9)
        tail = secret if chance.random() < 0.5 else quote(secret, safe="")
        target = chance.choice(ROOTS) + chance.choice(["/", ""]).join(ups) + tail
        method = chance.choice(("GET", "GET", "HEAD", "POST", "PUT", "DELETE"))
        yield Attack("traversal", method, _sendable(target))


ROUTES_WITH_IDS = (
    ("POST", "/infer/privdiff?image={}"), ("POST", "/infer/privdiff?session_id={}"),
    ("GET", "/datastore/image?image={}"), ("GET", "/datastore/image/info?image={}"),
    ("GET", "/datastore/label?label={}&tag=final"), ("GET", "/datastore/label?label=a&tag={}"),
    ("DELETE", "/datastore/label?id={}&tag=final"), ("PUT", "/datastore/label/info?label={}&tag=x"),
    ("GET", "/session/{}"), ("DELETE", "/session/{}"), ("GET", "/privdiff/v1/jobs/{}"),
    ("GET", "/privdiff/v1/jobs/{}/result?kind=file"), ("GET", "/privdiff/v1/jobs/{}/source"),
    ("DELETE", "/privdiff/v1/jobs/{}"), ("POST", "/privdiff/v1/jobs/{}/review"),
    ("POST", "/privdiff/v1/jobs/{}/claim"), ("POST", "/privdiff/v1/models/{}/default"),
    ("GET", "/privdiff/v1/training/{}"), ("GET", "/privdiff/v1/training/a/samples/{}"),
    ("POST", "/activelearning/{}"), ("POST", "/infer/{}"), ("POST", "/train/{}"),
    ("POST", "/batch/infer/{}"), ("GET", "/privdiff/v1/reader-studies/{}"),
)  # fmt: skip


def ids(chance: random.Random, secrets: Sequence[Path]) -> Iterator[Attack]:
    """Yield ids that are paths, or anything else but ids."""
    wicked = [
        *map(str, secrets), "/etc/passwd", "../secret.txt", "..", ".", "~", "img-", "a\x00b",
        "C:\\secret", "\\\\host\\share", "' OR 1=1 --", "%s%n", "x" * 3000, "\u202e\u0000", "null",
        "-1", "1e999", "{{7*7}}", "${jndi:ldap://127.0.0.1}", "a\r\nSet-Cookie: x=1", "file:///etc",
    ]  # fmt: skip
    while True:
        method, pattern = chance.choice(ROUTES_WITH_IDS)
        text = chance.choice(wicked)
        if chance.random() < 0.3:
            text = "".join(chr(chance.randrange(1, 0x2FFF)) for _ in range(chance.randint(1, 40)))
        yield Attack("id", method, pattern.format(quote(text, safe="")))


def params(chance: random.Random, secrets: Sequence[Path]) -> Iterator[Attack]:
    """Yield params of /infer that reach for what they should not."""
    while True:
        secret = str(chance.choice(list(secrets)))
        wicked = [
            json.dumps({"image": secret}), json.dumps({"model": secret, "image": secret}),
            json.dumps({"session": {"image": secret}}), json.dumps({"bundle": secret}),
            json.dumps({"bundle": "../" * chance.randint(1, 9) + "etc"}), "[]", "null", "{", "1",
            '"x"', "{'seed': 1}", '{"seed": 1e999}', '{"seed": -1}', '{"strength": NaN}',
            '{"strength": "much"}', "[" * 9000, '{"seed":' + "9" * 5000 + "}", "\x00", "{}" * 9,
            json.dumps({"profile": "x" * chance.randint(1, 5000)}), json.dumps({"output": "/x"}),
        ]  # fmt: skip
        body = f"params={quote(chance.choice(wicked))}".encode()
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        yield Attack("params", "POST", "/infer/privdiff?image=img-none", form, body)


BODY_ROUTES = (
    ("POST", "/privdiff/v1/jobs/none/review"), ("POST", "/privdiff/v1/jobs/none/published"),
    ("POST", "/train/privdiff"), ("POST", "/batch/infer/privdiff"),
    ("POST", "/activelearning/first"), ("POST", "/privdiff/v1/reader-studies"),
    ("POST", "/privdiff/v1/jobs"), ("PUT", "/session/"), ("PUT", "/datastore/label?image=img-x"),
)  # fmt: skip
WRONG_BODIES = (
    b"", b"{", b"[1,2", b"\x00\x01\xff", b'"text"', b"[]", b"12", b'{"steps": "many"}',
    b'{"steps": -5}', b'{"model": "/etc/passwd"}', b'{"images": ["../../etc/passwd"], "x": 1}',
    b'{"images": 7}', b'{"batch": "../../x"}', b'{"submitter": "admin"}', b'{"decision": "x"}',
    b'{"a":' * 3000, b'{"label_tag": ["x"], "y": {}}', b'{"sha256": null, "decision": "approved"}',
    b"\xef\xbb\xbf{}x", b'{"steps": 1e400}', b"null x",
)  # fmt: skip


JSON = {"Content-Type": "application/json"}

WRONG_TYPES = (b"[]", b'"text"', b"12", b"[1]", b"true", b"1e999")


def bodies(chance: random.Random) -> Iterator[Attack]:
    """Yield bodies that are not what a route wants."""
    content_types = ("application/json", "text/plain", "application/xml", "application/dicom", "x")
    while True:
        method, target = chance.choice(BODY_ROUTES)
        body = chance.choice((*WRONG_TYPES, *(body + b" !" for body in WRONG_BODIES)))
        yield Attack("body", method, target, {"Content-Type": chance.choice(content_types)}, body)


NOTES = ('{"x": "\\ud800"}', '{"\\ud800": 1}', '{"x": NaN}', '{"x": 1e999}', '{"strategy": 5}')


def notes(chance: random.Random) -> Iterator[Attack]:
    """Yield JSON that Python reads and that nobody can write, or that another request trips over.

    No image, strategy or body is right.
    """
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    while True:
        text = chance.choice(NOTES)
        yield chance.choice(
            (
                Attack(
                    "note", "PUT", "/datastore/image/info?image=img-x", form,
                    f"info={quote(text)}".encode(),
                ),
                Attack("note", "POST", "/batch/infer/privdiff", JSON, text.encode()),
                Attack("note", "POST", "/train/privdiff", JSON, text.encode()),
                *(
                    Attack("note", "POST", "/activelearning/first", JSON, body)
                    for body in (
                        b'{"label_tag": 5}', b'{"strategy": ["x"]}', b'{"client_id": "\\ud800"}',
                        b'{"client_id": NaN}',
                    )
                ),
            )
        )  # fmt: skip


def broken_files(chance: random.Random, images: Sequence[bytes]) -> Iterator[Attack]:
    """Yield files that end early, or have other bytes in them."""
    while True:
        image = bytearray(chance.choice(list(images)))
        if chance.random() < 0.5:
            image = image[: chance.randrange(0, max(1, len(image) // 2))]
        else:
            for _ in range(20):
                image[chance.randrange(0, min(300, len(image)))] = chance.randrange(256)
            image = image[: len(image) // 2]
        name = chance.choice(("../../x.dcm", "a.dcm", "x" * 300, "", "a.nii.gz", ".."))
        body, form = multipart([("file", name, bytes(image))])
        yield Attack("broken file", "POST", "/infer/privdiff?output=json", form, body)


def multipart(
    parts: Sequence[tuple[str, str, bytes]], boundary: str = "limit"
) -> tuple[bytes, dict[str, str]]:
    """Return a form of files, and its header."""
    body = b""
    for name, file, content in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"'
        body += head.encode() + b"\r\n\r\n" + content + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def multiparts(chance: random.Random) -> Iterator[Attack]:
    """Yield forms that are none."""
    while True:
        body, form = multipart([("wrong", "a.dcm", b"x" * 50)])
        wrong = [
            (body[: chance.randrange(1, len(body))], form),
            (body, {"Content-Type": "multipart/form-data"}),
            (body, {"Content-Type": "multipart/form-data; boundary="}),
            (body, {"Content-Type": f"multipart/form-data; boundary={'b' * 500}"}),
            (body.replace(b"name=", b"n\xff\x00e="), form),
            (body.replace(b"\r\n", b"\n"), form),
            multipart([(f"f{n}", "", b"") for n in range(1200)]),
            (b"--limit\r\n" + b"X: y\r\n" * 2000 + b"\r\n", form),
            (chance.randbytes(200), form),
        ]
        content, header = chance.choice(wrong)
        # No route wants these names, so none of them is right, whatever a parser forgives.
        method, target = chance.choice(
            (("POST", "/privdiff/v1/jobs"), ("PUT", "/session/"), ("POST", "/infer/privdiff"))
        )
        yield Attack("multipart", method, target, header, content[:-1])


def heads(chance: random.Random) -> Iterator[Attack]:
    """Yield addresses and headers that are too much or contradict each other."""
    while True:
        target = chance.choice(("/info/", "/privdiff/v1/jobs", "/privdiff/v1/me", "/session/none"))
        wrong: list[tuple[str, dict[str, str]]] = [
            (target + "?" + "a=1&" * 300, {}),
            (target + "?q=" + "x" * 9000, {}),
            (target, {f"X-{n}": "y" for n in range(120)}),
            (target, {"X": "y" * 33_000}),
            (target, {"Authorization": f"Basic {'x' * chance.randint(0, 99)}"}),
            (target, {"Authorization": "Bearer"}),
            (target, {"Authorization": "Bearer " + "x" * chance.randint(1, 9000)}),
            (target + "/" + "a/" * 200 + "%", {}),
        ]
        address, headers = chance.choice(wrong)
        yield Attack("head", "GET", address, headers)


def methods(chance: random.Random) -> Iterator[Attack]:
    """Yield methods that a route does not take."""
    while True:
        target, taken = chance.choice(
            (
                ("/info/", ("GET",)),
                ("/infer/privdiff", ("POST",)),
                ("/train/privdiff", ("POST",)),
                ("/datastore/dataset", ("GET",)),
                ("/privdiff/v1/models", ("GET",)),
                ("/openapi.json", ("GET", "HEAD")),
            )
        )
        method = chance.choice([method for method in METHODS if method not in taken])
        yield Attack("method", method, target)


def huge(chance: random.Random) -> Iterator[Attack]:
    """Yield bodies above a limit of 1 MB, declared or not."""
    while True:
        method, target = chance.choice((*BODY_ROUTES, ("POST", "/infer/privdiff")))
        size = chance.choice((1_000_001, 1_500_000))
        head = multipart([("files", "a", b"")])[0].partition(b"\r\n--limit--")[0]
        form = {"Content-Type": "multipart/form-data; boundary=limit"}
        if chance.random() < 0.5:
            yield Attack("huge", method, target, form, head + b"x" * size)
        else:
            yield Attack("huge", method, target, form, [head, *[b"x" * 50_000] * 30])


RAW = (
    b"GET /info/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /info/ HTTP/1.1\r\n\r\n",
    b"GET http://evil.example/info/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    b"GET /in fo/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /info/\x00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET \xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /info/ HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9 + b"\r\n\r\n",
    b"POST /infer/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /logs/ HTTP/1.1\r\n\r\n",
    b"POST /infer/x HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /infer/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /infer/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    b"GET /info/ HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
    b"GET /info/../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    b"GET /info/ HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
)
"""What no client library sends."""


def forged(tokens: Mapping[str, str]) -> Iterator[Attack]:
    """Yield requests with each forged token to several routes."""
    for name, token in tokens.items():
        for method, target in (
            ("GET", "/info/"), ("GET", "/privdiff/v1/me"), ("GET", "/privdiff/v1/jobs"),
            ("POST", "/train/privdiff"), ("GET", "/datastore/image?image=i"), ("GET", "/nothing"),
        ):  # fmt: skip
            yield Attack(f"forged {name}", method, target, token=token)


def _sendable(target: str) -> str:
    """Return an address without what http.client refuses to send."""
    return "".join(c if 0x20 < ord(c) < 0x7F else quote(c) for c in target)
