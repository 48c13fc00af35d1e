"""NIfTI and NRRD: right way up, spacing only where stated, one file only."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from privdiff_infer.errors import ImageRejected
from privdiff_infer.radiograph import read_radiograph
from privdiff_infer.readers.volume_headers import NIFTI_HEADER
from tests.unit.dicom_factory import SHAPE, ramp


def shown(bits: int = 12) -> np.ndarray:
    return ramp(bits) / (2**bits - 1)


class TestBoth:
    @pytest.mark.parametrize("name", ["image.nrrd", "image.nii", "image.nii.gz"])
    @pytest.mark.parametrize("dimension", [2, 3])
    def test_what_simpleitk_writes_comes_back(self, tmp_path, name, dimension):
        stored = ramp(12).astype(np.int16)
        image = sitk.GetImageFromArray(stored if dimension == 2 else stored[None])
        image.SetSpacing((0.2, 0.3, 1.0)[:dimension])
        sitk.WriteImage(image, str(tmp_path / name))
        radiograph = read_radiograph(tmp_path / name)
        np.testing.assert_allclose(radiograph.pixels, shown(), atol=1e-6)
        assert radiograph.spacing_mm == pytest.approx((0.3, 0.2))

    def test_coronal_slice_is_head_up(self, tmp_path):
        # Axes of a coronal slice in LPS: left, posterior (one element), superior.
        volume = sitk.GetImageFromArray(ramp(12).astype(np.int16)[::-1][:, None, :])
        sitk.WriteImage(volume, str(tmp_path / "image.nii.gz"))
        radiograph = read_radiograph(tmp_path / "image.nii.gz")
        np.testing.assert_allclose(radiograph.pixels, shown(), atol=1e-6)

    def test_axes_that_run_the_other_way(self, tmp_path):
        volume = sitk.GetImageFromArray(ramp(12).astype(np.int16)[::-1, ::-1][None])
        volume.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        sitk.WriteImage(volume, str(tmp_path / "image.nii.gz"))
        radiograph = read_radiograph(tmp_path / "image.nii.gz")
        np.testing.assert_allclose(radiograph.pixels, shown(), atol=1e-6)

    def test_several_slices(self, tmp_path):
        sitk.WriteImage(sitk.Image(80, 90, 5, sitk.sitkInt16), str(tmp_path / "image.nrrd"))
        with pytest.raises(ImageRejected, match="several slices") as caught:
            read_radiograph(tmp_path / "image.nrrd")
        assert "80 x 90 x 5" in caught.value.detail

    def test_not_a_number(self, tmp_path):
        values = shown().astype(np.float32)
        values[3, 4] = np.nan
        sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "image.nrrd"))
        with pytest.raises(ImageRejected, match="NaN"):
            read_radiograph(tmp_path / "image.nrrd")

    def test_cut_off(self, tmp_path):
        path = tmp_path / "image.nrrd"
        sitk.WriteImage(sitk.GetImageFromArray(ramp(12)), str(path))
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(ImageRejected):
            read_radiograph(path)

    @pytest.mark.parametrize("name", ["image.nrrd", "image.nii", "image.nii.gz"])
    @pytest.mark.parametrize("kept", [0.02, 0.3, 0.95])
    def test_cut_off_anywhere_in_one_line(self, tmp_path, capfd, name, kept):
        path = tmp_path / name
        sitk.WriteImage(sitk.GetImageFromArray(ramp(12)), str(path))
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
        with pytest.raises(ImageRejected):
            read_radiograph(path)
        assert capfd.readouterr() == ("", "")

    @settings(max_examples=150, deadline=None)
    @given(data=st.data(), name=st.sampled_from(["image.nrrd", "image.nii"]))
    def test_damaged_headers_raise_only_our_errors(self, data, name, tmp_path_factory):
        path = tmp_path_factory.mktemp("fuzz") / name
        sitk.WriteImage(sitk.GetImageFromArray(ramp(12)), str(path))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 8))):
            content[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            pixels = read_radiograph(path).pixels
        except ImageRejected:
            return
        assert 0 <= pixels.min() <= pixels.max() <= 1


class TestNrrd:
    @pytest.mark.parametrize(
        "line",
        ["data file: secret.raw", "datafile: {folder}/secret.raw", "Data File: LIST\nsecret.raw"],
    )
    @pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
    def test_data_in_another_file(self, tmp_path, line, newline):
        (tmp_path / "secret.raw").write_bytes(ramp(12).tobytes())
        lines = [*NRRD_LINES, *line.format(folder=tmp_path).split("\n"), ""]
        path = tmp_path / "image.nrrd"
        path.write_bytes(newline.join(lines).encode())
        with pytest.raises(ImageRejected, match="names other files"):
            read_radiograph(path)

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            ([], None),
            (["spacings: nan nan"], None),
            (["spacings: 0.3 nan"], None),
            (["spacings: 0.3 0.2"], (0.2, 0.3)),
            (["SPACINGS: 0.3 0.2"], (0.2, 0.3)),
            (["space dimension: 2", "space directions: (0.3,0) (0,0.2)"], (0.2, 0.3)),
        ],
    )
    def test_spacing_only_where_stated(self, tmp_path, lines, expected):
        radiograph = read_radiograph(_nrrd(tmp_path, ramp(12), lines))
        np.testing.assert_allclose(radiograph.pixels, shown(), atol=1e-6)
        assert radiograph.spacing_mm == (expected and pytest.approx(expected))

    @pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
    def test_axes_may_be_swapped(self, tmp_path, signs):
        down, across = signs  # the first axis in the file runs along the rows, upwards or downwards
        stored = np.ascontiguousarray(ramp(12)[::down, ::across].T)
        lines = ["space dimension: 2", f"space directions: (0,{0.2 * down}) ({0.3 * across},0)"]
        radiograph = read_radiograph(_nrrd(tmp_path, stored, lines))
        np.testing.assert_allclose(radiograph.pixels, shown(), atol=1e-6)
        assert radiograph.spacing_mm == pytest.approx((0.2, 0.3))


class TestNifti:
    @pytest.mark.parametrize("axes", [2, 3])
    @pytest.mark.parametrize("across", ["slice", "zero"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_coronal_affine(self, tmp_path, axes, across, packed):
        # RAS: columns run to the patient's left (-x), rows of the file upwards (+z).
        srow = [[-0.3, 0, 0, 0], [0, 0, 1, 0], [0, 0.2, 0, 0]]
        if across == "zero" and axes == 2:
            srow[1][2] = 0
        content = _nifti(ramp(12)[::-1], axes, (0.3, 0.2), srow)
        path = tmp_path / "image"
        path.write_bytes(gzip.compress(content) if packed else content)
        radiograph = read_radiograph(path)
        np.testing.assert_allclose(radiograph.pixels, shown(), atol=1e-6)
        assert radiograph.spacing_mm == pytest.approx((0.2, 0.3))

    @pytest.mark.parametrize("axes", [2, 3])
    def test_axial_affine_and_none(self, tmp_path, axes):
        path = tmp_path / "image"
        path.write_bytes(_nifti(ramp(12), axes, (0.3, 0.2), None))
        np.testing.assert_allclose(read_radiograph(path).pixels, shown(), atol=1e-6)
        identity = [[0.3, 0, 0, 0], [0, 0.2, 0, 0], [0, 0, 1, 0]]  # RAS: to the right, to the front
        path.write_bytes(_nifti(ramp(12)[::-1, ::-1], axes, (0.3, 0.2), identity))
        np.testing.assert_allclose(read_radiograph(path).pixels, shown(), atol=1e-6)

    @pytest.mark.parametrize("steps", [(0, 0), (0.3, 0), (np.nan, 0.2), (np.inf, 0.2)])
    @pytest.mark.parametrize("axes", [2, 3])
    def test_spacing_only_where_stated(self, tmp_path, steps, axes):
        path = tmp_path / "image"
        path.write_bytes(_nifti(ramp(12), axes, steps, None))
        assert read_radiograph(path).spacing_mm is None

    def test_big_endian(self, tmp_path):
        path = tmp_path / "image"
        path.write_bytes(_nifti(ramp(12), 2, (0.3, 0.2), None, order=">"))
        np.testing.assert_allclose(read_radiograph(path).pixels, shown(), atol=1e-6)

    @pytest.mark.parametrize("packed", [False, True])
    def test_header_of_a_pair(self, tmp_path, packed):
        content = _nifti(ramp(12), 2, (1, 1), None, magic=b"ni1\0")
        path = tmp_path / "image"
        path.write_bytes(gzip.compress(content) if packed else content)
        with pytest.raises(ImageRejected, match="data is in another file"):
            read_radiograph(path)

    @pytest.mark.parametrize(("field", "value"), [("dim", 9), ("dim", -1), ("datatype", 3)])
    def test_impossible_header_in_one_line(self, tmp_path, capfd, field, value):
        content = bytearray(_nifti(ramp(12), 2, (1, 1), None))
        header = np.frombuffer(content, NIFTI_HEADER, count=1)
        header[field].reshape(-1)[0] = value
        (tmp_path / "image").write_bytes(content)
        with pytest.raises(ImageRejected, match="damaged"):
            read_radiograph(tmp_path / "image")
        assert capfd.readouterr() == ("", "")

    def test_compressed_bomb(self, tmp_path, monkeypatch):
        monkeypatch.setattr("privdiff_infer.readers.volume_headers.MAX_FILE_BYTES", 2**20)
        (tmp_path / "image").write_bytes(gzip.compress(bytes(2**21)))
        with pytest.raises(ImageRejected, match="bomb"):
            read_radiograph(tmp_path / "image")


NRRD_LINES = [
    "NRRD0004",
    "type: uint16",
    "dimension: 2",
    f"sizes: {SHAPE[1]} {SHAPE[0]}",
    "endian: little",
    "encoding: raw",
]


def _nrrd(folder: Path, stored: np.ndarray, lines: list[str]) -> Path:
    sizes = f"sizes: {stored.shape[1]} {stored.shape[0]}"
    head = [*(sizes if line.startswith("sizes") else line for line in NRRD_LINES), *lines, "", ""]
    path = folder / "image.nrrd"
    path.write_bytes("\n".join(head).encode() + stored.tobytes())
    return path


def _nifti(
    stored: np.ndarray,
    axes: int,
    steps: tuple[float, float],
    srow: list[list[float]] | None,
    *,
    order: str = "<",
    magic: bytes = b"n+1\0",
) -> bytes:
    """Return a NIfTI file of one slice; `steps` are of columns and rows."""
    content = bytearray(352)
    header = np.frombuffer(content, NIFTI_HEADER.newbyteorder(order), count=1)[0]
    header["sizeof_hdr"], header["datatype"], header["vox_offset"] = 348, 512, 352
    header["dim"][:4] = axes, stored.shape[1], stored.shape[0], 1
    header["pixdim"][:4] = 1, *steps, 1
    content[72:74] = (16).to_bytes(2, "little" if order == "<" else "big")  # bitpix
    content[123] = 2  # millimetres
    content[344:348] = magic
    if srow is not None:
        content[254:256] = (1).to_bytes(2, "little" if order == "<" else "big")  # sform_code
        header["srow"] = srow
    return bytes(content) + np.ascontiguousarray(stored).astype(f"{order}u2").tobytes()
