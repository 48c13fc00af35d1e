"""Where a request comes from, which is all that protects a server without authentication."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from monailabel_app.lib.errors import Misdirected

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(address: str) -> bool:
    """Tell whether an IP address is one that only this machine reaches."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def check_peer(scope: Scope) -> None:
    """Refuse connections from other machines, wherever the launcher listens.

    The name that a request gives to its host is the choice of who sends it; these addresses are
    not. A connection that is broken off has no peer any more, so none is no proof of anything but
    at a Unix socket, whose name stands where the address would.

    Raises
    ------
    Misdirected
        If it does not come from this machine.
    """
    here, port = scope.get("server") or ("", 0)
    if port is None:
        return
    there = (scope.get("client") or ("",))[0]
    if not (is_loopback(there) and (is_loopback(here) or here in LOOPBACK)):
        raise Misdirected(
            "this server answers to its own machine alone", "give the server users and tokens"
        )


def check_host(headers: Headers) -> None:
    """Refuse names that a foreign page could have given this address (DNS rebinding).

    Raises
    ------
    Misdirected
        If the name is not that of this machine.
    """
    hosts = headers.getlist("host")
    if len(hosts) != 1 or _name(f"//{hosts[0]}") not in LOOPBACK:
        raise Misdirected(
            "this server answers to localhost alone",
            "open http://127.0.0.1 with its port, or give the server users and tokens",
        )


def check_origin(headers: Headers, scheme: str) -> None:
    """Refuse what a page of another origin had the browser send.

    Raises
    ------
    Misdirected
        If the browser says so.
    """
    own = f"{scheme}://{headers['host']}"
    foreign = [origin for origin in headers.getlist("origin") if origin != own]
    if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Misdirected("another web page had this request sent", "open the server's own page")


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
