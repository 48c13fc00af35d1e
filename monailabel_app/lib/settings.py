"""What the administrator chose: one typed object that every process of the server reads.

The server, the dispatcher and the training subprocess are processes of their own that share nothing
but the environment, so that is where settings travel: ``PRIVDIFF_SERVER_*``. Nothing secret is
among them: tokens and passwords lie in files, or in the variables that `privdiff_infer` reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from privdiff_infer.errors import OptionError
from privdiff_infer.vocabulary import DEFAULT_BUNDLE

PREFIX = "PRIVDIFF_SERVER_"


class Authentication(str, Enum):
    """How the server knows who asks.

    ``NONE`` is for one person on one machine: everyone who reaches the loopback address is an
    administrator. ``TOKENS`` reads a file of hashed tokens; ``OIDC`` verifies bearer tokens of an
    identity provider.
    """

    NONE = "none"
    TOKENS = "tokens"
    OIDC = "oidc"


class ServerSettings(BaseSettings):
    """Settings of the server; each is also an environment variable with the prefix `PREFIX`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    state: Path = Field(description="Folder of everything that the server writes.")
    studies: str = Field(description="Folder, or DICOMweb URL, of the images that are listed.")
    bundle: str = Field(
        DEFAULT_BUNDLE, description="Bundle by name or folder, until one is made default."
    )
    store: str = Field("", description="DICOMweb URL that approved images are published to.")
    database: str = Field("", description="SQLAlchemy URL; empty: SQLite below the state folder.")
    scheduler: str = Field(
        "", description="dask scheduler (tls://... or tcp://...); empty: workers of our own."
    )
    workers: int = Field(1, ge=1, description="Worker processes of our own.")
    threads: int = Field(1, ge=1, description="CPU threads of one worker.")
    device: str = Field("auto", description="Device of the workers: auto, cpu, cuda, cuda:N.")
    cohort: Path | None = Field(None, description="Manifest CSV that fine-tuning reads.")
    evaluators: Path | None = Field(
        None, description="Folder of the networks that compare bundles [those of a checkout]."
    )
    auth: Authentication = Authentication.NONE
    token_file: Path | None = Field(None, description="File of hashed tokens, for tokens.")
    oidc_issuer: str = Field("", description="URL of the identity provider, for oidc.")
    oidc_audience: str = Field("", description="Audience that a token must name, for oidc.")
    oidc_roles: str = Field(
        "privdiff-", description="What stands before user, reviewer and admin in roles, for oidc."
    )
    oidc_roles_claim: str = Field(
        "", description="Claim with the roles; empty: realm_access.roles and roles."
    )
    oidc_name_claim: str = Field("preferred_username", description="Claim with the name, else sub.")
    two_person: bool = Field(False, description="Whether an approval needs two people.")
    claim_seconds: int = Field(900, ge=1, description="How long a claim of a reviewer holds.")
    max_upload_mb: int = Field(100, ge=1, description="Largest request, in MB.")
    max_queued: int = Field(100_000, ge=1, description="Most jobs that may wait at once.")
    keep_days: int = Field(
        30, ge=1, description="Days after which pictures of finished jobs are deleted."
    )

    def environment(self) -> dict[str, str]:
        """Return the variables from which `load_settings` of another process reads the same."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {f"{PREFIX}{name}".upper(): _text(value) for name, value in values.items()}

    def chosen(self) -> dict[str, str]:
        """Return what somebody chose, as ``--conf`` of MONAI Label's launcher takes it.

        The studies have an option of their own there. A database with a password is left out, for
        every process list shows arguments: it stays in the environment.
        """
        values = self.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        left_out = {"studies", "database"} if "@" in self.database else {"studies"}
        return {name: _text(value) for name, value in values.items() if name not in left_out}


def load_settings(**chosen: Any) -> ServerSettings:
    """Return the settings of this process: `chosen` over the environment.

    Raises
    ------
    OptionError
        If one is missing or impossible. Values are not quoted.
    """
    try:
        return ServerSettings(**chosen)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "the settings"
        raise OptionError(
            f"server setting {name}: {first['msg']}", f"set {PREFIX}{name.upper()}"
        ) from None


def apply(settings: ServerSettings, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a child process."""
    return {**environment, **settings.environment()}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
