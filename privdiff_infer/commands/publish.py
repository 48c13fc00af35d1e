"""`privdiff publish`: approved results to a DICOMweb store."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from privdiff_infer.commands.options import (
    EXIT_DONE,
    EXIT_INCOMPLETE,
    EXIT_STOPPED,
    Json,
)
from privdiff_infer.commands.progress import progress_bar

if TYPE_CHECKING:
    from privdiff_infer.publish import Delivery, Publication


def publish(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a run.")],
    to: Annotated[
        str, typer.Option("--to", metavar="URL", help="DICOMweb service: https://HOST/PATH.")
    ],
    as_json: Json = False,
) -> None:
    """Send approved DICOM results to a store; what it has already is not sent again.

    Credentials come from the environment (PRIVDIFF_DICOMWEB_*) or netrc, never from the URL.
    """
    from privdiff_infer.dicom.pseudonyms import Pseudonyms
    from privdiff_infer.dicom.web import open_store, store_url
    from privdiff_infer.publish import publication
    from privdiff_infer.published_ledger import PublishedLedger

    store = open_store(store_url(to))
    pseudonyms = Pseudonyms.load()
    deliveries: list[Delivery] = []
    stopped = False
    with publication(out, store, pseudonyms, PublishedLedger.load(pseudonyms)) as run:
        try:
            _follow(run, deliveries, quiet=as_json)
        except KeyboardInterrupt:
            stopped = True
    record = _record(run, deliveries)
    if as_json:
        typer.echo(json.dumps(record | {"target": store.url}, indent=2))
    else:
        typer.echo(
            ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in record["counts"].items())
        )
    if stopped:
        typer.echo("stopped; publish again for the rest", err=True)
        raise typer.Exit(EXIT_STOPPED)
    raise typer.Exit(EXIT_INCOMPLETE if record["counts"]["failed"] else EXIT_DONE)


def _follow(run: Publication, deliveries: list[Delivery], *, quiet: bool) -> None:
    """Deliver everything under a progress bar; print one line per result that has a note."""
    with progress_bar(quiet=quiet) as progress:
        task = progress.add_task("Results", total=len(run.outputs))
        for output in run.outputs:
            delivery = run.deliver(output)
            deliveries.append(delivery)
            progress.advance(task)
            if delivery.note:
                progress.console.print(f"{output}: {delivery.note}", soft_wrap=True)


def _record(run: Publication, deliveries: list[Delivery]) -> dict[str, Any]:
    from privdiff_infer.publish import DeliveryState

    counts = Counter(delivery.state for delivery in deliveries)
    return {
        "counts": {state.value: counts[state] for state in DeliveryState}
        | {"not_approved": run.not_approved},
        "images": [
            {"output": d.output, "state": d.state.value, "note": d.note} for d in deliveries
        ],
    }
