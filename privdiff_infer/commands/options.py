"""Options and exit codes that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from privdiff_infer.vocabulary import Precision, Profile

SAMPLE = Path(__file__).resolve().parents[1] / "sample"

EXIT_DONE = 0
EXIT_INCOMPLETE = 1
EXIT_USAGE = 2
EXIT_STOPPED = 130

Model = Annotated[str, typer.Option("--model", help="Bundle by name or folder.")]
ProfileOption = Annotated[Profile, typer.Option(help="Way of sampling.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Number format of the networks.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that share the images.")]
Threads = Annotated[
    int, typer.Option(min=1, help="CPU threads of one process; more are faster, other last bits.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
