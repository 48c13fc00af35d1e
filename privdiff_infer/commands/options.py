"""Options and exit codes that several commands share."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from privdiff_infer.dicom.profile_table import Option
from privdiff_infer.vocabulary import Precision, Profile

SAMPLE = Path(__file__).resolve().parents[1] / "sample"

EXIT_DONE = 0
EXIT_INCOMPLETE = 1
EXIT_USAGE = 2
EXIT_STOPPED = 130


class Retained(str, Enum):
    """Exceptions from the Basic Profile of PS3.15 that keep something."""

    FULL_DATES = "full-dates"
    MODIFIED_DATES = "modified-dates"
    PATIENT_CHARACTERISTICS = "patient-characteristics"
    DEVICE_IDENTITY = "device-identity"
    UIDS = "uids"
    SAFE_PRIVATE = "safe-private"
    INSTITUTION_IDENTITY = "institution-identity"


class Cleaned(str, Enum):
    """Options of PS3.15 that keep what is proven clean, or state what was done to pixels."""

    DESCRIPTORS = "descriptors"
    STRUCTURED_CONTENT = "structured-content"
    GRAPHICS = "graphics"
    VISUAL_FEATURES = "recognizable-visual-features"


def profile_options(
    retained: Collection[Retained] | None, cleaned: Collection[Cleaned] | None
) -> frozenset[Option]:
    """Return what a user chose as options of the confidentiality profile."""
    names = [f"retain-{choice.value}" for choice in retained or ()]
    names += [f"clean-{choice.value}" for choice in cleaned or ()]
    return frozenset(Option[name.upper().replace("-", "_")] for name in names)


Model = Annotated[str, typer.Option("--model", help="Bundle by name or folder.")]
ProfileOption = Annotated[Profile, typer.Option(help="Way of sampling.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Number format of the networks.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that share the images.")]
Scheduler = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help="dask scheduler whose workers do it, on storage that all share: tls://... or tcp://...",
    ),
]
Threads = Annotated[
    int, typer.Option(min=1, help="CPU threads of one process; more are faster, other last bits.")
]
Retain = Annotated[
    list[Retained] | None,
    typer.Option(help="Keep of a DICOM header what the Basic Profile of PS3.15 removes."),
]
Clean = Annotated[
    list[Cleaned] | None,
    typer.Option(help="Keep of it what is proven clean; or claim that nobody is recognizable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
