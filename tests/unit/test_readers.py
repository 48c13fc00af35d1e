"""Every file family: right sense, right way up, right spacing; damaged files are told apart."""

from __future__ import annotations

import os
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from privdiff_infer.errors import ImageHeld, ImageRejected
from privdiff_infer.file_formats import SourceFormat
from privdiff_infer.radiograph import read_radiograph
from privdiff_infer.vocabulary import Sex
from tests.unit.dicom_factory import (
    SHAPE,
    dicom_bytes,
    encapsulated,
    radiograph_dataset,
    ramp,
)


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

    def test_facts(self, read):
        dataset = radiograph_dataset(ramp(), PatientSex="F", PatientAge="007Y")
        radiograph = read(dicom_bytes(dataset))
        assert radiograph.header.sex is Sex.F
        assert radiograph.header.age_years == 7
        assert radiograph.spacing_mm == (0.4, 0.4)
        assert radiograph.source_format is SourceFormat.DICOM

    @pytest.mark.parametrize(
        ("attributes", "error", "words", "detail"),
        [
            ({"Modality": "CT"}, ImageHeld, "other than CR or DX", "CT"),
            ({"NumberOfFrames": 3}, ImageRejected, "several frames", "3 frames"),
            ({"PixelData": None}, ImageRejected, "cut off or damaged", ""),
            ({"PixelData": None, "Rows": None}, ImageRejected, "no pixels", ""),
            (
                {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
                ImageRejected,
                "in colour",
                "RGB, 3 samples",
            ),
            ({"BitsAllocated": 32, "BitsStored": 32}, ImageRejected, "2 to 16 bits", "32 bits"),
            ({"Rows": 60000, "Columns": 60000}, ImageRejected, "claims more", "60000 x 60000"),
            ({"Rows": 0}, ImageRejected, "no rows", "80 x 0"),
            ({"RescaleSlope": "1e400"}, ImageRejected, "makes no sense", "inf"),
            ({"RescaleSlope": 0}, ImageRejected, "makes no sense", "slope 0"),
            ({"BitsStored": 12, "HighBit": 10}, ImageRejected, "high bit", "HighBit 10"),
        ],
    )
    def test_refused_with_a_reason(self, read, attributes, error, words, detail):
        dataset = radiograph_dataset(ramp(), **attributes)
        with pytest.raises(error, match=words) as caught:
            read(dicom_bytes(dataset))
        assert detail in caught.value.detail
        assert not detail or detail not in caught.value.problem
        assert "Doe" not in str(caught.value)
        assert caught.value.sop_instance_uid == dataset.SOPInstanceUID

    def test_constant_image_keeps_its_instance(self, read):
        dataset = radiograph_dataset(np.full(SHAPE, 7, np.uint16))
        with pytest.raises(ImageRejected, match="constant") as caught:
            read(dicom_bytes(dataset))
        assert caught.value.sop_instance_uid == dataset.SOPInstanceUID

    @pytest.mark.parametrize("high_bit", [11, 13, 15])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_values_are_taken_from_below_the_high_bit(self, read, high_bit, compressed):
        cells = ramp() << (high_bit - 11) | (1 << (high_bit - 11)) - 1
        cells |= 0x8000 if high_bit < 15 else 0  # an overlay above
        dataset = radiograph_dataset(cells.astype(np.uint16), HighBit=high_bit)
        if compressed:
            dataset.compress(RLELossless, generate_instance_uid=False)
        np.testing.assert_allclose(read(dicom_bytes(dataset)).pixels, shown(), atol=1e-6)

    def test_sign_is_extended_from_the_high_bit(self, read):
        cells = ((ramp().astype(np.int32) - 2048) << 4).astype(np.int16)
        dataset = radiograph_dataset(cells, HighBit=15)
        np.testing.assert_allclose(read(dicom_bytes(dataset)).pixels, shown(), atol=1e-6)

    def test_high_bit_of_compressed_values_must_fit(self, read):
        dataset = radiograph_dataset(ramp())
        dataset.compress(JPEGLSLossless, generate_instance_uid=False)
        dataset.HighBit = 15
        with pytest.raises(ImageRejected, match="high bit"):
            read(dicom_bytes(dataset))

    def test_cut_off_pixels(self, read):
        with pytest.raises(ImageRejected, match="cut off"):
            read(dicom_bytes(radiograph_dataset(ramp()))[:-5000])

    @pytest.mark.parametrize("kept", [0.3, 0.9])
    def test_cut_off_compressed_pixels(self, read, kept):
        dataset = radiograph_dataset(ramp())
        dataset.compress(RLELossless, generate_instance_uid=False)
        content = dicom_bytes(dataset)
        start = content.index(b"\xe0\x7f\x10\x00")
        with pytest.raises(ImageRejected, match="cut off or damaged") as caught:
            read(content[: start + int((len(content) - start) * kept)])
        assert caught.value.sop_instance_uid == dataset.SOPInstanceUID

    @pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless])
    def test_damaged_stream_prints_nothing(self, read, capfd, syntax):
        image = Image.fromarray(ramp(8).astype(np.uint8))
        buffer = BytesIO()
        if syntax == JPEGBaseline8Bit:
            image.save(buffer, "JPEG", quality=95)
        else:
            image.save(buffer, "JPEG2000", no_jp2=True)
        frame = buffer.getvalue()[: len(buffer.getvalue()) // 2 * 2 - 200]
        dataset = encapsulated(radiograph_dataset(ramp(8).astype(np.uint8), 8), frame, syntax)
        with pytest.raises(ImageRejected, match="damaged"):
            read(dicom_bytes(dataset))
        assert capfd.readouterr() == ("", "")

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


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
