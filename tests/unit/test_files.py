"""Sources, seeds, image files and the folders of a run."""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from privdiff_infer.errors import OptionError, OutputError
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.image_files import encode_image
from privdiff_infer.release import (
    OutputFolders,
    Review,
    Row,
    Status,
    discard_results_without_row,
    reporting_disk_errors,
    write_atomically,
    write_crosswalk,
    write_private,
    write_released,
)
from privdiff_infer.seeds import image_seed, release_name, run_seed
from privdiff_infer.sources import find_sources
from tests.unit.outputs import png_chunks, read_crosswalk

PIXELS = np.linspace(0, 1, 70 * 90, dtype=np.float32).reshape(70, 90)


class TestSources:
    def test_files_folders_and_patterns_name_a_file_once(self, tmp_path):
        (tmp_path / "deep").mkdir()
        for name in ("b.png", "a.dcm", "deep/c.png", ".hidden"):
            (tmp_path / name).touch()
        found = find_sources([str(tmp_path), str(tmp_path / "b.png"), str(tmp_path / "**/*.png")])
        assert [path.name for path in found] == ["a.dcm", "b.png", "c.png"]

    def test_link_to_a_folder_above_ends(self, tmp_path):
        (tmp_path / "a.png").touch()
        (tmp_path / "loop").symlink_to(tmp_path)
        assert len(find_sources([str(tmp_path)])) == 1

    def test_name_with_brackets_is_a_file_before_it_is_a_pattern(self, tmp_path):
        path = tmp_path / "x[1].png"
        path.touch()
        assert find_sources([str(path)]) == [path]

    def test_nothing_there(self, tmp_path):
        with pytest.raises(OptionError, match="does not exist"):
            find_sources([str(tmp_path / "nothing*")])

    def test_empty_folder_is_named(self, tmp_path):
        (tmp_path / "empty" / "deep").mkdir(parents=True)
        with pytest.raises(OptionError, match=r"empty' holds no files"):
            find_sources([str(tmp_path / "empty")])

    def test_name_that_is_too_long_does_not_exist(self):
        with pytest.raises(OptionError, match="does not exist"):
            find_sources(["x" * 300])

    def test_link_to_itself_is_a_source(self, tmp_path):
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        assert find_sources([str(tmp_path)]) == [tmp_path / "loop"]

    @pytest.mark.parametrize("pattern", ["", "**/*.png"])
    def test_outputs_of_runs_are_left_out_of_folders_and_patterns(self, tmp_path, pattern):
        make_output(tmp_path / "out")
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "a.png").touch()
        assert find_sources([str(tmp_path / pattern)]) == [tmp_path / "deep" / "a.png"]

    @pytest.mark.parametrize("name", ["", "private", "release/images/cxr-0.png"])
    def test_output_of_a_run_cannot_be_named(self, tmp_path, name):
        make_output(tmp_path / "out")
        with pytest.raises(OptionError, match=r"lies in the output of a run, .*out; name the orig"):
            find_sources([str(tmp_path / "out" / name)])


def make_output(out: Path) -> None:
    folders = OutputFolders(out)
    folders.create()
    folders.run.touch()
    (folders.images / "cxr-0.png").touch()
    (folders.review / "cxr-0-original.png").touch()


class TestSeeds:
    def test_depends_on_run_and_bytes_alone(self):
        assert image_seed("1", "ab") == image_seed("1", "ab")
        assert len({image_seed(s, d) for s in ("1", "11") for d in ("ab", "1ab")}) == 4

    def test_without_a_number_every_run_differs(self):
        assert run_seed(None) != run_seed(None)

    def test_name_does_not_contain_the_digest(self):
        assert release_name(image_seed("1", "ab" * 32)) != release_name(image_seed("2", "ab" * 32))


class TestImageFiles:
    @pytest.mark.parametrize(
        ("output_format", "steps"), [(OutputFormat.PNG, 255), (OutputFormat.PNG16, 65535)]
    )
    def test_png_round_trip(self, output_format, steps):
        content = encode_image(PIXELS, (0.2, 0.1), output_format)
        image = Image.open(BytesIO(content))
        np.testing.assert_allclose(np.asarray(image) / steps, PIXELS, atol=0.51 / steps)
        assert image.info["dpi"] == pytest.approx((254, 127), abs=0.02)
        assert content == encode_image(PIXELS, (0.2, 0.1), output_format)

    @pytest.mark.parametrize("output_format", [OutputFormat.PNG, OutputFormat.PNG16])
    @pytest.mark.parametrize("spacing", [None, (0.2, 0.1)])
    def test_png_holds_pixels_and_spacing_alone(self, output_format, spacing):
        chunks = png_chunks(encode_image(PIXELS, spacing, output_format))
        expected = {"IHDR", "pHYs", "IDAT", "IEND"} if spacing else {"IHDR", "IDAT", "IEND"}
        assert set(chunks) == expected

    def test_nrrd_round_trip(self, tmp_path):
        path = tmp_path / "image.nrrd"
        path.write_bytes(encode_image(PIXELS, (0.2, 0.1), OutputFormat.NRRD))
        image = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), PIXELS)
        assert image.GetSpacing() == pytest.approx((0.1, 0.2))
        assert path.read_bytes() == encode_image(PIXELS, (0.2, 0.1), OutputFormat.NRRD)


