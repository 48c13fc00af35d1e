"""`compare_bundles(old, new, cohort)` finds what else it needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.evaluation import compare, statistics
from privdiff_training.evaluation.compare import compare_bundles

from privdiff_infer.errors import OptionError
from tests.unit.cohort_factory import write_cohort


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return read_manifest(write_cohort(tmp_path, patients=8))


def test_the_evaluators_and_the_cache_of_a_checkout_are_the_default(
    cohort: Cohort, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 20)
    monkeypatch.chdir(tmp_path)

    comparison = compare_bundles(tiny_bundle, tiny_bundle, cohort)

    assert comparison.images == 16
    assert list((tmp_path / "runs" / "cache").glob("redrawn-*"))


def test_without_a_checkout_the_evaluators_must_be_named(
    cohort: Cohort, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "EVALUATORS", tmp_path / "absent")

    with pytest.raises(OptionError, match=r"no evaluators in .*; pass `evaluators`"):
        compare_bundles(tiny_bundle, tiny_bundle, cohort)
