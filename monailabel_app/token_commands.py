"""`privdiff token`: the tokens of those who may use a server."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    Path,
    typer.Option(
        "--token-file", envvar="PRIVDIFF_SERVER_TOKEN_FILE", help="File of hashed tokens."
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose it is.")]

app = typer.Typer(
    help="Tokens of a server's users; the file holds their hashes.", no_args_is_help=True
)


@app.command()
def add(
    name: Name,
    token_file: File,
    role: Annotated[str, typer.Option(help="user, reviewer or admin.")] = "user",
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day on which it holds.")
    ] = None,
) -> None:
    """Make a token and print it, once."""
    from monailabel_app.lib.security.roles import Role
    from monailabel_app.lib.security.tokens import TokenFile

    if role not in [known.value for known in Role]:
        raise typer.BadParameter("choose user, reviewer or admin", param_hint="--role")
    typer.echo(TokenFile(token_file).add(name, Role(role), expires.date() if expires else None))


@app.command(name="list")
def list_tokens(token_file: File) -> None:
    """Print name, role and last day of every token."""
    from monailabel_app.lib.security.tokens import TokenFile

    for one in TokenFile.open(token_file).tokens():
        typer.echo(f"{one.name}\t{one.role.value}\t{one.expires or 'no end'}")


@app.command()
def remove(name: Name, token_file: File) -> None:
    """Remove the token of somebody; a running server refuses it from then on."""
    from monailabel_app.lib.security.tokens import TokenFile

    TokenFile(token_file).remove(name)
