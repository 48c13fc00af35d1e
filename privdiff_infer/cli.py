"""`privdiff`: the commands. Exit code 0: all done, 1: some held or failed, 2: wrong usage.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points
from io import TextIOWrapper
from typing import Annotated

import typer

from privdiff_infer import __version__
from privdiff_infer.commands import anonymize, deidentify, models, publish, review, verify
from privdiff_infer.commands.options import EXIT_USAGE
from privdiff_infer.errors import PrivDiffError

COMMANDS = "privdiff.commands"

app = typer.Typer(
    help="Redraws chest X-rays so that the findings stay and the person goes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"privdiff {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what is done.")] = False,
) -> None:
    """Redraws chest X-rays so that the findings stay and the person goes."""
    if verbose:
        handler = logging.StreamHandler()
        # Other libraries log values of headers and names of files.
        handler.addFilter(lambda record: record.name.startswith("privdiff_"))
        logging.basicConfig(
            level=logging.DEBUG, format="%(asctime)s %(name)s %(message)s", handlers=[handler]
        )


def main() -> None:
    """Run `privdiff`; errors that were foreseen are one line and an exit code."""
    if isinstance(sys.stdout, TextIOWrapper):  # a file name can hold bytes that are no UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except PrivDiffError as error:
        typer.echo(f"privdiff: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except ModuleNotFoundError as error:  # of an extra that is not installed
        remedy = "install the extra with pip install 'privdiff[train]'"
        typer.echo(f"privdiff: the module {error.name} is missing; {remedy}", err=True)
        sys.exit(EXIT_USAGE)


for _command in (
    anonymize.anonymize,
    anonymize.demo,
    deidentify.deidentify,
    review.review,
    verify.verify,
    publish.publish,
    models.models,
    models.benchmark,
):
    app.command()(_command)
for _above in entry_points(group=COMMANDS):
    _above.load()(app)
