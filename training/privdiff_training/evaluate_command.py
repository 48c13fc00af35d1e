"""`privdiff evaluate`: the attack ladder on one cohort."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from privdiff_infer.vocabulary import DEFAULT_BUNDLE
from privdiff_training.command_options import (
    EVALUATORS,
    NIH,
    SHARED,
    CacheDir,
    Dataset,
    EvaluatorsFolder,
    Manifest,
    Seed,
)

if TYPE_CHECKING:
    from privdiff_training.evaluation.attack_record import Rung
    from privdiff_training.evaluation.attacks.config import AttackersConfig
    from privdiff_training.evaluation.record import Evaluation, MethodFigures, Size

PROJECTS_OWN = frozenset({NIH, "hannover-covid19", "kermany-paediatric"})


def evaluate(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of report and steps; a run continues.")
    ],
    fold: Annotated[
        list[str],
        typer.Option(
            "--fold",
            help="Split of the test patients, held out from all training; or 0, 1 and 2, of which "
            "the tenth that nothing was trained on is used.",
        ),
    ],
    model: Annotated[str, typer.Option(help="Bundle by name or folder.")] = DEFAULT_BUNDLE,
    manifest: Manifest = SHARED,
    dataset: Dataset = NIH,
    quick: Annotated[bool, typer.Option("--quick", help="Minutes: A0 and A6, 60 images.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Tens of hours: all, 5 seeds.")] = False,
    attacks: Annotated[
        str | None, typer.Option(help="Rungs, such as A0,A3 [those of the size].")
    ] = None,
    attackers: Annotated[
        Path | None, typer.Option(help="YAML file: how attackers are trained, public encoders.")
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(
            min=0, help="After these no step begins and the report is written [all is done]."
        ),
    ] = None,
    evaluators: EvaluatorsFolder = EVALUATORS,
    cache_dir: CacheDir = Path("runs/cache"),
    seed: Seed = 0,
) -> None:
    """Attack a bundle with the ladder and measure what it keeps; writes report.json and a page."""
    from privdiff_infer.model.bundle import find_bundle
    from privdiff_training.evaluation.evaluate import evaluate as run
    from privdiff_training.evaluation.setting import EvaluationOptions

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    evaluation = run(
        EvaluationOptions(
            bundle=find_bundle(model),
            manifest=manifest,
            dataset=dataset,
            folds=tuple(fold),
            size=_size(quick, full),
            rungs=None if attacks is None else _rungs(attacks),
            seed=seed,
            evaluators=evaluators,
            attackers=_attackers(attackers),
            cache_dir=cache_dir,
            hours=hours,
        ),
        output,
    )
    typer.echo(_table(evaluation))
    typer.echo(f"report: {output / 'report.html'}")
    _ask_to_log(evaluation, output)


def _size(quick: bool, full: bool) -> Size:
    from privdiff_infer.errors import OptionError
    from privdiff_training.evaluation.record import Size

    if quick and full:
        raise OptionError("a run cannot be --quick and --full", "choose one, or neither")
    return Size.QUICK if quick else Size.FULL if full else Size.DEFAULT


def _rungs(text: str) -> frozenset[Rung]:
    from privdiff_infer.errors import OptionError
    from privdiff_training.evaluation.attack_record import Rung

    known = {rung.value: rung for rung in Rung}
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise OptionError(f"there is no attack {name!r}", f"choose out of {', '.join(known)}")
    return frozenset(known[name] for name in names)


def _attackers(path: Path | None) -> AttackersConfig:
    from privdiff_training.config import load_config
    from privdiff_training.evaluation.attacks.config import AttackersConfig

    return AttackersConfig() if path is None else load_config(path, AttackersConfig)


def _table(evaluation: Evaluation) -> str:
    """Return the worst attacker of every method, and the floors."""
    lines = [
        f"{evaluation.images} images of {evaluation.patients} patients, size "
        f"{evaluation.size.value}; AUC of the worst attacker that was run"
    ]
    lines += [
        f"{method.method:28} {_worst(method)}"
        for method in (evaluation.originals, *evaluation.methods)
    ]
    lines += [
        f"{'told ' + told + ', no pixels':28} {kind.value} {floor}"
        for kind, floors in evaluation.floors.items()
        for told, floor in floors.items()
    ]
    lines += [
        f"not run: {name}: {reason}" for name, reason in evaluation.methods[0].not_run.items()
    ]
    return "\n".join(lines)


def _worst(method: MethodFigures) -> str:
    from privdiff_training.evaluation.linkage import Linkage

    worst = [method.worst(kind) for kind in Linkage]
    return "  ".join(
        f"{kind.value} {attack.linkage[kind].auc} ({attack.rung.value})"
        for kind, attack in zip(Linkage, worst, strict=True)
        if attack is not None
    )


def _ask_to_log(evaluation: Evaluation, output: Path) -> None:
    """Held-out images of the project's own data are looked at once per bundle, and logged."""
    from privdiff_training.evaluation.roles import GENERATOR_FOLDS

    if evaluation.dataset in PROJECTS_OWN and not set(evaluation.folds) <= set(GENERATOR_FOLDS):
        typer.echo(
            f"fold {' and '.join(evaluation.folds)} was opened: add a line to "
            f"docs/results/fold4-openings.md with {evaluation.bundle} {evaluation.version}, "
            f"{evaluation.weights_sha256} and this command"
        )
