"""Which methods an evaluation of each size compares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from privdiff_training.assemble import write_metadata
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.evaluation.methods.method import Method
from privdiff_training.evaluation.methods.registry import lineup_for
from privdiff_training.evaluation.record import Size
from privdiff_training.evaluation.roles import Roles

from privdiff_infer.errors import BundleError
from privdiff_infer.model.clusters import PatientClusters
from privdiff_infer.pipeline import PrivDiffPipeline
from tests.conftest import tiny_metadata
from tests.unit.cohort_factory import write_cohort
from tests.unit.tiny import tiny_pipeline

BASELINES = {"downsampling", "blur", "noise", "DP-Pix", "flow field"}


@pytest.fixture
def roles(tmp_path: Path) -> Roles:
    cohort = read_manifest(write_cohort(tmp_path))
    return Roles(cohort, cohort, cohort, cohort)


@pytest.fixture
def full(tiny_bundle: Path, roles: Roles, tmp_path: Path) -> tuple[Method, ...]:
    return lineup_for(Size.FULL, tiny_bundle, roles, tmp_path).methods


def test_quick_is_the_operating_point(tiny_bundle, roles, tmp_path):
    methods = lineup_for(Size.QUICK, tiny_bundle, roles, tmp_path).methods

    assert [method.name for method in methods] == ["standard 0.3"]


def test_default_adds_the_controls(tiny_bundle, roles, tmp_path):
    methods = lineup_for(Size.DEFAULT, tiny_bundle, roles, tmp_path).methods

    assert [method.name for method in methods] == ["standard 0.3", "vanilla 0.3", "labels to image"]


def test_a_larger_size_holds_the_smaller_one_in_its_order(tiny_bundle, roles, tmp_path, full):
    default = lineup_for(Size.DEFAULT, tiny_bundle, roles, tmp_path).methods

    assert [method.name for method in full[: len(default)]] == [method.name for method in default]


def test_a_leg_reaches_the_strongest_setting_of_every_baseline_first(full):
    families = {method.family: method.name for method in full if method.family in BASELINES}
    reached = [method for method in full if method.family in BASELINES]
    first = reached[: len(families)]

    assert {method.family for method in first} == set(families)
    assert {"downsampling 32", "blur 16", "noise 0.8"} <= {method.name for method in first}


def test_rivals_are_the_strongest_of_their_family_and_the_rest_stands_behind(
    tiny_bundle, roles, tmp_path
):
    lineup = lineup_for(Size.FULL, tiny_bundle, roles, tmp_path)
    rivals, further = ({method.name for method in part} for part in (lineup.rivals, lineup.further))

    assert {"vanilla 0.3", "vanilla 0.8", "labels to image", "blur 16"} <= rivals
    assert {"blur 8", "standard 1", "SAS centered 0.3", "vanilla 0.6"} <= further
    assert "standard 0.3, told the report" in further
    assert lineup.methods == (lineup.point, *lineup.rivals, *lineup.further)


def test_every_method_has_a_name_of_its_own_and_is_made_once(full):
    assert len({method.name for method in full}) == len(full)
    assert len({method.fingerprint for method in full}) == len(full)
    assert len({(method.family, method.setting) for method in full}) == len(full)


def test_what_is_told_is_beside_the_headline(full):
    told = [method.name for method in full if method.told != "nothing"]

    assert told == ["standard 0.3, told the header", "standard 0.3, told the report"]


def test_what_starts_from_a_group_is_not_told_the_header(tiny_bundle, roles, tmp_path):
    bundle = tmp_path / "bundle"
    pipeline = PrivDiffPipeline.from_pretrained(tiny_bundle)
    pipeline.register_modules(clusters=PatientClusters(3, (4, 4, 4)))
    pipeline.save_pretrained(bundle)
    write_metadata(bundle, tiny_metadata())

    methods = lineup_for(Size.FULL, bundle, roles, tmp_path / "cache").methods

    assert {method.told for method in methods} == {"nothing", "report"}


def test_a_header_that_is_not_there_is_not_told(tiny_bundle, roles, tmp_path):
    nameless = Cohort(roles.test.root, tuple(replace(row, sex=None) for row in roles.test))
    partial = replace(roles, test=nameless)

    methods = lineup_for(Size.FULL, tiny_bundle, partial, tmp_path).methods

    assert {method.told for method in methods} == {"nothing", "report"}


def test_a_bundle_without_an_operating_point_is_an_error(roles, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "bundle")
    write_metadata(tmp_path / "bundle", tiny_metadata(operating_points={}))

    with pytest.raises(BundleError, match="no operating point for standard"):
        lineup_for(Size.QUICK, tmp_path / "bundle", roles, tmp_path)
