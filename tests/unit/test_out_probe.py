"""What a worker elsewhere must have in common with a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import ClusterError
from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.out_probe import OutProbe
from privdiff_infer.release import OutputFolders, write_private


@pytest.fixture
def bundle(tmp_path: Path, tiny_bundle: Path) -> Path:
    return copytree(tiny_bundle, tmp_path / "bundle")


@pytest.fixture
def probe(tmp_path: Path, bundle: Path) -> OutProbe:
    folders = OutputFolders(tmp_path / "out")
    folders.create()
    write_private(folders.run, b'{"seed": "1"}')
    return OutProbe.of(folders, Pseudonyms.load().fingerprint, read_bundle(bundle))


def test_same_folder_bundle_and_key_pass_and_leave_nothing(probe):
    before = sorted(probe.out.rglob("*"))
    probe.check()

    assert sorted(probe.out.rglob("*")) == before


def test_run_without_bundle_and_key_needs_none(probe, monkeypatch):
    monkeypatch.setenv("PRIVDIFF_KEY_FILE", "/nowhere/key")
    replace(probe, bundle=None, key_fingerprint=None).check()


def test_folder_of_another_run_is_told(probe):
    write_private(OutputFolders(probe.out).run, b'{"seed": "2"}')
    with pytest.raises(ClusterError, match="cannot read and write the same"):
        probe.check()


def test_folder_that_is_not_there_is_told(probe, tmp_path):
    with pytest.raises(ClusterError, match="cannot read and write the same"):
        replace(probe, out=tmp_path / "elsewhere").check()


def test_changed_bundle_is_told(probe, bundle):
    (bundle / "README.md").write_text("Changed.\n")
    with pytest.raises(ClusterError, match="has no bundle"):
        probe.check()


def test_key_that_is_not_there_is_told_and_none_is_made(probe, monkeypatch, tmp_path):
    monkeypatch.delenv("PRIVDIFF_KEY_FILE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    with pytest.raises(ClusterError, match="has another pseudonym key"):
        probe.check()

    assert not (tmp_path / "home").exists()


def test_other_version_is_told(probe):
    with pytest.raises(ClusterError, match=r"runs privdiff .*, and this is 0\.0"):
        replace(probe, version="0.0").check()