class TestRelease:
    def test_private_is_private(self, tmp_path):
        folders = OutputFolders(tmp_path / "out")
        folders.create()
        for folder in (folders.private, folders.held, folders.review):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        write_private(folders.run, b"{}")
        assert stat.S_IMODE(folders.run.stat().st_mode) == 0o600

    def test_release_can_be_read_by_all_wherever_it_lies(self, tmp_path):
        folders = OutputFolders(tmp_path / "private" / "out")
        folders.create()
        write_released(folders.images / "a.png", b"")
        assert stat.S_IMODE((folders.images / "a.png").stat().st_mode) == 0o644

    def test_times_in_release_do_not_tell_the_order(self, tmp_path):
        write_released(tmp_path / "a.png", b"")
        write_released(tmp_path / "b.png", b"")
        times = [(tmp_path / name).stat() for name in ("a.png", "b.png")]
        assert times[0].st_mtime_ns == times[1].st_mtime_ns == 946_684_800 * 10**9
        assert times[0].st_atime_ns == times[1].st_atime_ns

    def test_results_without_a_row_are_discarded_and_nothing_else(self, tmp_path):
        folders = OutputFolders(tmp_path / "out")
        folders.create()
        folders.previews.mkdir()
        known, unknown = "cxr-0123456789abcdef", "cxr-fedcba9876543210"
        for name in (known, unknown):
            for path in (
                folders.images / f"{name}.nrrd",
                folders.previews / f"{name}.png",
                folders.held / f"{name}.png",
                folders.review / f"{name}-original.png",
            ):
                path.touch()
        (folders.images / ".partial-x").touch()
        (folders.images / "notes.txt").touch()
        discard_results_without_row(folders, {f"release/images/{known}.nrrd"})

        left = sorted(path.name for path in folders.root.rglob("*") if path.is_file())
        assert left == [f"{known}-original.png", f"{known}.nrrd"] + [f"{known}.png"] * 2 + [
            "notes.txt"
        ]

    def test_failed_write_leaves_the_old_file_and_no_partial_one(self, tmp_path):
        target = tmp_path / "file"
        write_atomically(target, b"old")
        with pytest.raises(TypeError):
            write_atomically(target, "not bytes")  # type: ignore[arg-type]
        assert target.read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
    def test_full_disk(self):
        with (
            pytest.raises(OutputError, match="disk full; free space"),
            reporting_disk_errors(),
            open("/dev/full", "wb") as file,
        ):
            file.write(b"x")

    def test_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="cannot be written"):
            OutputFolders(tmp_path / "file").create()

    @given(
        st.lists(
            st.text(
                st.characters(
                    exclude_categories=("Cs", "Cc"), exclude_characters="\x85\u2028\u2029"
                ),
                max_size=12,
            ),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    def test_crosswalk_round_trip(self, sources):
        rows = [
            Row(source, "1.2", "release/a.png", "00", Status.RELEASED, "-")
            for source in sorted(sources)
        ]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "crosswalk.csv"
            write_crosswalk(path, rows, {"release/a.png": Review.APPROVED})
            assert read_crosswalk(path) == [asdict(row) | {"review": "approved"} for row in rows]

    def test_name_that_is_no_utf_8_is_written_with_its_bytes(self, tmp_path):
        source = os.fsdecode(b"x\xff.png")
        row = Row(source, "", "", "", Status.FAILED, "")
        write_crosswalk(tmp_path / "c.csv", [row], {})
        assert read_crosswalk(tmp_path / "c.csv")[0]["source"] == r"x\udcff.png"

    @pytest.mark.parametrize("start", ["=", "+", "-", "@"])
    def test_spreadsheets_run_no_formula(self, tmp_path, start):
        row = Row(f"{start}cmd()", "", "", "", Status.FAILED, "")
        write_crosswalk(tmp_path / "c.csv", [row], {})
        assert f"'{start}cmd" in (tmp_path / "c.csv").read_text()
