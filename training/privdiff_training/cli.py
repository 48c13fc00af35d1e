"""`privdiff train`: one stage of training from its YAML file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this package to `privdiff`."""
    app.command("train")(train_stage)
    app.command("assemble")(assemble)


def train_stage(
    stage: Annotated[str, typer.Argument(help="Name of the stage, as in its configuration.")],
    config: Annotated[Path, typer.Option(help="YAML file of the stage.")],
    bundle: Annotated[
        Path, typer.Option("--bundle", "-o", help="Bundle that is being built, stage by stage.")
    ],
    init_from: Annotated[
        Path | None, typer.Option(help="Bundle whose weights this leg starts from.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and logs [runs/<configuration>].")
    ] = None,
) -> None:
    """Train one stage; a run that was interrupted continues from its last checkpoint."""
    from privdiff_training.loop import train
    from privdiff_training.stages.registry import build_stage

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train(
        build_stage(stage, config, bundle, init_from),
        run_dir or Path("runs") / config.parent.name / config.stem,
        bundle,
    )


def assemble(
    components: Annotated[Path, typer.Argument(help="Folder that the stages exported to.")],
    config: Annotated[Path, typer.Option(help="bundle.yaml: name, licence, operating points.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle.")],
) -> None:
    """Make a bundle of the components: float16 weights, hashes, model card."""
    from privdiff_training.assemble import BundleConfig, assemble_bundle
    from privdiff_training.config import load_config

    metadata = assemble_bundle(components, load_config(config, BundleConfig), output)
    typer.echo(f"{metadata.name} {metadata.version}: {len(metadata.files)} files in {output}")
