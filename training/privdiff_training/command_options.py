"""Options that several commands of this package have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SHARED = Path("../shared/data/metadata.csv")
NIH = "nih-chestxray14"
EVALUATORS = Path("training/evaluators")

Manifest = Annotated[Path, typer.Option(help="CSV of the cohort.")]
Dataset = Annotated[str, typer.Option(help="Data set of the manifest to use.")]
Folds = Annotated[list[str] | None, typer.Option("--fold", help="Splits to use [all].")]
CacheDir = Annotated[Path, typer.Option(help="Where prepared and redrawn images are kept.")]
EvaluatorsFolder = Annotated[Path, typer.Option(help="Folder of verifier and classifier.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
