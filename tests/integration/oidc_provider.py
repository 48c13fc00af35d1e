"""An OpenID provider for tests: a process of its own that publishes keys; tokens are made here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

AUDIENCE = "privdiff"


class OidcProvider:
    """A provider on a free port of this machine, until `stop`.

    Parameters
    ----------
    folder
        Where it reads its keys from at every request.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.rotate("first")
        self.start()
        self.issuer = f"http://127.0.0.1:{self.port}/realms/clinic"

    def start(self, port: int = 0) -> None:
        """Start the process."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self._folder), str(port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def rotate(self, kid: str) -> None:
        """Publish one key more."""
        self.keys[kid] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        published = []
        for name, key in self.keys.items():
            jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
            published.append(jwk | {"kid": name, "use": "sig", "alg": "RS256"})
        (self._folder / "keys.json").write_text(json.dumps({"keys": published}))

    @property
    def requests(self) -> int:
        """How often keys were asked for."""
        with suppress(FileNotFoundError):
            return len((self._folder / "requests").read_text())
        return 0

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good token of a reviewer; None takes one away."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "4711",
            "preferred_username": "ann",
            "iat": now,
            "exp": now + 300,
            "realm_access": {"roles": ["offline_access", "privdiff-reviewer", "privdiff-user"]},
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(self, kid: str = "first", **changes: Any) -> str:
        """Return a signed token with these claims."""
        return jwt.encode(self.claims(**changes), self.keys[kid], "RS256", {"kid": kid})

    def public_pem(self) -> bytes:
        """Return the public key, which everybody has."""
        return (
            self.keys["first"]
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )


def unsigned(header: Any, claims: Any, signature: bytes = b"") -> str:
    """Return a token that says what it likes."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def forgeries(issuer: OidcProvider) -> dict[str, str]:
    """Return tokens that were not made by the provider, by what they try."""
    claims = issuer.claims(roles=["privdiff-admin"])
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    good = issuer.token()
    head, body, signature = good.split(".")
    embedded = jwt.algorithms.RSAAlgorithm.to_jwk(stranger.public_key(), as_dict=True)
    hs256 = unsigned({"alg": "HS256", "kid": "first"}, claims)  # PyJWT refuses to make it
    mac = hmac.new(issuer.public_pem(), hs256.rstrip(".").encode(), hashlib.sha256).digest()
    return {
        "none": unsigned({"alg": "none", "kid": "first"}, claims),
        "None": unsigned({"alg": "None", "kid": "first"}, claims, b"x"),
        "hs256": unsigned({"alg": "HS256", "kid": "first"}, claims, mac),
        "stranger": jwt.encode(claims, stranger, "RS256", {"kid": "first"}),
        "embedded": jwt.encode(claims, stranger, "RS256", {"kid": "first", "jwk": embedded}),
        "jku": jwt.encode(claims, stranger, "RS256", {"kid": "x", "jku": "http://127.0.0.1:9/"}),
        "kid missing": jwt.encode(claims, issuer.keys["first"], "RS256"),
        "kid unknown": jwt.encode(claims, issuer.keys["first"], "RS256", {"kid": "../first"}),
        "kid number": unsigned({"alg": "RS256", "kid": 1}, claims, b"x"),
        "rs512": jwt.encode(claims, issuer.keys["first"], "RS512", {"kid": "first"}),
        "ps256": jwt.encode(claims, issuer.keys["first"], "PS256", {"kid": "first"}),
        "unsigned": f"{head}.{body}.",
        "other body": f"{head}.{unsigned({}, claims).split('.')[1]}.{signature}",
        "crit": unsigned({"alg": "RS256", "kid": "first", "crit": ["x"]}, claims, b"x"),
        "no token": "a.b.c",
        "dots": "....",
        "list": unsigned([], claims),
        "claims are a list": unsigned({"alg": "RS256", "kid": "first"}, []),
    }


class _Handler(BaseHTTPRequestHandler):
    folder: Path

    def do_GET(self) -> None:
        host = f"http://127.0.0.1:{self.server.server_address[1]}"
        if self.path == "/realms/clinic/.well-known/openid-configuration":
            issuer = f"{host}/realms/clinic"
            self._send(json.dumps({"issuer": issuer, "jwks_uri": f"{host}/keys"}).encode())
        elif self.path == "/keys":
            with (self.folder / "requests").open("a") as file:
                file.write("x")
            self._send((self.folder / "keys.json").read_bytes())
        else:
            self.send_error(404)

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *values: Any) -> None:
        pass


if __name__ == "__main__":
    _Handler.folder = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
