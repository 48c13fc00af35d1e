"""A small HTTP server in front of a real store that misbehaves as a test says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

HOP_BY_HOP = {
    "connection",
    "content-encoding",  # `requests` undoes it
    "content-length",
    "host",
    "keep-alive",
    "transfer-encoding",
}


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What goes out; of the body only `cut` bytes, if that is given, and then the line is dead."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None


Forward = Callable[[Request], Answer]
Behaviour = Callable[[Request, Forward], Answer | None]
"""Gives the answer, or None to break off the connection without one."""


@dataclass
class Proxy:
    """A proxy that runs.

    Attributes
    ----------
    url
        Of the DICOMweb service that it stands for.
    behaviour
        What it does; tests set it.
    requests
        What came in, in order.
    """

    url: str
    behaviour: Behaviour
    requests: list[Request] = field(default_factory=list)

    def count(self, method: str) -> int:
        """Return how many requests of a kind came in."""
        return sum(request.method == method for request in self.requests)


@contextmanager
def running_proxy(
    target: str, behaviour: Behaviour | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Proxy]:
    """Start a proxy for `target`, such as ``http://127.0.0.1:8042``; by default it behaves."""
    proxy = Proxy("", behaviour or (lambda request, forward: forward(request)))

    def forward(request: Request) -> Answer:
        kept = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        response = requests.request(
            request.method, target + request.path, headers=kept, data=request.body, timeout=30
        )
        headers = {k: v for k, v in response.headers.items() if k.lower() not in HOP_BY_HOP}
        return Answer(response.status_code, headers, response.content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def log_message(self, *_: object) -> None:
            pass

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            request = Request(self.command, self.path, dict(self.headers), body)
            proxy.requests.append(request)
            answer = proxy.behaviour(request, forward)
            self.close_connection = True
            if answer is None:
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: answer.cut])

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that gave up is what some tests want

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    proxy.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}/dicom-web"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
