"""`privdiff serve` and `privdiff studies`. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import csv
import os
import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monailabel_app import token_commands
from monailabel_app.verify_command import verify_server

if TYPE_CHECKING:
    from monailabel_app.lib.settings import ServerSettings

APP = "monailabel_app.lib.asgi:app"

NETWORK, SECURITY, MACHINE = "Network", "Who may do what", "Work"


class Auth(str, Enum):
    """How the server knows who asks."""

    NONE = "none"
    TOKENS = "tokens"
    OIDC = "oidc"


def register(app: typer.Typer) -> None:
    """Add the commands of this package to `privdiff`."""
    app.command()(serve)
    app.command()(studies)
    app.command()(verify_server)
    app.add_typer(token_commands.app, name="token")


Studies = Annotated[
    str | None,
    typer.Option(
        metavar="PATH|URL",
        help="Folder of images, or DICOMweb service: https://HOST/PATH, of whose series CR and DX "
        "are listed unless a query follows. Never written to.",
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of everything that the server writes; by default privdiff/server in the "
        "user's data folder.",
    ),
]


def serve(
    studies: Studies = None,
    state: State = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="DICOMweb service for approved images.")
    ] = None,
    bundle: Annotated[str | None, typer.Option(help="Bundle by name or folder.")] = None,
    cohort: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Manifest that fine-tuning reads.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on.", rich_help_panel=NETWORK)
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0: any free one.", rich_help_panel=NETWORK)
    ] = 8000,
    ssl_certfile: Annotated[
        Path | None, typer.Option(metavar="PEM", rich_help_panel=NETWORK, help="Certificate.")
    ] = None,
    ssl_keyfile: Annotated[
        Path | None, typer.Option(metavar="PEM", rich_help_panel=NETWORK, help="Its key.")
    ] = None,
    behind_proxy: Annotated[
        bool,
        typer.Option(
            "--behind-proxy",
            rich_help_panel=NETWORK,
            help="A proxy in front of this server does TLS, and nobody else reaches it.",
        ),
    ] = False,
    root_path: Annotated[
        str, typer.Option(rich_help_panel=NETWORK, help="Path below which the proxy shows it.")
    ] = "",
    max_upload_mb: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=NETWORK, help="Largest request.")
    ] = None,
    auth: Annotated[
        Auth | None,
        typer.Option(
            rich_help_panel=SECURITY,
            help="none: one person on this machine. tokens: a file of hashed tokens. oidc: an "
            "identity provider.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", rich_help_panel=SECURITY, help="For tokens.")
    ] = None,
    oidc_issuer: Annotated[
        str | None, typer.Option(metavar="URL", rich_help_panel=SECURITY, help="For oidc.")
    ] = None,
    oidc_audience: Annotated[
        str | None, typer.Option(rich_help_panel=SECURITY, help="Audience of tokens, for oidc.")
    ] = None,
    two_person: Annotated[
        bool | None,
        typer.Option(
            "--two-person/--one-person",
            rich_help_panel=SECURITY,
            help="Whether an approval needs two people.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=MACHINE, help="Processes with a model.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=MACHINE, help="CPU threads of each.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(rich_help_panel=MACHINE, help="auto, cpu, cuda or cuda:N.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            rich_help_panel=MACHINE,
            help="dask scheduler of workers elsewhere: tls://... or tcp://...",
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            rich_help_panel=MACHINE,
            help="SQLAlchemy URL of the queue; SQLite below the state folder by default. One with "
            "a password belongs into PRIVDIFF_SERVER_DATABASE.",
        ),
    ] = None,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare",
            help="Only make the app folder, and print how MONAI Label's own launcher starts it.",
        ),
    ] = False,
) -> None:
    """Serve MONAI Label's routes and PrivDiff's: anonymize, review, publish, fine-tune.

    Every option but those of the network is also a variable PRIVDIFF_SERVER_NAME; options win. The
    server ends with Ctrl-C, with all its processes.
    """
    chosen: dict[str, Any] = {
        "studies": studies, "state": state, "store": store, "bundle": bundle, "cohort": cohort,
        "max_upload_mb": max_upload_mb, "auth": auth and auth.value, "token_file": token_file,
        "oidc_issuer": oidc_issuer, "oidc_audience": oidc_audience, "two_person": two_person,
        "workers": workers, "threads": threads, "device": device, "scheduler": scheduler,
        "database": database,
    }  # fmt: skip
    settings = _settings(chosen)
    has_tls = _has_tls(ssl_certfile, ssl_keyfile)
    _refuse_open_doors(host, settings, is_private=has_tls or behind_proxy)
    _publish(settings)
    tls = {"ssl_certfile": ssl_certfile, "ssl_keyfile": ssl_keyfile} if has_tls else {}
    if prepare:
        path = {"root_path": root_path} if root_path else {}
        typer.echo(_launcher_command(settings, host=host, port=port, **path, **tls))
        return

    from monailabel_app.lib.serving import run

    if not run(APP, host=host, port=port, root_path=root_path, behind_proxy=behind_proxy, **tls):
        raise typer.Exit(1)


def studies(
    studies: Studies = None,
    find: Annotated[
        str | None, typer.Option(metavar="ID", help="Only the image with this id.")
    ] = None,
) -> None:
    """Print which file or series every image id of a server stands for, as CSV. Private."""
    from monailabel_app.lib.datastores.studies import open_studies
    from monailabel_app.lib.state_folder import StateFolder

    settings = _settings({"studies": studies})
    entries = open_studies(settings, StateFolder(settings.state)).entries()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "source"])
    writer.writerows((name, str(entry)) for name, entry in entries.items() if find in (None, name))


def _settings(chosen: dict[str, Any]) -> ServerSettings:
    """Return what was chosen over the environment.

    Raises
    ------
    OptionError
        If something is missing or impossible.
    """
    from monailabel_app.lib.settings import load_settings
    from monailabel_app.lib.upstream import STATE_VARIABLE
    from privdiff_infer.errors import OptionError

    given = {name: value for name, value in chosen.items() if value is not None}
    if "@" in given.get("database", ""):
        raise OptionError(
            "the URL of the database holds a password, which every process list shows",
            "set PRIVDIFF_SERVER_DATABASE instead",
        )
    if "state" not in given and STATE_VARIABLE not in os.environ:
        given["state"] = _default_state()
    if "state" in given:
        given["state"] = given["state"].expanduser().resolve()
    if "studies" not in given and "PRIVDIFF_SERVER_STUDIES" not in os.environ:
        raise OptionError("the images are not named", "give --studies PATH or --studies URL")
    return load_settings(**given)


def _default_state() -> Path:
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local"))
    elif sys.platform == "darwin":
        base = Path("~/Library/Application Support")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share")
    return base.expanduser() / "privdiff" / "server"


def _has_tls(certificate: Path | None, key: Path | None) -> bool:
    from privdiff_infer.errors import OptionError

    if (certificate is None) != (key is None):
        raise OptionError("--ssl-certfile and --ssl-keyfile belong together", "give both or none")
    for file in (certificate, key):
        if file is not None and not file.is_file():
            raise OptionError(f"{file} is no file", "name a PEM file")
    return certificate is not None


def _refuse_open_doors(host: str, settings: ServerSettings, *, is_private: bool) -> None:
    """Raise `OptionError` where images or tokens would be open to a network."""
    from monailabel_app.lib.security.origins import is_loopback
    from privdiff_infer.errors import OptionError

    if host == "localhost" or is_loopback(host):
        return
    if settings.auth.value == Auth.NONE.value:
        raise OptionError(
            f"--host {host} lets other machines in, and nobody would have to say who they are",
            "choose --auth tokens or --auth oidc, or stay on 127.0.0.1",
        )
    if not is_private:
        raise OptionError(
            f"--host {host} without TLS sends images and tokens in the clear",
            "give --ssl-certfile and --ssl-keyfile, or --behind-proxy where a proxy does TLS",
        )


def _publish(settings: ServerSettings) -> None:
    """Make STATE, and put what was chosen where this process's parts and children read it.

    Raises
    ------
    OptionError, SecretError, BundleError
        If images, bundle, store or what knows people are not there: before anything starts, and in
        one line.
    """
    from monailabel_app.lib.datastores.studies import open_studies
    from monailabel_app.lib.security.sign_in import authenticator_of
    from monailabel_app.lib.upstream import prepare
    from privdiff_infer.dicom.web import store_url
    from privdiff_infer.model.bundle import find_bundle

    authenticator_of(settings)
    folder = prepare(settings)
    open_studies(settings, folder)
    find_bundle(settings.bundle)
    if settings.store:
        store_url(settings.store)
    os.environ.update(settings.environment())
    os.environ["MONAI_LABEL_APP_DIR"] = str(folder.app)
    os.environ["MONAI_LABEL_STUDIES"] = settings.studies


def _launcher_command(settings: ServerSettings, **network: object) -> str:
    """Return how MONAI Label's launcher starts the same server, in the same folder."""
    from monailabel_app.lib.state_folder import StateFolder

    app = StateFolder(settings.state).app
    words = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app)]
    words += ["--studies", settings.studies]
    for name, value in network.items():
        words += [f"--{name}", str(value)]
    words += ["--uvicorn_app", APP]
    for name, text in settings.chosen().items():
        words += ["--conf", name, text]
    return shlex.join(words)
