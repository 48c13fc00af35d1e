"""A whole evaluation of a tiny bundle: roles, record, and going on after a kill."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from privdiff_training.assemble import write_metadata
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.command_options import NIH
from privdiff_training.evaluation import evaluate as evaluate_module
from privdiff_training.evaluation import plan, setting, statistics
from privdiff_training.evaluation.attack_record import NO_GROUPS, AttackFigures, Rung
from privdiff_training.evaluation.attacks.config import AttackersConfig
from privdiff_training.evaluation.attacks.embedding import FixedVerifier
from privdiff_training.evaluation.attacks.metric_learning import MetricLearning
from privdiff_training.evaluation.evaluate import REPORT, evaluate
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.method_run import MethodRun
from privdiff_training.evaluation.methods.method import Method
from privdiff_training.evaluation.methods.pixelwise import Blur, Identity, Noise
from privdiff_training.evaluation.methods.registry import Lineup, lineup_for
from privdiff_training.evaluation.plan import (
    GLANCE,
    NOT_OF_A_GLANCE,
    PLANS,
    of_further_points,
    of_rivals,
    reasons_not_to_run,
)
from privdiff_training.evaluation.record import Evaluation, MethodFigures, Size
from privdiff_training.evaluation.redrawn_copies import redrawn_copies
from privdiff_training.evaluation.report.reading import read_evaluation
from privdiff_training.evaluation.roles import Roles
from privdiff_training.evaluation.setting import EvaluationOptions, Setting
from privdiff_training.evaluation.statistics import Figure
from privdiff_training.evaluation.steps import NOT_REACHED, LegOver, Steps
from typer.testing import CliRunner

from privdiff_infer.cli import app
from privdiff_infer.errors import BundleError
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from tests.conftest import tiny_metadata
from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import TINY_RESNET
from tests.unit.toy_people import people

TRAIN = MetricLearning.train
TINY = {"image_size": 32, "backbone": TINY_RESNET, "augmentation": "none", "batch_size": 4}
FEW = {"steps": 2, "judge_every": 1}
ATTACKERS = AttackersConfig.model_validate(
    {
        "siamese": {**TINY, **FEW, "features": 8},
        "metric": {"image_size": 32, "augmentation": "none", "batch_size": 4, **FEW},
        "attributes": {**TINY, **FEW},
        "inverter": {"image_size": 32, "channels": [4, 8], **FEW},
    }
)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 20)


@pytest.fixture
def small_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default size with everything in it, but little of it."""
    small = replace(PLANS[Size.DEFAULT], seeds=2, versions=1, drawn=4, members=8, reader_steps=0)
    monkeypatch.setitem(plan.PLANS, Size.DEFAULT, small)


@pytest.fixture
def options(tmp_path: Path, tiny_bundle: Path) -> EvaluationOptions:
    (tmp_path / "cohort").mkdir()
    manifest = write_cohort(tmp_path / "cohort", patients=60)
    in_five_folds(manifest)
    torch.manual_seed(5)
    evaluators = tmp_path / "evaluators"
    IdentityEmbedder(TINY_RESNET, 32, 8, 2).save_pretrained(evaluators / "identity")
    RadiographReader(TINY_RESNET, 32).save_pretrained(evaluators / "reader")
    return EvaluationOptions(
        bundle=tiny_bundle,
        manifest=manifest,
        dataset="cohort",
        folds=("4",),
        size=Size.QUICK,
        rungs=None,
        seed=0,
        evaluators=evaluators,
        attackers=ATTACKERS,
        cache_dir=tmp_path / "cache",
    )


def in_five_folds(manifest: Path, dataset: str = "cohort") -> None:
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["split"] = str(int(row["patient_id"][1:]) % 5)
        row["dataset"] = dataset
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_report(folder: Path) -> Evaluation:
    assert (folder / "report.html").is_file()
    return read_evaluation(folder / REPORT)


