"""`evaluate`: all steps of one evaluation in a fixed order, each kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from rich.progress import track

from privdiff_infer.release import write_atomically, write_json
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.attacks.attack import Originals
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.memorization import copies_among, measure_memorization
from privdiff_training.evaluation.method_run import MethodRun
from privdiff_training.evaluation.methods.method import Method
from privdiff_training.evaluation.methods.pixelwise import Identity
from privdiff_training.evaluation.methods.registry import lineup_for, methods_left_out
from privdiff_training.evaluation.pictures import copies_grid
from privdiff_training.evaluation.plan import MEMORIZATION, of_further_points, of_rivals
from privdiff_training.evaluation.record import Evaluation, Memorization, MethodFigures, Plan
from privdiff_training.evaluation.redraw import weights_hash
from privdiff_training.evaluation.report import write_report
from privdiff_training.evaluation.setting import PROTOCOL, EvaluationOptions, Setting
from privdiff_training.evaluation.statistics import Estimate, Share
from privdiff_training.evaluation.steps import NOT_REACHED, LegOver
from privdiff_training.evaluation.verification_metrics import verification

REPORT = "report.json"
EXAMPLES = 8
CONTROL_SEEDS = 1
"""Of the attackers where nothing is done: they show that each would know people."""


def evaluate(options: EvaluationOptions, output: Path) -> Evaluation:
    """Run an evaluation and write ``report.json`` and its page, ``report.html``.

    Parameters
    ----------
    options
        Of the run.
    output
        Folder for the record and for the results of the steps. Another run with the same options
        continues there; what other options leave as it was is not done again.

    Raises
    ------
    CohortError
        If the cohort does not give every role an image.
    LegOver
        If the time that the run was given is over before it is measured what the operating point
        keeps of the findings.
    """
    evaluation = _evaluation(Setting(options, output))
    write_json(output / REPORT, evaluation.to_record())
    write_report(output)
    return evaluation


def _evaluation(setting: Setting) -> Evaluation:
    options, roles = setting.options, setting.roles
    lineup = lineup_for(options.size, options.bundle, roles, options.cache_dir)
    plan = setting.plan
    nothing = MethodRun(setting, Identity(), None, replace(plan, seeds=CONTROL_SEEDS))
    originals = nothing.figures()
    run_of_point = MethodRun(setting, lineup.point, nothing, plan)
    of_point = run_of_point.figures()
    _write_picture(run_of_point, setting.output)
    memorization: Memorization | None = None
    near_copies: Share | None = None
    try:
        if MEMORIZATION not in setting.not_run:
            near_copies = _near_copies(run_of_point)
            memorization = _memorization(setting)
    except LegOver:
        of_point = replace(of_point, not_run={**of_point.not_run, MEMORIZATION: NOT_REACHED})
    plans = [
        *((rival, of_rivals(plan)) for rival in lineup.rivals),
        *((point, of_further_points(plan)) for point in lineup.further),
    ]
    of_others, unreached = _figures_in_time(setting, nothing, plans)
    left_out = methods_left_out(
        options.size, lineup.methods, options.bundle, roles, options.cache_dir
    )
    units = [row.unit for row in roles.test]
    return Evaluation(
        size=options.size,
        seed=options.seed,
        bundle=setting.bundle.name,
        version=setting.bundle.version,
        weights_sha256=weights_hash(setting.bundle),
        operating_point=lineup.point.name,
        dataset=options.dataset,
        folds=tuple(options.folds),
        images=len(units),
        patients=len(set(units)),
        patients_with_several=sum(units.count(unit) > 1 for unit in set(units)),
        roles={name: _size(part) for name, part in vars(roles).items()},
        floors=_floors(setting),
        originals=originals,
        methods=(of_point, *of_others),
        memorization=memorization,
        protocol=PROTOCOL,
        plan=plan,
        methods_not_run=unreached | left_out,
        not_measurable=setting.not_measurable,
        command=options.command,
        near_copies=near_copies,
    )


def _write_picture(run: MethodRun, output: Path) -> None:
    """Show what a method makes of the first test images; no original is shown."""
    content = BytesIO()
    copies_grid(run.copies.test.pixels[0][:EXAMPLES]).save(content, "PNG")
    folder = output / "pictures"
    folder.mkdir(exist_ok=True)
    write_atomically(folder / f"{run.method.name}.png", content.getvalue())


def _figures_in_time(
    setting: Setting, nothing: MethodRun, plans: Sequence[tuple[Method, Plan]]
) -> tuple[list[MethodFigures], dict[str, str]]:
    """Return the figures of the methods that are reached, and the others with the reason.

    A run goes broad before deep: every method has its place on the plane before an attacker is
    trained against any. When the time is over, what earlier legs did is still read. The copies of
    one method are in memory at a time.
    """
    done, unreached = [], {}
    with suppress(LegOver):
        for method, plan in track(plans, "Methods, a first look") if plans else ():
            MethodRun(setting, method, nothing, plan).first_look()
    for method, plan in track(plans, "Methods") if plans else ():
        try:
            done.append(MethodRun(setting, method, nothing, plan).figures())
        except LegOver:
            unreached[method.name] = NOT_REACHED
    return done, unreached


def _floors(setting: Setting) -> dict[Linkage, dict[str, Estimate]]:
    """Return the AUC of every attacker who sees no pixel."""
    if not setting.floor_scores:
        return {}
    cohort, seed = setting.test.cohort, setting.options.seed
    return {
        kind: {
            told: verification(cohort, [scores], kind, seed).auc
            for told, scores in setting.floor_scores.items()
        }
        for kind in Linkage
    }


def _near_copies(run: MethodRun) -> Share:
    """Return the part of what is released that shows a training image."""
    setting = run.setting
    return setting.steps.record(
        "training images among what is released",
        Share,
        lambda: copies_among(
            run.copies.test.pixels[0].float() / 255,
            setting.images["reference"],
            _strangers(setting),
            setting.evaluators.verifier,
        ),
        *run.decided_by,
    )


def _strangers(setting: Setting) -> Originals:
    return setting.images["attacker_train"].joined(setting.images["attacker_select"])


def _memorization(setting: Setting) -> Memorization:
    plan = setting.plan
    return setting.steps.record(
        "memorization",
        Memorization,
        lambda: measure_memorization(
            setting.options.bundle,
            setting.images["reference"],
            _strangers(setting),
            setting.evaluators.verifier,
            drawn=plan.drawn,
            members=plan.members,
            seed=setting.options.seed,
        ),
        weights_hash(setting.bundle),
        plan.drawn,
        plan.members,
    )


def _size(cohort: Cohort) -> tuple[int, int]:
    return len(cohort), len({row.unit for row in cohort})
