"""Every file family: right sense, right way up, right spacing; damaged files are told apart."""

from __future__ import annotations

import os
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from privdiff_infer.errors import ImageHeld, ImageRejected
from privdiff_infer.radiograph import SourceFormat, read_radiograph
from privdiff_infer.vocabulary import Sex
from tests.unit.dicom_factory import SHAPE, dicom_bytes, radiograph_dataset, ramp


@pytest.fixture
def read(tmp_path: Path):
    def read_bytes(content: bytes, name: str = "file"):
        path = tmp_path / name
        path.write_bytes(content)
        return read_radiograph(path)

    return read_bytes


def shown(bits: int = 12) -> np.ndarray:
    return ramp(bits) / (2**bits - 1)


class TestDicom:
    @pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
    def test_unsigned_depths(self, read, bits):
        stored = ramp(bits).astype(np.uint8 if bits == 8 else np.uint16)
        radiograph = read(dicom_bytes(radiograph_dataset(stored, bits)))
        np.testing.assert_allclose(radiograph.pixels, shown(bits), atol=1e-6)
        assert radiograph.bits_stored == bits
        assert radiograph.pixels.dtype == np.float32

    def test_signed_values_keep_their_order(self, read):
        stored = ramp(12).astype(np.int16) - 2048
        radiograph = read(dicom_bytes(radiograph_dataset(stored)))
        np.testing.assert_allclose(radiograph.pixels, shown(), atol=1e-6)

    def test_monochrome1_is_inverted(self, read):
        dataset = radiograph_dataset(ramp(), PhotometricInterpretation="MONOCHROME1")
        np.testing.assert_allclose(read(dicom_bytes(dataset)).pixels, 1 - shown(), atol=1e-6)

    @pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
    def test_compression_by_pydicom(self, read, syntax):
        dataset = radiograph_dataset(ramp())
        dataset.compress(syntax, generate_instance_uid=False)
        np.testing.assert_allclose(read(dicom_bytes(dataset)).pixels, shown(), atol=1e-6)

    @pytest.mark.parametrize(
        ("syntax", "bits", "tolerance"),
        [
            ("JPEGBaselineProcess1", 8, 0.03),
            ("JPEGLosslessProcess14", 12, 1e-6),
            ("JPEGLosslessProcess14_1", 12, 1e-6),
            ("JPEG2000Lossless", 12, 1e-6),
            ("JPEG2000", 12, 0.03),
        ],
    )
    def test_compression_by_gdcm(self, tmp_path, syntax, bits, tolerance):
        stored = ramp(bits).astype(np.uint8 if bits == 8 else np.uint16)
        plain, packed = tmp_path / "plain", tmp_path / "packed"
        plain.write_bytes(dicom_bytes(radiograph_dataset(stored, bits)))
        _compress_with_gdcm(plain, packed, syntax)
        np.testing.assert_allclose(read_radiograph(packed).pixels, shown(bits), atol=tolerance)

    def test_deflated_and_implicit(self, read):
        for syntax in (DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian):
            dataset = radiograph_dataset(ramp())
            dataset.file_meta.TransferSyntaxUID = syntax
            np.testing.assert_allclose(read(dicom_bytes(dataset)).pixels, shown(), atol=1e-6)

    def test_file_without_preamble(self, read):
        content = dicom_bytes(radiograph_dataset(ramp()), preamble=False)
        assert content[128:132] != b"DICM"
        np.testing.assert_allclose(read(content).pixels, shown(), atol=1e-6)

    def test_window_decides_the_range(self, read):
        dataset = radiograph_dataset(ramp(), WindowCenter=1024, WindowWidth=1024)
        pixels = read(dicom_bytes(dataset)).pixels
        expected = np.clip((ramp() - 512.0) / 1023, 0, 1)
        np.testing.assert_allclose(pixels, expected, atol=2e-3)

    def test_rescale_comes_before_the_window(self, read):
        dataset = radiograph_dataset(
            ramp(), RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1048, WindowWidth=2048
        )
        expected = np.clip((ramp() * 2.0 - 1000 - 24) / 2047, 0, 1)
        np.testing.assert_allclose(read(dicom_bytes(dataset)).pixels, expected, atol=2e-3)

    def test_voi_lut(self, read):
        table = np.linspace(0, 255, 4096).astype(np.uint16)[::-1]
        lut = Dataset()
        lut.add_new("LUTDescriptor", "US", [4096, 0, 8])
        lut.add_new("LUTData", "US", table.tolist())
        dataset = radiograph_dataset(ramp(), VOILUTSequence=Sequence([lut]))
        np.testing.assert_allclose(
            read(dicom_bytes(dataset)).pixels, table[ramp()] / 255, atol=1e-6
        )

    def test_padding_is_black_and_outside_the_range(self, read):
        stored = ramp() // 2 + 1000
        stored[:10] = 4095
        dataset = radiograph_dataset(stored)
        dataset.add_new("PixelPaddingValue", "US", 4095)
        pixels = read(dicom_bytes(dataset)).pixels
        assert (pixels[:10] == 0).all()
        assert pixels[10:].max() == 1

    def test_facts(self, read):
        dataset = radiograph_dataset(ramp(), PatientSex="F", PatientAge="007Y")
        radiograph = read(dicom_bytes(dataset))
        assert radiograph.header.sex is Sex.F
        assert radiograph.header.age_years == 7
        assert radiograph.spacing_mm == (0.4, 0.4)
        assert radiograph.source_format is SourceFormat.DICOM

    def test_age_from_birth_date(self, read):
        dataset = radiograph_dataset(ramp(), PatientBirthDate="20100630", StudyDate="20200629")
        assert read(dicom_bytes(dataset)).header.age_years == 9

    @pytest.mark.parametrize(
        ("attributes", "error", "words"),
        [
            ({"Modality": "CT"}, ImageHeld, "modality is CT"),
            ({"ViewPosition": "LL"}, ImageHeld, "not frontal"),
            ({"BodyPartExamined": "KNEE"}, ImageHeld, "not the chest"),
            ({"NumberOfFrames": 3}, ImageRejected, "3 frames"),
            ({"PixelData": None}, ImageRejected, "no pixels"),
            ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, ImageRejected, "colour"),
            ({"BitsAllocated": 32, "BitsStored": 32}, ImageRejected, "32 bits"),
            ({"Rows": 60000, "Columns": 60000}, ImageRejected, "60000 x 60000"),
            ({"Rows": 0}, ImageRejected, "80 x 0"),
            ({"RescaleSlope": "1e400", "RescaleIntercept": 0}, ImageRejected, "; "),
        ],
    )
    def test_refused_with_a_reason(self, read, attributes, error, words):
        with pytest.raises(error, match=words) as caught:
            read(dicom_bytes(radiograph_dataset(ramp(), **attributes)))
        assert "Doe" not in str(caught.value)

    def test_cut_off_pixels(self, read):
        with pytest.raises(ImageRejected, match=r"bytes instead of|damaged"):
            read(dicom_bytes(radiograph_dataset(ramp()))[:-5000])

    def test_deflate_bomb(self, read):
        dataset = radiograph_dataset(ramp())
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        head = dicom_bytes(dataset)
        start = 144 + int.from_bytes(head[140:144], "little")
        deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        block = bytes(2**24)
        body = b"".join(deflater.compress(block) for _ in range(40)) + deflater.flush()
        with pytest.raises(ImageRejected, match="bomb"):
            read(head[:start] + body)

    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def test_damaged_files_raise_only_our_errors(self, data, tmp_path_factory):
        content = bytearray(dicom_bytes(radiograph_dataset(ramp())))
        for _ in range(data.draw(st.integers(1, 8))):
            content[data.draw(st.integers(0, 700))] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.mktemp("fuzz") / "file"
        path.write_bytes(bytes(content))
        try:
            radiograph = read_radiograph(path)
        except (ImageRejected, ImageHeld):
            return
        assert np.isfinite(radiograph.pixels).all()
        assert 0 <= radiograph.pixels.min() <= radiograph.pixels.max() <= 1