def written(evaluation: Evaluation) -> str:
    """Return the record as text; NaN, which equals nothing, is equal there."""
    return json.dumps(evaluation.to_record(), sort_keys=True)


def test_quick_run_says_what_it_did_not_do(options, tmp_path):
    evaluation = evaluate(options, tmp_path / "out")

    assert [attack.rung for attack in evaluation.methods[0].attacks] == [Rung.FIXED]
    assert evaluation.originals.worst(Linkage.SAME_IMAGE).linkage[
        Linkage.SAME_IMAGE
    ].auc.value == pytest.approx(1)
    for kind in Linkage:
        assert set(evaluation.floors[kind]) == {"labels", "sex", "age", "all"}
        assert evaluation.floors[kind]["labels"].value > 0.6
    assert evaluation.patients == 12 and evaluation.patients_with_several == 12
    not_run = evaluation.methods[0].not_run
    assert not_run["A3"] == "not part of a run of size quick"
    assert not_run["memorization"] == "not part of a run of size quick"
    assert "A0" not in not_run and "A6" not in not_run
    assert evaluation.operating_point == evaluation.methods[0].method


def test_record_holds_nothing_of_a_patient_and_is_read_as_it_was_written(options, tmp_path):
    evaluation = evaluate(options, tmp_path / "out")
    text = (tmp_path / "out" / REPORT).read_text()

    with Image.open(tmp_path / "out" / "pictures" / "standard 0.3.png") as picture:
        assert picture.size == (4 * 64, 2 * 64)
    assert "data:image/png" in (tmp_path / "out" / "report.html").read_text()
    assert "p4_" not in text and '"p4"' not in text and str(tmp_path) not in text
    assert written(read_report(tmp_path / "out")) == written(evaluation)


@pytest.mark.usefixtures("small_plan")
def test_default_run_has_seeds_and_controls(options, tmp_path):
    evaluation = evaluate(replace(options, size=Size.DEFAULT), tmp_path / "out")

    of_rungs = {"A0": 1, "A2": 1, "A3": 1, "A8": 6, "A11": 4, "A12": 2, "A13": 1, "A14": 2}
    rungs = [rung for rung, count in of_rungs.items() for _ in range(count)]
    learned = [False, True, True, False, False, True, *[False] * 4, True, *[False] * 7]
    for number, method in enumerate(evaluation.methods):
        assert [attack.rung for attack in method.attacks] == rungs
        seeds = [len(attack.seeds) for attack in method.attacks]
        assert seeds == [2 if each and number == 0 else 1 for each in learned]
        trained = [attack.training is not None for attack in method.attacks]
        assert trained == [each.learned_from_copies for each in method.attacks]
        for attack, control in zip(method.attacks, evaluation.originals.attacks, strict=True):
            assert attack.on_originals == control.on_originals
            assert attack.on_originals[Linkage.SAME_IMAGE] == pytest.approx(
                control.linkage[Linkage.SAME_IMAGE].auc.value
            )
        galleries = method.attacks[0].linkage[Linkage.SAME_IMAGE].retrieval
        assert [each.gallery for each in galleries][-1] > galleries[0].gallery
        assert method.attributes.age_error.patients == 12
    assert evaluation.memorization.drawn == 4


@pytest.mark.usefixtures("small_plan")
def test_a_run_that_was_killed_goes_on(options, tmp_path, monkeypatch):
    options = replace(
        options, size=Size.DEFAULT, rungs=frozenset({Rung.FIXED, Rung.METRIC_LEARNING})
    )
    whole = evaluate(options, tmp_path / "whole")
    trained = count_trainings(monkeypatch, killed_at=3)

    with pytest.raises(KeyboardInterrupt):
        evaluate(options, tmp_path / "killed")
    assert not (tmp_path / "killed" / REPORT).exists()
    assert not list((tmp_path / "killed").rglob("*.partial"))
    before = len(trained)
    trained = count_trainings(monkeypatch)
    again = evaluate(options, tmp_path / "killed")

    assert before == 3
    # one seed of the control, two of the operating point, one each of the others; the third
    # training was killed
    assert len(trained) == 5 - 2
    assert written(again) == written(whole)


