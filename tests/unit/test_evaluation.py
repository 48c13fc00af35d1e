"""Statistics, linkage trials, evaluators and comparisons, where the answer is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.evaluation import statistics
from privdiff_training.evaluation.compare import compare_bundles
from privdiff_training.evaluation.components import measure_components
from privdiff_training.evaluation.drawing import measure_drawing
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial, metadata_scores
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.evaluation.pictures import progress_plot, redrawn_grid
from privdiff_training.evaluation.statistics import auc, bootstrap
from privdiff_training.evaluation.sweep import Sweep, measured_points, sweep_bundle
from privdiff_training.images import load_images
from sklearn.metrics import roc_auc_score

from privdiff_infer.errors import CohortError
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_infer.vocabulary import Profile
from tests.unit.cohort_factory import write_cohort

TINY_DENSENET = {"kind": "densenet", "layers": (1, 1), "init_features": 8, "growth_rate": 4}


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return read_manifest(write_cohort(tmp_path, patients=24, images_per_patient=2))


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 100)


@pytest.fixture
def evaluators() -> Evaluators:
    torch.manual_seed(3)
    return Evaluators(
        IdentityEmbedder(TINY_DENSENET, 32, 8, 2).eval(), RadiographReader(TINY_DENSENET, 32).eval()
    )


def identity_scores(cohort: Cohort) -> np.ndarray:
    units = np.array([row.unit for row in cohort])
    return (units[:, None] == units[None, :]).astype(float)


class TestStatistics:
    def test_auc_of_nothing(self):
        assert math.isnan(auc(np.array([]), np.array([1.0])))

    def test_auc_equals_that_of_a_general_routine(self):
        rng = np.random.default_rng(4)
        positive, negative = rng.integers(0, 9, 40), rng.integers(0, 7, 70)  # with ties
        truth = [1] * 40 + [0] * 70
        expected = roc_auc_score(truth, [*positive, *negative])
        assert auc(positive, negative) == pytest.approx(expected)

    def test_interval_covers_the_truth(self):
        values = np.random.default_rng(0).normal(0.3, 1, 200)
        estimate = bootstrap(lambda rows, rng: float(values[list(rows)].mean()), 200, seed=1)
        assert estimate.low < 0.3 < estimate.high
        assert estimate.low < estimate.value < estimate.high
        assert estimate.high - estimate.low == pytest.approx(4 / math.sqrt(200), rel=0.25)

    def test_no_patients(self):
        assert math.isnan(bootstrap(lambda rows, rng: 1.0, 0, seed=1).value)


class TestLinkage:
    @pytest.mark.parametrize("kind", list(Linkage))
    def test_perfect_attacker(self, cohort, kind):
        trial = LinkageTrial(cohort, kind)
        rng = np.random.default_rng(0)
        assert trial.patients == 24
        assert trial.auc(identity_scores(cohort), range(24), rng) == 1

    @pytest.mark.parametrize("kind", list(Linkage))
    def test_blind_attacker(self, cohort, kind):
        trial = LinkageTrial(cohort, kind)
        scores = np.random.default_rng(1).random((48, 48))
        estimate = bootstrap(lambda rows, rng: trial.auc(scores, rows, rng), trial.patients, 0)
        assert estimate.low < 0.5 < estimate.high

    def test_image_itself_is_no_follow_up(self, cohort):
        trial = LinkageTrial(cohort, Linkage.FOLLOW_UP)
        scores = np.eye(48)
        assert trial.auc(scores, range(24), np.random.default_rng(0)) == pytest.approx(0.5)

    def test_negatives_are_of_other_patients_and_one_view(self, cohort):
        rows = [*cohort.rows[:4], *(_in_view(row, "AP") for row in cohort.rows[4:])]
        negative = LinkageTrial(Cohort(cohort.root, tuple(rows)), Linkage.SAME_IMAGE).negative
        assert negative[0].tolist() == [False, False, True, True] + [False] * 44

    def test_patient_with_many_images_counts_once(self, tmp_path):
        manifest = write_cohort(tmp_path, patients=2, images_per_patient=9)
        assert LinkageTrial(read_manifest(manifest), Linkage.FOLLOW_UP).patients == 2

    def test_labels_only_floor(self, cohort):
        scores = metadata_scores(cohort)
        assert scores[0, 1] == 1  # same finding
        assert scores[0, 2] == 0  # No Finding and Effusion


def test_comparison_of_a_bundle_with_itself(cohort, evaluators, tiny_bundle, tmp_path):
    comparison = compare_bundles(
        tiny_bundle, tiny_bundle, cohort, evaluators=evaluators, cache_dir=tmp_path / "cache"
    )
    assert comparison.old == comparison.new
    assert comparison.patients == 24
    assert comparison.findings_counted == ("Effusion",)
    for difference in comparison.new_minus_old.values():
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert comparison.originals.same_image.value == pytest.approx(1)
    assert comparison.originals.similarity == pytest.approx(1, abs=1e-5)


def test_strengths_are_those_that_were_asked_for(cohort, evaluators, tiny_bundle, tmp_path):
    comparison = compare_bundles(
        tiny_bundle,
        tiny_bundle,
        cohort,
        evaluators=evaluators,
        cache_dir=tmp_path / "cache",
        profiles=(Profile.VANILLA, Profile.VANILLA),
        strengths=(0.05, 1.0),
    )
    assert comparison.old.similarity != comparison.new.similarity
    assert comparison.old.kernel_distance != comparison.new.kernel_distance


class TestSweep:
    @pytest.fixture
    def sweep(self, cohort, evaluators, tiny_bundle, tmp_path) -> Sweep:
        return sweep_bundle(
            tiny_bundle,
            cohort,
            evaluators=evaluators,
            cache_dir=tmp_path / "cache",
            profiles=(Profile.STANDARD, Profile.VANILLA),
            strengths=(0.3, 1.0),
        )

    def test_every_way_is_a_row_and_what_it_was_told_is_said(self, sweep):
        ways = [(row.profile.value, row.strength, row.told.value) for row in sweep.rows]
        assert ways == [
            ("standard", 0.3, "nothing"),
            ("standard", 1.0, "nothing"),
            ("vanilla", 0.3, "nothing"),
            ("vanilla", 1.0, "nothing"),
            ("standard", 0.3, "header"),
            ("standard", 0.3, "report"),
        ]
        assert all(bool(row.minus_vanilla) is (row.profile != "vanilla") for row in sweep.rows)
        assert len(sweep.to_markdown().splitlines()) == 2 + 1 + len(ways)

    def test_metadata_takes_the_rows_of_pixels_alone(self, sweep):
        record = json.loads(json.dumps(sweep.to_record()))
        record["rows"][0]["figures"]["same_image"].update(value=0.62, low=0.55, high=0.7)
        record["rows"][0]["starting_points"].update(value=0.55, low=0.5, high=0.6)
        points = measured_points([record])
        assert points.keys() == {Profile.STANDARD, Profile.VANILLA}
        assert points[Profile.STANDARD].keys() == {"0.3", "1.0"}
        point = points[Profile.STANDARD]["0.3"]
        assert (point.linkage_auc, point.interval, point.n) == (0.62, (0.55, 0.7), 24)

    def test_linkage_below_chance_is_told_as_an_attacker_uses_it(self, sweep):
        record = json.loads(json.dumps(sweep.to_record()))
        record["rows"][0]["figures"]["same_image"].update(value=0.458, low=0.432, high=0.495)
        record["rows"][0]["starting_points"].update(value=0.53, low=0.5, high=0.56)
        point = measured_points([record])[Profile.STANDARD]["0.3"]
        assert (point.linkage_auc, point.interval) == (0.542, (0.505, 0.568))

    def test_the_owner_of_the_tool_counts_where_he_links_better(self, sweep):
        record = json.loads(json.dumps(sweep.to_record()))
        record["rows"][0]["figures"]["same_image"].update(value=0.62, low=0.55, high=0.7)
        record["rows"][0]["starting_points"].update(value=0.8, low=0.7, high=0.9)
        point = measured_points([record])[Profile.STANDARD]["0.3"]
        assert (point.linkage_auc, point.interval) == (0.8, (0.7, 0.9))

    def test_what_a_manifest_does_not_say_cannot_be_told(
        self, cohort, evaluators, tiny_bundle, tmp_path
    ):
        nameless = Cohort(cohort.root, tuple(replace(row, sex=None) for row in cohort))
        with pytest.raises(CohortError, match="no age or sex to tell"):
            sweep_bundle(
                tiny_bundle,
                nameless,
                evaluators=evaluators,
                cache_dir=tmp_path,
                profiles=(Profile.STANDARD,),
                strengths=(0.3,),
            )


def test_drawings_and_their_pictures(cohort, evaluators, tiny_bundle, tmp_path):
    figures = measure_drawing(tiny_bundle, cohort, evaluators, tmp_path / "cache", (0.5, 1.0))
    assert figures.kernel_distance.keys() == {"0.5", "1.0"}
    file = tmp_path / "32.json"
    file.write_text(json.dumps(figures.to_record()))
    progress_plot({32: file, 64: file}, tmp_path / "progress.png")
    assert Image.open(tmp_path / "progress.png").size == (600, 400)

    pixels = load_images(cohort, 64, tmp_path / "cache")[:2].unsqueeze(1).float() / 255
    picture = redrawn_grid(tiny_bundle, pixels, Profile.FAST, (0.5, 1.0), seed=0)
    assert picture.size == (4 * 64, 2 * 64)
    np.testing.assert_array_equal(np.asarray(picture)[:64, :64], (pixels[0, 0] * 255).numpy())


def test_components(cohort, tiny_bundle, tmp_path):
    figures = measure_components(tiny_bundle, cohort, tmp_path / "cache")
    assert figures.images == 48
    assert 0 < figures.reconstruction_psnr < 60
    assert figures.fine_detail_kept > 0
    assert figures.findings.low <= figures.findings.value <= figures.findings.high
    assert figures.untrained.patients == figures.follow_up.patients
    assert figures.untrained.value != figures.follow_up.value


def test_data_sets_are_not_mixed(cohort, evaluators, tiny_bundle, tmp_path):
    with pytest.raises(CohortError, match="0 images of 0 data sets"):
        compare_bundles(
            tiny_bundle,
            tiny_bundle,
            cohort.where(lambda row: False),
            evaluators=evaluators,
            cache_dir=tmp_path,
        )


def test_evaluators_share_nothing_with_the_embedded_critics():
    root = Path(__file__).resolve().parents[2]
    evaluators = Evaluators.load(root / "training" / "evaluators")
    bundle = root / "privdiff_infer" / "bundles" / "privdiff-cxr-256"
    critics = (
        IdentityEmbedder.from_pretrained(bundle / "identity"),
        RadiographReader.from_pretrained(bundle / "reader"),
    )
    for evaluator in (evaluators.verifier, evaluators.classifier):
        for critic in critics:
            assert evaluator.config["backbone"]["kind"] != critic.config["backbone"]["kind"]


def _in_view(row, view):
    return replace(row, view=view)