class TestRaster:
    @pytest.mark.parametrize("bits", [8, 16])
    def test_png_depths(self, read, bits):
        stored = ramp(bits).astype(np.uint8 if bits == 8 else np.uint16)
        radiograph = read(_png(Image.fromarray(stored)))
        np.testing.assert_allclose(radiograph.pixels, shown(bits), atol=1e-6)
        assert radiograph.bits_stored == bits

    def test_rgb_grey_jpeg(self, read):
        buffer = BytesIO()
        Image.fromarray(ramp(8).astype(np.uint8)).convert("RGB").save(buffer, "JPEG", quality=98)
        np.testing.assert_allclose(read(buffer.getvalue()).pixels, shown(8), atol=0.03)

    def test_exif_orientation(self, read):
        buffer = BytesIO()
        image = Image.fromarray(np.rot90(ramp(8).astype(np.uint8)))
        exif = Image.Exif()
        exif[0x0112] = 6  # turn clockwise to see it upright
        image.save(buffer, "JPEG", exif=exif, quality=98)
        np.testing.assert_allclose(read(buffer.getvalue()).pixels, shown(8), atol=0.03)

    def test_png_spacing(self, read):
        image = Image.fromarray(ramp(8).astype(np.uint8))
        spacing = read(_png(image, dpi=(25.4 / 0.2, 25.4 / 0.1))).spacing_mm
        assert spacing == pytest.approx((0.1, 0.2), rel=1e-3)
        assert read(_png(image, dpi=(96, 96))).spacing_mm is None

    def test_colour_photograph(self, read):
        colours = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
        with pytest.raises(ImageRejected, match="in colour"):
            read(_png(Image.fromarray(colours)))

    def test_transparent(self, read):
        image = Image.fromarray(ramp(8).astype(np.uint8)).convert("LA")
        image.putalpha(128)
        with pytest.raises(ImageRejected, match="transparent"):
            read(_png(image))

    def test_animation(self, read):
        frames = [Image.fromarray(ramp(8).astype(np.uint8)), Image.new("L", SHAPE[::-1], 9)]
        buffer = BytesIO()
        frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
        with pytest.raises(ImageRejected, match="2 frames"):
            read(buffer.getvalue())

    def test_bomb_is_refused_by_its_header(self, read):
        with pytest.raises(ImageRejected, match="claims more than"):
            read(_png_claiming(30000, 30000))

    def test_cut_off(self, read):
        content = _png(Image.fromarray(ramp(8).astype(np.uint8)))
        with pytest.raises(ImageRejected, match="damaged or cut off"):
            read(content[: len(content) // 2])


class TestVolume:
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
        with pytest.raises(ImageRejected, match="80 x 90 x 5"):
            read_radiograph(tmp_path / "image.nrrd")

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


class TestAnyFile:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "empty"),
            (b"not an image, but a letter", "not an image"),
            (b"\x1f\x8b\x08\x00garbage", "damaged"),
            (b"\xff\xd8\xff\xe0garbage", "damaged"),
        ],
    )
    def test_refused_with_a_reason(self, read, content, words):
        with pytest.raises(ImageRejected, match=words):
            read(content)

    def test_constant(self, read):
        with pytest.raises(ImageRejected, match="constant"):
            read(_png(Image.new("L", (100, 100), 7)))

    def test_too_small(self, read):
        with pytest.raises(ImageRejected, match="fewer than 64"):
            read(_png(Image.fromarray(ramp(8, (40, 100)).astype(np.uint8))))

    def test_missing_and_folder(self, tmp_path):
        with pytest.raises(ImageRejected, match="does not exist"):
            read_radiograph(tmp_path / "nothing")
        with pytest.raises(ImageRejected, match="folder"):
            read_radiograph(tmp_path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    def test_no_permission(self, tmp_path):
        (tmp_path / "file").write_bytes(b"x")
        (tmp_path / "file").chmod(0)
        with pytest.raises(ImageRejected, match="no permission"):
            read_radiograph(tmp_path / "file")

    def test_message_does_not_name_the_file(self, read):
        with pytest.raises(ImageRejected) as caught:
            read(b"garbage", name="Doe_Jane.png")
        assert "Doe" not in str(caught.value)

    @settings(max_examples=40, deadline=None)
    @given(
        bits=st.integers(8, 16),
        low=st.integers(0, 100),
        width=st.integers(50, 155),
        inverted=st.booleans(),
    )
    def test_intensity_is_monotone_and_fills_the_range(
        self, bits, low, width, inverted, tmp_path_factory
    ):
        stored = (ramp(8).astype(np.float64) / 255 * width + low).round().astype(np.uint16)
        sense = "MONOCHROME1" if inverted else "MONOCHROME2"
        dataset = radiograph_dataset(stored, bits, PhotometricInterpretation=sense)
        path = tmp_path_factory.mktemp("intensity") / "file"
        path.write_bytes(dicom_bytes(dataset))
        pixels = read_radiograph(path).pixels
        expected = (stored - stored.min()) / np.ptp(stored)
        np.testing.assert_allclose(pixels, 1 - expected if inverted else expected, atol=1e-6)


def _compress_with_gdcm(source: Path, target: Path, syntax: str) -> None:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    assert writer.Write()


def _png(image: Image.Image, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def _png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + kind + body + check

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