@pytest.mark.usefixtures("small_plan")
def test_a_leg_ends_in_time_and_names_what_it_did_not_reach(options, tmp_path):
    options = replace(options, size=Size.DEFAULT, rungs=frozenset({Rung.FIXED}))
    in_time = replace(options, hours=0)
    with pytest.raises(LegOver, match="before: ") as over:
        evaluate(in_time, tmp_path / "out")
    assert "same command again" in over.value.remedy
    assert not (tmp_path / "out" / REPORT).exists()

    whole = evaluate(options, tmp_path / "out")
    for step in (tmp_path / "out" / "steps").glob("vanilla-*"):
        step.unlink()
    leg = evaluate(in_time, tmp_path / "out")

    assert [method.method for method in leg.methods] == ["standard 0.3", "labels to image"]
    assert leg.methods_not_run["vanilla 0.3"] == NOT_REACHED
    assert "not reached in the time" in (tmp_path / "out" / "report.html").read_text()
    assert written(evaluate(options, tmp_path / "out")) == written(whole)


@pytest.mark.usefixtures("small_plan")
def test_every_method_is_looked_at_before_an_attacker_is_trained_against_any(options, tmp_path):
    rungs = frozenset({Rung.FIXED, Rung.METRIC_LEARNING})
    options = replace(options, size=Size.DEFAULT, rungs=rungs)
    evaluate(options, tmp_path / "out")
    steps = sorted((tmp_path / "out" / "steps").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    names = [path.name for path in steps]
    of_fixed = next(i for i, name in enumerate(names) if name.startswith("labels-to-image-a0"))
    trained = next(i for i, name in enumerate(names) if name.startswith("vanilla-0.3-a3"))

    assert of_fixed < trained


@pytest.mark.usefixtures("small_plan")
def test_a_leg_takes_the_seeds_that_are_done_and_names_what_is_not(options, tmp_path, monkeypatch):
    rungs = frozenset({Rung.FIXED, Rung.METRIC_LEARNING, Rung.SHAPE})
    first = replace(options, size=Size.DEFAULT, rungs=rungs - {Rung.SHAPE})
    evaluate(first, tmp_path / "out")
    more = replace(plan.PLANS[Size.DEFAULT], seeds=3)
    monkeypatch.setitem(plan.PLANS, Size.DEFAULT, more)

    leg = evaluate(replace(options, size=Size.DEFAULT, rungs=rungs, hours=0), tmp_path / "out")

    point = leg.methods[0]
    assert {attack.rung: len(attack.seeds) for attack in point.attacks} == {
        Rung.FIXED: 1,
        Rung.METRIC_LEARNING: 2,
    }
    assert point.not_run[Rung.SHAPE.value] == NOT_REACHED
    assert point.attributes is not None and point.quality is not None
    assert leg.memorization is not None

    for step in (tmp_path / "out" / "steps").glob("memorization-*"):
        step.unlink()
    without = evaluate(replace(options, size=Size.DEFAULT, rungs=rungs, hours=0), tmp_path / "out")
    assert without.memorization is None
    assert without.methods[0].not_run["memorization"] == NOT_REACHED


@pytest.mark.usefixtures("small_plan")
def test_figures_without_scores_are_enough_to_go_on(options, tmp_path, monkeypatch):
    rungs = frozenset({Rung.FIXED, Rung.METRIC_LEARNING, Rung.METADATA})
    options = replace(options, size=Size.DEFAULT, rungs=rungs)
    whole = evaluate(options, tmp_path / "out")
    for scores in (tmp_path / "out" / "steps").glob("*.npz"):
        scores.unlink()
    trained = count_trainings(monkeypatch)

    assert written(evaluate(options, tmp_path / "out")) == written(whole)
    assert not trained


def count_trainings(monkeypatch: pytest.MonkeyPatch, killed_at: int | None = None) -> list[int]:
    """Count the verifiers that are loaded to be trained; the run is killed at one of them."""
    trained = []

    def train(self, known, seed):
        trained.append(seed)
        if len(trained) == killed_at:
            raise KeyboardInterrupt
        return TRAIN(self, known, seed)

    monkeypatch.setattr(MetricLearning, "train", train)
    return trained


def test_record_says_what_runs_it_again(options):
    assert replace(options, rungs=frozenset({Rung.FIXED}), seed=3).command == (
        "privdiff evaluate --dataset cohort --fold 4 --quick --attacks A0 --attackers FILE "
        "--seed 3 -o OUT"
    )
    plain = replace(options, size=Size.DEFAULT, attackers=AttackersConfig())
    assert plain.command == "privdiff evaluate --dataset cohort --fold 4 --seed 0 -o OUT"


def test_a_tool_that_shows_training_images_comes_out_as_one(
    options, small_plan, tmp_path, monkeypatch
):
    """It keeps nothing of the person: no attacker on the test patients sees anything wrong."""
    quick = replace(options, size=Size.DEFAULT, rungs=frozenset({Rung.FIXED}))
    training = Setting(quick, tmp_path / "out").images["reference"].pixels.float() / 255

    class ShowsTrainingImages(Identity):
        name = "a copying generator"

        def anonymize(self, cohort, originals, seed):
            return training[torch.arange(len(originals)) % len(training)]

    monkeypatch.setattr(evaluate_module, "lineup_for", lambda *_: Lineup(ShowsTrainingImages()))
    monkeypatch.setattr(evaluate_module, "methods_left_out", lambda *_: {})
    cheat = evaluate(quick, tmp_path / "out")

    assert cheat.near_copies.value == 1
    assert "24 redrawn test images of the operating point 24 lie that near" in (
        tmp_path / "out" / "report.html"
    ).read_text(encoding="utf-8")


def test_who_was_not_trained_on_is_not_looked_for(options, small_plan, tmp_path, tiny_bundle):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    write_metadata(bundle, tiny_metadata(trained_on=("another",)))
    rungs = frozenset({Rung.FIXED})
    quick = replace(options, bundle=bundle, size=Size.DEFAULT, rungs=rungs)
    evaluation = evaluate(quick, tmp_path / "out")

    assert evaluation.memorization is None and evaluation.near_copies is None
    assert evaluation.methods[0].not_run["memorization"] == (
        "tiny does not say that it learned of cohort"
    )


def test_changed_weights_are_not_evaluated(options, tmp_path, tiny_bundle):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (bundle / "denoiser" / "config.json").write_text("{}")
    with pytest.raises(BundleError, match="does not match its hash"):
        evaluate(replace(options, bundle=bundle), tmp_path / "out")


def test_other_options_do_not_take_results_that_are_not_theirs(options, tmp_path):
    first = evaluate(options, tmp_path / "out")
    other = evaluate(replace(options, seed=1), tmp_path / "out")
    files = {path.name for path in (tmp_path / "out" / "steps").iterdir()}
    evaluate(options, tmp_path / "out")
    kind = Linkage.SAME_IMAGE

    assert first.methods[0].attacks[0].linkage[kind] != other.methods[0].attacks[0].linkage[kind]
    assert {path.name for path in (tmp_path / "out" / "steps").iterdir()} == files
    assert read_report(tmp_path / "out").seed == 0


@pytest.mark.parametrize("folds", [("4",), ("0", "1", "2")])
def test_no_patient_has_two_roles(options, tmp_path, folds):
    setting = Setting(replace(options, folds=folds), tmp_path)
    units = [{row.unit for row in part} for part in vars(setting.roles).values()]
    assert sum(map(len, units)) == len(set().union(*units))
    assert all(units)


def test_who_may_be_a_test_patient_has_no_other_role(tmp_path):
    """Strict units may cross folds where names of patients are not certain."""
    cohort = read_manifest(write_cohort(tmp_path, patients=120, size=8))
    folds = {f"p{number}": str(number % 5) for number in range(120)}
    rows = [
        replace(row, fold=folds[row.patient_id], unit=f"unit of {int(row.patient_id[1:]) // 2}")
        for row in cohort
    ]
    roles = Roles.of(Cohort(cohort.root, tuple(rows)), ("4",))
    units = [{row.unit for row in part} for part in vars(roles).values()]

    assert {row.patient_id for row in roles.test} == {name for name in folds if folds[name] == "4"}
    assert sum(map(len, units)) == len(set().union(*units))


def test_limit_of_test_images_keeps_patients_whole(options, tmp_path, monkeypatch):
    monkeypatch.setitem(plan.PLANS, Size.QUICK, replace(PLANS[Size.QUICK], test_images=9))
    roles = Setting(options, tmp_path).roles
    units = [row.unit for row in roles.test]
    assert len(units) == 8
    assert all(units.count(unit) == 2 for unit in units)


def test_encoders_that_nobody_named_are_a_reason():
    reasons = reasons_not_to_run(PLANS[Size.FULL], Size.FULL, None, has_encoders=False)
    assert list(reasons) == ["A4"]
    assert "A8" in reasons_not_to_run(PLANS[Size.QUICK], Size.QUICK, {Rung.AVERAGING}, False)
    assert "--attackers" in reasons["A4"]
    wanted = reasons_not_to_run(PLANS[Size.QUICK], Size.QUICK, {Rung.METRIC_LEARNING}, False)
    assert wanted["A0"] == "left out by --attacks"
    assert "A3" not in wanted


def test_copies_are_made_once_and_differ(tmp_path):
    originals, made = people(3, 0), []

    class Noise(Identity):
        fingerprint = "noise"

        def anonymize(self, cohort, originals, seed):
            made.append(seed)
            noise = torch.randn(originals.shape, generator=torch.Generator().manual_seed(seed))
            return (originals + 0.1 * noise).clamp(0, 1)

    first = redrawn_copies(Noise(), originals.cohort, originals.pixels, 2, 0, tmp_path)
    again = redrawn_copies(Noise(), originals.cohort, originals.pixels, 2, 0, tmp_path)
    other = redrawn_copies(Noise(), originals.cohort, originals.pixels, 1, 1, tmp_path)
    fewer = people(2, 0)
    redrawn_copies(Noise(), fewer.cohort, fewer.pixels, 1, 0, tmp_path)

    assert first.shape == (2, 6, 1, 32, 32) and first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])
    assert len(set(made)) == len(made) == 4  # no two cohorts share their noise


