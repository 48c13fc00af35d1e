"""`privdiff serve --prepare`: the command it prints starts the server that was chosen."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from monailabel.main import Main
from typer.testing import CliRunner

from monailabel_app.lib.security.roles import Role
from monailabel_app.lib.security.tokens import TokenFile
from monailabel_app.lib.settings import Authentication, ServerSettings
from monailabel_app.lib.upstream import settings_from_launcher
from privdiff_infer.cli import app
from privdiff_infer.errors import OptionError


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What a command sets for its children ends with the test."""
    with patch.dict(os.environ):
        yield


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "chest x-rays"
    folder.mkdir()
    return folder


def prepare(studies: Path, *options: object) -> str:
    words = ["serve", "--prepare", "--studies", studies, "--state", studies.parent / "state"]
    with patch.dict(os.environ):
        done = CliRunner().invoke(app, [*map(str, [*words, *options])])
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def started_by(command: str) -> tuple[ServerSettings, dict[str, object]]:
    """Return the settings of the server that a command starts, and what its launcher is told."""
    _, *words = shlex.split(command)
    assert words[:2] == ["-m", "monailabel.main"]
    told = vars(Main().args_parser().parse_args(words[2:]))
    return settings_from_launcher(told["app"], told["studies"], dict(told["conf"])), told


def test_the_printed_command_starts_the_server_that_was_chosen(
    studies: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    tokens, certificate, key = tmp_path / "to kens", tmp_path / "cert", tmp_path / "key"
    TokenFile(tokens).add("ann", Role.ADMIN)
    for file in (certificate, key):
        file.touch()

    command = prepare(
        studies,
        *("--host", "0.0.0.0", "--port", "8443", "--root-path", "/x", "--auth", "tokens"),
        *("--token-file", tokens, "--two-person", "--store", "https://research.example/dicom-web"),
        *("--bundle", tiny_bundle, "--ssl-certfile", certificate, "--ssl-keyfile", key),
    )
    settings, told = started_by(command)

    assert settings == ServerSettings(
        state=tmp_path / "state",
        studies=str(studies),
        bundle=str(tiny_bundle),
        auth=Authentication.TOKENS,
        token_file=tokens,
        two_person=True,
        store="https://research.example/dicom-web",
    )
    assert (told["host"], told["port"], told["root_path"]) == ("0.0.0.0", 8443, "/x")
    assert (told["ssl_certfile"], told["ssl_keyfile"]) == (str(certificate), str(key))


def test_two_people_without_authentication_are_refused(
    studies: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    words = ["--studies", studies, "--state", tmp_path / "state", "--bundle", tiny_bundle]

    done = CliRunner().invoke(app, ["serve", "--prepare", *map(str, words), "--two-person"])

    assert isinstance(done.exception, OptionError)
    assert "two people must approve" in str(done.exception)


def test_what_was_chosen_wins_over_the_environment_of_the_launcher(
    studies: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVDIFF_SERVER_WORKERS", "3")
    command = prepare(studies, "--bundle", tiny_bundle, "--auth", "none", "--one-person")
    monkeypatch.setenv("PRIVDIFF_SERVER_WORKERS", "5")
    monkeypatch.setenv("PRIVDIFF_SERVER_TWO_PERSON", "true")

    settings, _ = started_by(command)

    assert (settings.workers, settings.two_person) == (3, False)


def test_a_password_of_the_database_is_not_printed(
    studies: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql+psycopg://user:canary@db/x"
    monkeypatch.setenv("PRIVDIFF_SERVER_DATABASE", url)

    command = prepare(studies, "--bundle", tiny_bundle)

    assert "canary" not in command
    assert started_by(command)[0].database == url
