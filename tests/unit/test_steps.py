"""Results of steps on disk, and when no further step begins."""

from math import inf

import pytest
from privdiff_training.evaluation.steps import LegOver, Steps


@pytest.fixture
def steps(tmp_path):
    return Steps(tmp_path / "steps")


def test_where_no_more_begins_what_is_done_is_read(steps):
    steps.record("done", int, lambda: 1)

    with steps.no_more():
        assert steps.record("done", int, lambda: 2) == 1
        with pytest.raises(LegOver):
            steps.record("not done", int, lambda: 2)


def test_where_no_more_begins_what_takes_seconds_is_still_made(steps):
    with steps.no_more():
        assert steps.record("of others", int, lambda: 3, takes_seconds=True) == 3


def test_steps_begin_again_after_an_error(steps):
    with pytest.raises(ValueError, match="inside"), steps.no_more():
        raise ValueError("inside")

    assert steps.until == inf
    assert steps.record("next", int, lambda: 4) == 4