def test_steps_are_told_apart_by_what_decides_them(tmp_path):
    steps = Steps(tmp_path, "run")
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"scores": np.eye(2)}

    for decided in ("a", "b", "a"):
        found = steps.arrays("standard 0.7 A0", make, decided)
    assert len(made) == 2
    assert np.array_equal(found["scores"], np.eye(2))
    assert np.isnan(steps.record("nan", Figure, lambda: float("nan")))
    assert np.isnan(steps.record("nan", Figure, lambda: 0.0))


def test_steps_of_another_protocol_are_done_again(options, tmp_path, monkeypatch):
    folder = tmp_path / "out" / "steps"
    old = Setting(options, tmp_path / "out").steps
    old.record("figure", int, lambda: 1)
    monkeypatch.setattr(setting, "PROTOCOL", setting.PROTOCOL + 1)
    new = Setting(options, tmp_path / "out").steps

    assert new.record("figure", int, lambda: 2) == 2
    assert old.record("figure", int, lambda: 3) == 1
    assert len(list(folder.iterdir())) == 2


@pytest.mark.usefixtures("small_plan")
def test_an_attacker_makes_no_copy_that_was_released(options, tmp_path):
    options = replace(options, size=Size.DEFAULT)
    here = Setting(options, tmp_path / "out")
    run = MethodRun(here, point_of(here), None, here.plan)

    released = run.known.copy(here.test).pixels
    redrawn = run.known.copy_anew(here.test).pixels

    assert released.shape[1:] == redrawn.shape[1:]
    for image, own in zip(released[0], redrawn[0], strict=True):
        assert not torch.equal(image, own)


