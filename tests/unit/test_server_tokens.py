"""The token file: what it holds, who may read it, and how soon a change counts."""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monailabel_app.lib.security.roles import Principal, Role
from monailabel_app.lib.security.tokens import TokenFile
from monailabel_app.token_commands import app
from privdiff_infer.errors import OptionError, SecretError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def whose(file: TokenFile, token: str) -> Principal | None:
    return asyncio.run(file.principal(token))


def test_a_token_is_known_by_its_hash_alone(path):
    token = TokenFile(path).add("ann", Role.REVIEWER)

    assert token not in path.read_text()
    assert hashlib.sha256(token.encode()).hexdigest() in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert whose(TokenFile.open(path), token) == Principal("ann", Role.REVIEWER)


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "x", str.upper, lambda t: "é"])
def test_another_token_is_nobodys(path, change):
    token = TokenFile(path).add("ann", Role.USER)
    assert whose(TokenFile.open(path), change(token)) is None


def test_a_hash_is_no_token(path):
    TokenFile(path).add("ann", Role.USER)
    digest = json.loads(path.read_text())["tokens"][0]["sha256"]
    assert whose(TokenFile.open(path), digest) is None


def test_a_running_server_sees_changes_of_the_file(path):
    writer = TokenFile(path)
    first = writer.add("ann", Role.USER)
    server = TokenFile.open(path)

    second = writer.add("ben", Role.ADMIN)
    assert whose(server, second) == Principal("ben", Role.ADMIN)
    writer.remove("ann")
    assert whose(server, first) is None
    assert whose(server, second) == Principal("ben", Role.ADMIN)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.chmod(0o640),
        lambda path: path.chmod(0o604),
        lambda path: path.write_text("{}"),
        lambda path: path.write_text('{"tokens": [{"name": "x"}]}'),
        lambda path: path.unlink(),
    ],
)
def test_a_file_that_cannot_be_trusted_lets_nobody_in(path, spoil):
    token = TokenFile(path).add("ann", Role.USER)
    server = TokenFile.open(path)

    spoil(path)

    assert whose(server, token) is None
    with pytest.raises(SecretError):
        TokenFile.open(path)


@pytest.mark.parametrize(("today", "holds"), [(date(2026, 1, 31), True), (date(2026, 2, 1), False)])
def test_a_token_ends_with_its_last_day(path, today, holds):
    token = TokenFile(path).add("ann", Role.USER, expires=date(2026, 1, 31))
    found = whose(TokenFile(path, today=lambda: today), token)
    assert (found is not None) == holds


def test_names_are_unique_and_plain(path):
    file = TokenFile(path)
    file.add("ann", Role.USER)

    for name in ("ann", "", "a\nb", "x" * 100, "../x"):
        with pytest.raises(OptionError):
            file.add(name, Role.USER)
    with pytest.raises(OptionError):
        file.remove("nobody")


def test_several_administrators_add_at_once(path):
    names = [f"user {number}" for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: TokenFile(path).add(name, Role.USER), names))

    assert sorted(one.name for one in TokenFile.open(path).tokens()) == sorted(names)


def test_commands_add_list_and_remove(path):
    def run(*words: str):
        return CliRunner().invoke(app, [*words, "--token-file", str(path)])

    added = run("add", "ann", "--role", "reviewer", "--expires", "2099-01-31")
    assert whose(TokenFile.open(path), added.output.strip()) == Principal("ann", Role.REVIEWER)
    assert run("list").output == "ann\treviewer\t2099-01-31\n"
    assert run("add", "ben", "--role", "king").exit_code == 2
    assert run("remove", "ann").exit_code == 0
    assert run("list").output == ""
