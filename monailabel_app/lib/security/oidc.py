"""Bearer tokens of an identity provider (OpenID Connect), verified here with its public keys.

Keys are fetched when the first token comes, and again when one names a key that is not known or the
keys are old, at most once in `RETRY_SECONDS`. While the provider does not answer, the keys that are
known go on; without any, nobody is known. Nothing of a token decides how it is verified: the
algorithm is RS256, the key is the provider's.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import jwt
import requests
import urllib3
from anyio import CapacityLimiter, Lock, fail_after, to_thread

from monailabel_app.lib.security.origins import LOOPBACK
from monailabel_app.lib.security.roles import Principal, Role
from privdiff_infer.errors import OptionError

ALGORITHM = "RS256"
DISCOVERY = "/.well-known/openid-configuration"
TIMEOUT_SECONDS = (3.05, 5.0)
"""To connect, and to wait for bytes."""

FETCH_SECONDS = 15.0
"""For all that is fetched, however slowly it comes."""

RETRY_SECONDS = 10.0
"""Least time between two looks at the provider, whoever makes us look."""

KEYS_SECONDS = 3600.0
"""Age at which keys are fetched again, so that one which was withdrawn goes."""

LEEWAY_SECONDS = 30
"""Clocks of provider and server may differ by this."""

MOST_BYTES = 1_000_000
ROLE_CLAIMS = ("realm_access.roles", "roles")
REQUIRED = ("exp", "iss", "aud", "sub")

UNUSABLE = (
    requests.RequestException, urllib3.exceptions.HTTPError, jwt.PyJWTError, TimeoutError,
    ValueError, KeyError, TypeError, AttributeError,
)  # fmt: skip
"""No answer of a provider, or one that is none."""

logger = logging.getLogger(__name__)


class Provider:
    """Knows people by the tokens of one issuer.

    Parameters
    ----------
    issuer
        URL; what tokens say in ``iss``.
    audience
        What tokens must say in ``aud``.
    role_prefix
        Before the names of our roles, such as ``privdiff-``.
    roles_claim
        Where roles stand, with dots; empty: `ROLE_CLAIMS`.
    name_claim
        Where the name stands; without it, ``sub`` is the name.
    clock
        Seconds that only grow.

    Raises
    ------
    OptionError
        If issuer or audience is missing, or the issuer is neither HTTPS nor on this machine.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        role_prefix: str = "privdiff-",
        roles_claim: str = "",
        name_claim: str = "preferred_username",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not issuer or not audience:
            raise OptionError(
                "an identity provider needs an issuer and an audience",
                "set PRIVDIFF_SERVER_OIDC_ISSUER and PRIVDIFF_SERVER_OIDC_AUDIENCE",
            )
        if not _is_trusted(issuer):
            raise OptionError(
                f"the identity provider {issuer} is not reached by HTTPS", "name an https URL"
            )
        self._issuer, self._audience = issuer, audience
        self._roles = {f"{role_prefix}{role.value}": role for role in Role}
        self._role_claims = (roles_claim,) if roles_claim else ROLE_CLAIMS
        self._name_claim, self._clock = name_claim, clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._looked, self._fetched = float("-inf"), float("-inf")
        self._lock, self._thread = Lock(), CapacityLimiter(1)

    async def principal(self, token: str) -> Principal | None:
        """Return whose token it is, or None where it proves nothing or gives no role."""
        try:
            key = await self._key(token)
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": list(REQUIRED)},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            logger.info("token refused", extra={"facts": {"kind": type(error).__name__}})
            return None
        return self._principal(claims)

    async def _key(self, token: str) -> jwt.PyJWK | None:
        header = jwt.get_unverified_header(token)
        name = header.get("kid")
        if header.get("alg") != ALGORITHM or not isinstance(name, str):
            return None
        is_old = self._clock() - self._fetched > KEYS_SECONDS
        if name not in self._keys or (is_old and not self._lock.locked()):
            await self._refresh()
        return self._keys.get(name)

    async def _refresh(self) -> None:
        async with self._lock:
            if self._clock() - self._looked < RETRY_SECONDS:
                return
            self._looked = self._clock()
            try:
                with fail_after(FETCH_SECONDS):
                    self._keys = await to_thread.run_sync(
                        _fetch_keys, self._issuer, limiter=self._thread, abandon_on_cancel=True
                    )
                self._fetched = self._clock()
            except UNUSABLE as error:
                facts = {"kind": type(error).__name__}
                logger.warning("identity provider does not answer", extra={"facts": facts})

    def _principal(self, claims: Mapping[str, Any]) -> Principal | None:
        named = {name for claim in self._role_claims for name in _texts(claims, claim)}
        roles = [role for name, role in self._roles.items() if name in named]
        name = claims.get(self._name_claim) or claims["sub"]
        if not roles or not isinstance(name, str):
            logger.info("token without a role")
            return None
        return Principal(name[:80], roles[-1])  # in the order of `Role`: the highest


def _fetch_keys(issuer: str) -> dict[str, jwt.PyJWK]:
    """Return the keys for signatures that a provider publishes, by their names."""
    configuration = _get_json(issuer.rstrip("/") + DISCOVERY)
    if configuration.get("issuer") != issuer:
        raise ValueError("the provider is another issuer")
    address = configuration["jwks_uri"]
    if not _is_trusted(address):
        raise ValueError("its keys would come without HTTPS")
    keys = {}
    for published in _get_json(address)["keys"]:
        if published.get("kty") == "RSA" and published.get("use", "sig") == "sig":
            keys[published["kid"]] = jwt.PyJWK(published, algorithm=ALGORITHM)
    return keys


def _get_json(url: str) -> dict[str, Any]:
    with requests.get(url, timeout=TIMEOUT_SECONDS, allow_redirects=False, stream=True) as answer:
        answer.raise_for_status()
        content = answer.raw.read(MOST_BYTES, decode_content=True)
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("this is no object")
    return found


def _is_trusted(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def _texts(claims: Mapping[str, Any], path: str) -> list[str]:
    """Return the texts at a place in claims; an issuer can have made it anything."""
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    values = [found] if isinstance(found, str) else found
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []
