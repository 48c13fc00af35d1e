"""A run folder continues the run that it holds and refuses any other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from privdiff_training.loop import train
from privdiff_training.run_record import RECORD

from privdiff_infer.errors import ConfigError
from tests.unit.workshop import Workshop


@pytest.fixture(scope="module")
def finished(built: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three steps that started from the weights of a bundle."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    train(built.stage("reader", init_from=built.bundle), run_dir, run_dir / "bundle")
    return run_dir


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def resume(built: Workshop, run_dir: Path, init_from: Path | None, **changes: Any) -> None:
    stage = built.stage("reader", init_from=init_from, **changes)
    train(stage, run_dir, run_dir / "bundle")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"learning_rate": 0.5}, "learning_rate"),
        ({"seed": 5, "weight_decay": 0.5}, "weight_decay"),
        ({"backbone": {"kind": "resnet", "widths": [8, 8, 8, 8]}}, r"backbone\.layers"),
        ({"steps": 2}, "steps"),
        ({"steps": 4, "decay": "cosine"}, "steps"),
    ],
)
def test_another_configuration_is_an_error_that_names_the_first_key(
    built: Workshop, run_dir: Path, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError, match=f"with another {key}; name another --run-dir"):
        resume(built, run_dir, built.bundle, **changes)


def test_more_steps_are_no_other_run_unless_the_learning_rate_depends_on_them(
    built: Workshop, run_dir: Path
) -> None:
    resume(built, run_dir, built.bundle, steps=5)

    assert (run_dir / "LATEST").read_text() == "checkpoint-5"


def test_how_often_checkpoints_are_written_may_change(built: Workshop, run_dir: Path) -> None:
    resume(built, run_dir, built.bundle, steps=4, checkpoint_every=1, log_every=1)

    assert (run_dir / "LATEST").read_text() == "checkpoint-4"


def test_more_steps_of_a_cosine_decay_are_another_run(built: Workshop, tmp_path: Path) -> None:
    resume(built, tmp_path, None, decay="cosine")

    with pytest.raises(ConfigError, match="with another steps"):
        resume(built, tmp_path, None, decay="cosine", steps=4)


def test_other_first_weights_are_an_error(built: Workshop, run_dir: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(built.bundle, tmp_path / "other"))
    train(built.stage("reader", seed=9), tmp_path / "run-9", other)

    for init_from in (None, other):
        with pytest.raises(ConfigError, match="with another --init-from; name another"):
            resume(built, run_dir, init_from)


def test_the_same_first_weights_in_another_folder_are_the_same_run(
    built: Workshop, run_dir: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(built.bundle, tmp_path / "moved"))

    resume(built, run_dir, moved)


def test_a_folder_without_checkpoints_takes_any_run(built: Workshop, run_dir: Path) -> None:
    (run_dir / "LATEST").unlink()

    resume(built, run_dir, None, learning_rate=0.5)


def test_a_folder_of_a_version_without_records_is_continued(built: Workshop, run_dir: Path) -> None:
    (run_dir / RECORD).unlink()

    resume(built, run_dir, built.bundle, steps=4)

    assert (run_dir / RECORD).is_file()