def point_of(here: Setting) -> Method:
    options = here.options
    return lineup_for(options.size, options.bundle, here.roles, options.cache_dir).point


@pytest.mark.usefixtures("small_plan")
@pytest.mark.parametrize("plan_of", [of_rivals, of_further_points])
def test_no_attacker_learns_from_copies_of_what_is_linked_already(options, tmp_path, plan_of):
    wanted = frozenset({Rung.FIXED, Rung.METRIC_LEARNING, Rung.READINGS, Rung.METADATA})
    here = Setting(replace(options, size=Size.DEFAULT, rungs=wanted), tmp_path / "out")
    nothing = MethodRun(here, Identity(), None, replace(here.plan, seeds=1))
    run = MethodRun(here, Blur(0.1), nothing, plan_of(here.plan))

    figures = run.figures()

    assert [attack.rung for attack in figures.attacks] == [Rung.FIXED]
    assert figures.not_run["A12"] == "already linked with 1.000"
    assert list((tmp_path / "out" / "steps").glob("*-a12-*")) == []


@pytest.mark.usefixtures("small_plan")
def test_who_trains_a_network_comes_after_all_others(options, tmp_path):
    wanted = frozenset({Rung.FIXED, Rung.METRIC_LEARNING, Rung.READINGS, Rung.METADATA})
    here = Setting(replace(options, size=Size.DEFAULT, rungs=wanted), tmp_path / "out")
    nothing = MethodRun(here, Identity(), None, replace(here.plan, seeds=1))
    MethodRun(here, point_of(here), nothing, here.plan).figures()

    steps = sorted((tmp_path / "out" / "steps").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    rungs = [path.name.split("-")[2] for path in steps if path.name.startswith("standard-0.3-a")]

    assert rungs.index("a0") < rungs.index("a12") < rungs.index("a3")
    assert "a12" not in rungs[rungs.index("a3") :]


@pytest.mark.usefixtures("small_plan")
def test_what_an_earlier_leg_learned_of_linked_copies_is_still_shown(options, tmp_path):
    wanted = frozenset({Rung.FIXED, Rung.READINGS, Rung.METADATA})
    here = Setting(replace(options, size=Size.DEFAULT, rungs=wanted), tmp_path / "out")
    nothing = MethodRun(here, Identity(), None, replace(here.plan, seeds=1))
    plan = of_further_points(here.plan)
    earlier = MethodRun(here, Blur(0.1), nothing, replace(plan, enough=None)).figures()

    figures = MethodRun(here, Blur(0.1), nothing, plan).figures()

    assert figures.attacks == earlier.attacks
    assert {attack.rung for attack in figures.attacks} == {Rung.FIXED, Rung.READINGS}


@pytest.mark.usefixtures("small_plan")
def test_nothing_is_learned_to_tell_how_the_risk_is_spread_where_all_is_linked(
    options, tmp_path, monkeypatch
):
    wanted = frozenset({Rung.FIXED, Rung.METRIC_LEARNING, Rung.METADATA})
    here = Setting(replace(options, size=Size.DEFAULT, rungs=wanted), tmp_path / "out")
    nothing = MethodRun(here, Identity(), None, replace(here.plan, seeds=1))
    plan = of_rivals(here.plan)
    MethodRun(here, Blur(0.1), nothing, replace(plan, enough=None)).figures()
    for scores in (tmp_path / "out" / "steps").glob("blur*"):
        if scores.suffix == ".npz" or "exposure" in scores.name or "subgroups" in scores.name:
            scores.unlink()
    monkeypatch.setattr(MethodFigures, "worst", lambda self, kind: self.attacks[-1])
    trained = count_trainings(monkeypatch)

    figures = MethodRun(here, Blur(0.1), nothing, plan).figures()

    assert figures.attacks[-1].rung is Rung.METRIC_LEARNING
    assert not trained
    assert figures.exposure is None and figures.subgroups == ()


@pytest.mark.usefixtures("small_plan")
def test_what_a_tool_may_start_from_is_worked_out_once(options, tmp_path, monkeypatch):
    asked = []
    itself = Blur.starts
    monkeypatch.setattr(
        Blur, "starts", lambda self, pixels: (asked.append(len(pixels)), itself(self, pixels))[1]
    )
    here = Setting(replace(options, size=Size.DEFAULT), tmp_path / "out")
    known = MethodRun(here, Blur(4), None, here.plan).copies.known

    first, again = known.starts(here.test), known.starts(here.test)

    assert asked == [len(here.test)]
    assert torch.equal(first.pixels, again.pixels)


@pytest.mark.usefixtures("small_plan")
def test_an_attacker_without_a_place_says_so_even_if_the_time_is_over(options, tmp_path):
    rungs = frozenset({Rung.STARTING_POINTS})
    here = Setting(replace(options, size=Size.DEFAULT, rungs=rungs), tmp_path / "out")
    nothing = MethodRun(here, Identity(), None, replace(here.plan, seeds=1))
    blurred = MethodRun(here, Blur(4), nothing, of_further_points(here.plan))
    blurred.first_look()
    here.steps.until = 0

    not_run = blurred.figures().not_run

    reasons = {not_run[name] for name in not_run if name.startswith("A13 ")}
    assert reasons == {NO_GROUPS}


@pytest.mark.usefixtures("small_plan")
def test_a_further_point_is_one_copy_and_nothing_is_trained(options, tmp_path):
    here = Setting(replace(options, size=Size.DEFAULT), tmp_path / "out")
    nothing = MethodRun(here, Identity(), None, replace(here.plan, seeds=1))
    run = MethodRun(here, Noise(0.3), nothing, replace(of_further_points(here.plan), enough=None))

    figures = run.figures()

    assert {attack.rung for attack in figures.attacks} == GLANCE
    assert run.copies.test.pixels.shape[0] == 1
    assert figures.attributes is None and figures.utility.trained_on_copies is None
    assert {figures.not_run[part] for part in ("A3", "A11", "attributes")} == {NOT_OF_A_GLANCE}
    assert figures.quality is not None and figures.exposure is not None
    assert list((tmp_path / "out" / "steps").glob("*-a3-*")) == []


@pytest.mark.usefixtures("small_plan")
def test_results_depend_on_the_number_of_seeds_of_the_control(options, tmp_path):
    options = replace(options, size=Size.DEFAULT, rungs=frozenset({Rung.MATCHED_RETRAINING}))

    def attacked(control_seeds: int) -> AttackFigures:
        here = Setting(options, tmp_path / "out")
        nothing = MethodRun(here, Identity(), None, replace(here.plan, seeds=control_seeds))
        run = MethodRun(here, point_of(here), nothing, here.plan)
        return run.attacks.figures(here.attacks[0])

    first, more = attacked(1), attacked(2)

    assert more.on_originals != first.on_originals
    assert more.seeds == first.seeds


def test_what_a_cohort_is_too_poor_for_is_told_and_no_error(options, tmp_path):
    alone_and_nameless(options.manifest)

    evaluation = evaluate(options, tmp_path / "out")

    reasons = evaluation.not_measurable
    assert reasons["follow-up linkage"].startswith("no test patient has two images")
    assert "sex" in reasons and "age" in reasons and "findings" in reasons
    assert evaluation.floors == {}
    assert set(evaluation.methods[0].attacks[0].linkage) == {Linkage.SAME_IMAGE}
    text = (tmp_path / "out" / REPORT).read_text()
    assert "NaN" not in text
    json.loads(text, parse_constant=pytest.fail)
    page = (tmp_path / "out" / "report.html").read_text()
    for reason in reasons.values():
        assert reason in page
    assert written(read_report(tmp_path / "out")) == written(evaluation)


def test_a_cohort_of_one_test_patient_is_told_and_no_error(options, tmp_path):
    alone_and_nameless(options.manifest, test_patients=1)

    evaluation = evaluate(options, tmp_path / "out")

    assert "same-image linkage" in evaluation.not_measurable
    assert evaluation.methods[0].worst(Linkage.SAME_IMAGE) is None
    assert evaluation.methods[0].exposure is None
    assert "exposure" in evaluation.methods[0].not_run


def alone_and_nameless(manifest: Path, test_patients: int = 100) -> None:
    """Leave one image of each patient, without sex and age, all with the same finding."""
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = {row["patient_id"]: row for row in rows}.values()
    tested = [row for row in kept if row["split"] == "4"][:test_patients]
    kept = [row for row in kept if row["split"] != "4"] + tested
    for row in kept:
        row |= {"sex": "", "age": "", "findings": "Effusion"}
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)


