"""The process that serves: uvicorn, which says where it listens once it does."""

from __future__ import annotations

import socket
from typing import Any

import typer
import uvicorn

GRACE_SECONDS = 5
"""How long open requests may take when the server ends."""


def run(app: str, *, host: str, port: int, root_path: str, behind_proxy: bool, **tls: Any) -> bool:
    """Serve until somebody ends it; tell whether it ever started.

    Parameters
    ----------
    app
        The application, as uvicorn names it.
    host, port
        Where to listen.
    root_path
        Path below which a proxy shows it.
    behind_proxy
        Whether what a proxy on this machine says of its clients is believed.
    tls
        Certificate and key, or nothing.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        root_path=root_path,
        proxy_headers=behind_proxy,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        **tls,
    )
    server = _AnnouncingServer(config)
    try:
        server.run()
    except KeyboardInterrupt:
        pass  # uvicorn has ended everything, and raises it again
    return server.started


class _AnnouncingServer(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        scheme = "https" if self.config.is_ssl else "http"
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        base = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{self.config.root_path}"
        typer.echo(f"MONAI Label clients   {base}")
        typer.echo(f"Review page           {base}/privdiff/review")
        typer.echo(f"Reader study          {base}/privdiff/reader-study")
        typer.echo(f"Interface             {base}/openapi.json")
