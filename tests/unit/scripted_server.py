"""A real HTTP server on the loopback interface that answers as a test wrote down."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What is answered; `silence` is how many seconds later, `cut` leaves half of the body out."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    silence: float = 0
    cut: bool = False

    @property
    def content(self) -> bytes:
        """The body as bytes; anything else than bytes is JSON."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Request:
    """What arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes


@dataclass
class ScriptedServer:
    """A server with its script: the last reply of a route is given again and again."""

    url: str = ""
    script: dict[str, list[Reply]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def on(self, route: str, *replies: Reply | Any) -> None:
        """Set the answers to ``METHOD /path``; anything that is no `Reply` is its JSON."""
        self.script[route] = [r if isinstance(r, Reply) else Reply(r) for r in replies]

    def requests_to(self, ending: str) -> list[Request]:
        """Return the requests whose path ends so."""
        return [request for request in self.requests if request.path.endswith(ending)]

    def reply(self, request: Request) -> Reply:
        """Note a request and return what is written for it."""
        self.requests.append(request)
        replies = self.script.get(f"{request.method} {request.path.partition('?')[0]}")
        if not replies:
            return Reply({"error": "not_found", "message": "no such route", "hint": "none"}, 404)
        return replies.pop(0) if len(replies) > 1 else replies[0]


@contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """Run a server until the context ends."""
    server = ScriptedServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = server.reply(Request(self.command, self.path, dict(self.headers), content))
            time.sleep(reply.silence)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content[: len(reply.content) // 2 if reply.cut else None])
            self.close_connection = reply.cut

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
