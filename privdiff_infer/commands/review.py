"""`privdiff review`: what people decided of results, and their decisions."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privdiff_infer.commands.options import Json
from privdiff_infer.errors import OptionError
from privdiff_infer.release import Review, is_released

if TYPE_CHECKING:
    from privdiff_infer.result_states import Decision


def review(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a run.")],
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE", help="Results, by name (cxr-...) or path."),
    ] = None,
    approve: Annotated[bool, typer.Option("--approve", help="They may leave.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="They must not leave.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="All results that are pending and not held.")
    ] = False,
    comment: Annotated[str, typer.Option(help="Why; stays in private/.")] = "",
    reviewer: Annotated[str, typer.Option(help="Who decides; your login name by default.")] = "",
    no_text: Annotated[
        bool,
        typer.Option(
            "--no-text", help="With --approve: you saw that no text is burned into the pixels."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Approve or reject results; without a decision, list what was decided.

    A decision holds for the bytes that are there now. Look at OUT/private/review.html first.
    """
    from privdiff_infer import review as reviews

    state = _state(approve, reject, no_text)
    shown = reviews.decisions(out)
    if state is None:
        if every or images:
            raise OptionError("no decision was given", "add --approve or --reject")
    else:
        outputs = _pending(shown) if every else _outputs(out, images or [], shown)
        shown = reviews.record(
            out, outputs, state, reviewer or _login_name(), comment, without_text=no_text
        )
    typer.echo(_as_json(shown) if as_json else _as_table(shown))


def _state(approve: bool, reject: bool, no_text: bool) -> Review | None:
    if approve and reject:
        raise OptionError("--approve and --reject exclude each other", "give one of them")
    if no_text and not approve:
        raise OptionError("--no-text is part of an approval", "add --approve")
    if approve:
        return Review.APPROVED
    return Review.REJECTED if reject else None


def _pending(decisions: Mapping[str, Decision]) -> list[str]:
    """Return what --all means: held results and earlier decisions are named one by one."""
    return [
        output
        for output, decision in decisions.items()
        if decision.state is Review.PENDING and is_released(output)
    ]


def _outputs(out: Path, images: Sequence[str], known: Iterable[str]) -> list[str]:
    if not images:
        raise OptionError("no image was named", "name results as privdiff review OUT lists them")
    return list(dict.fromkeys(_output(out, image, known) for image in images))


def _output(out: Path, image: str, known: Iterable[str]) -> str:
    """Return the result that a name, or a path from here or from OUT, means."""
    path = Path(image).absolute()
    for output in known:
        file = Path(output)
        if image in (file.stem, file.name, output) or path == (out / output).absolute():
            return output
    raise OptionError(
        f"{image!r} is no result of this run", "name results as privdiff review OUT lists them"
    )


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError) as error:
        raise OptionError(
            "your login name is not known", "name yourself with --reviewer"
        ) from error


def _as_json(decisions: Mapping[str, Decision]) -> str:
    records = [{"output": output} | asdict(decision) for output, decision in decisions.items()]
    return json.dumps(records, indent=2)


def _as_table(decisions: Mapping[str, Decision]) -> str:
    lines = [
        f"{output}  {decision.state.value}"
        + (f"  {decision.reviewer}  {decision.time}" if decision.reviewer else "")
        + (f"  {decision.comment}" if decision.comment else "")
        for output, decision in sorted(decisions.items())
    ]
    return "\n".join(lines) if lines else "no results"