def test_methods_that_a_size_leaves_out_are_named(options, tmp_path):
    evaluation = evaluate(options, tmp_path / "out")
    reasons = evaluation.methods_not_run

    assert reasons["labels to image"] == "not part of a run of size quick"
    assert reasons["k-same 200"] == "fewer than 200 reference patients"
    assert not {method.method for method in evaluation.methods} & set(reasons)
    assert "fewer than 100 reference patients" in (tmp_path / "out" / "report.html").read_text()


def run_command(options: EvaluationOptions, folder: Path, *further: str, dataset: str = "cohort"):
    named = {
        "--manifest": options.manifest,
        "--dataset": dataset,
        "--model": options.bundle,
        "--evaluators": options.evaluators,
        "--cache-dir": options.cache_dir,
        "-o": folder,
    }
    arguments = [str(part) for pair in named.items() for part in pair]
    return CliRunner().invoke(app, ["evaluate", "--quick", *arguments, *further])


def test_command(options, tmp_path):
    done = run_command(options, tmp_path / "out", "--fold", "4")

    assert done.exit_code == 0, done.output
    for kind in Linkage:
        assert re.search(rf"told sex, no pixels +{kind.value} 0\.\d", done.output)
    assert "not run: A3: not part of a run of size quick" in done.output
    assert read_report(tmp_path / "out").folds == ("4",)


