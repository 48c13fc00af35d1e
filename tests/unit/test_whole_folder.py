"""Folders that are there whole or not at all."""

import os
import stat

import numpy as np
import pytest
from privdiff_training.whole_folder import copy_folder, whole_folder
from safetensors.numpy import save_file


def mode_of(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_weights_may_be_read_by_whoever_may_read_the_folder(tmp_path, umask):
    with whole_folder(tmp_path / "component") as partial:
        save_file({"weight": np.zeros(2)}, partial / "weights.safetensors")
    copy_folder(tmp_path / "component", tmp_path / "copy")
    for folder in ("component", "copy"):
        assert mode_of(tmp_path / folder / "weights.safetensors") == 0o666 & ~umask


def test_what_was_there_stays_if_writing_fails(tmp_path):
    target = tmp_path / "component"
    target.mkdir()
    (target / "weights").write_text("old")
    with pytest.raises(OSError, match="disk full"), whole_folder(target) as partial:
        (partial / "weights").write_text("new")
        raise OSError("disk full")
    assert (target / "weights").read_text() == "old"
