"""Tokens of a real provider process: good ones, forged ones, rotated keys, an outage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monailabel_app.lib.security.oidc import RETRY_SECONDS, Provider
from monailabel_app.lib.security.roles import Principal, Role
from privdiff_infer.errors import OptionError
from tests.integration.oidc_provider import AUDIENCE, OidcProvider, forgeries

NOW = int(time.time())


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    provider = OidcProvider(tmp_path_factory.mktemp("oidc"))
    yield provider
    provider.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OidcProvider]:
    """A provider that a test may stop and rotate."""
    provider = OidcProvider(tmp_path)
    yield provider
    provider.stop()


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def whose(known: Provider, *tokens: str) -> list[Principal | None]:
    async def ask() -> list[Principal | None]:
        return [await known.principal(token) for token in tokens]

    return asyncio.run(ask())


def test_a_token_of_the_provider_names_person_and_role(issuer):
    known = Provider(issuer.issuer, AUDIENCE)
    assert whose(known, issuer.token()) == [Principal("ann", Role.REVIEWER)]


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"realm_access": None, "roles": ["privdiff-admin"]}, Role.ADMIN),
        ({"realm_access": None, "roles": "privdiff-user"}, Role.USER),
        ({"realm_access": {"roles": ["admin", "user"]}}, None),
        ({"realm_access": None}, None),
        ({"realm_access": {"roles": [1, None, {}]}}, None),
        ({"realm_access": "privdiff-admin"}, None),
        ({"realm_access": {"roles": {"privdiff-admin": 1}}}, None),
    ],
)
def test_roles_come_from_claims_with_our_prefix(issuer, claims, role):
    (found,) = whose(Provider(issuer.issuer, AUDIENCE), issuer.token(**claims))
    assert (found.role if found else None) == role


def test_claims_can_be_configured(issuer):
    known = Provider(issuer.issuer, AUDIENCE, role_prefix="", roles_claim="a.b", name_claim="email")
    token = issuer.token(a={"b": ["admin"]}, email="a@b.example")
    assert whose(known, token) == [Principal("a@b.example", Role.ADMIN)]


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 3600},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": NOW + 3600},
        {"iss": "http://evil.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"aud": []},
        {"sub": None},
    ],
)
def test_claims_that_do_not_hold_are_refused(issuer, claims):
    assert whose(Provider(issuer.issuer, AUDIENCE), issuer.token(**claims)) == [None]


def test_forged_tokens_are_nobodys(issuer):
    forged = forgeries(issuer)
    found = whose(Provider(issuer.issuer, AUDIENCE), *forged.values())
    assert {name for name, who in zip(forged, found, strict=True) if who} == set()


def test_a_new_key_is_fetched_when_it_is_first_named_and_not_more_often(own):
    clock = Clock()
    known = Provider(own.issuer, AUDIENCE, clock=clock)
    assert whose(known, own.token()) != [None]
    own.rotate("second")
    before = own.requests

    assert whose(known, *[own.token("second")] * 20) == [None] * 20
    assert own.requests == before
    clock.now += RETRY_SECONDS + 1
    assert whose(known, own.token("second")) == [Principal("ann", Role.REVIEWER)]
    assert own.requests == before + 1


def test_known_keys_go_on_while_the_provider_is_away(own):
    clock = Clock()
    known = Provider(own.issuer, AUDIENCE, clock=clock)
    assert whose(known, own.token()) != [None]

    own.stop()
    clock.now += 1e6
    assert whose(known, own.token()) == [Principal("ann", Role.REVIEWER)]
    own.start(own.port)


def test_without_any_key_nobody_is_known_and_a_later_try_succeeds(own):
    clock = Clock()
    own.stop()
    known = Provider(own.issuer, AUDIENCE, clock=clock)

    assert whose(known, own.token(), own.token()) == [None, None]
    own.start(own.port)
    clock.now += RETRY_SECONDS + 1
    assert whose(known, own.token()) == [Principal("ann", Role.REVIEWER)]


@pytest.mark.parametrize(
    ("issuer", "audience"), [("", "a"), ("https://x", ""), ("http://x.example", "a")]
)
def test_a_provider_that_cannot_be_trusted_is_refused_at_start(issuer, audience):
    with pytest.raises(OptionError):
        Provider(issuer, audience)


def test_a_provider_that_says_it_is_another_one_is_not_believed(own):
    known = Provider(own.issuer.replace("127.0.0.1", "localhost"), AUDIENCE)
    assert whose(known, own.token()) == [None]