def test_what_cannot_be_run_is_refused(options, tmp_path):
    unknown = run_command(options, tmp_path, "--fold", "4", "--attacks", "A99")
    assert "there is no attack 'A99'" in str(unknown.exception)
    both = run_command(options, tmp_path, "--fold", "4", "--full")
    assert "--quick and --full" in str(both.exception)


def test_opening_of_held_out_images_of_the_project_is_to_be_logged(options, tmp_path):
    in_five_folds(options.manifest, NIH)
    opened = run_command(options, tmp_path / "a", "--fold", "4", dataset=NIH)
    chosen = run_command(
        options, tmp_path / "b", "--fold", "0", "--fold", "1", "--fold", "2", dataset=NIH
    )
    strangers = run_command(options, tmp_path / "c", "--fold", "4")

    assert "fold 4 was opened: add a line to docs/results/fold4-openings.md" in opened.output
    assert chosen.exit_code == 0 and "fold4-openings" not in chosen.output
    assert "fold4-openings" not in strangers.output


def test_verifier_is_told_by_its_weights(options):
    before = FixedVerifier(options.evaluators / "identity").fingerprint
    IdentityEmbedder(TINY_RESNET, 32, 8, 2).save_pretrained(options.evaluators / "identity")
    assert FixedVerifier(options.evaluators / "identity").fingerprint != before
