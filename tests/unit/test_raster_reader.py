"""PNG and JPEG: depth, orientation, grey in colour files; a print resolution is no spacing."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from privdiff_infer.errors import ImageRejected
from privdiff_infer.radiograph import Radiograph, read_radiograph
from privdiff_infer.readers.raster import UPRIGHT
from tests.unit.dicom_factory import SHAPE, ramp


@pytest.fixture
def read(tmp_path: Path):
    def read_bytes(content: bytes) -> Radiograph:
        (tmp_path / "file").write_bytes(content)
        return read_radiograph(tmp_path / "file")

    return read_bytes


def shown(bits: int) -> np.ndarray:
    return ramp(bits) / (2**bits - 1)


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

    @pytest.mark.parametrize("dpi", [(96, 96), (300, 300), (25.4 / 0.2, 25.4 / 0.1)])
    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_print_resolution_is_no_spacing(self, read, kind, dpi):
        buffer = BytesIO()
        Image.fromarray(ramp(8).astype(np.uint8)).save(buffer, kind, dpi=dpi)
        assert read(buffer.getvalue()).spacing_mm is None

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("channels", [1, 3])
    def test_every_exif_orientation(self, read, orientation, channels):
        stored = np.asarray(Image.fromarray(ramp(8).astype(np.uint8)))
        exif = Image.Exif()
        exif[0x0112] = orientation
        # Turning by the inverse of what the orientation asks for.
        inverse = {6: 8, 8: 6}.get(orientation, orientation)
        turned = Image.fromarray(stored)
        if inverse in UPRIGHT:
            turned = turned.transpose(UPRIGHT[inverse])
        content = _png_of_16_bits(np.asarray(turned).astype(np.uint16) * 257, channels, exif)
        np.testing.assert_allclose(read(content).pixels, shown(8), atol=1e-6)

    @pytest.mark.parametrize("channels", [2, 3, 4])
    def test_colour_files_of_16_bits_keep_them(self, read, channels):
        radiograph = read(_png_of_16_bits(ramp(16), channels))
        np.testing.assert_allclose(radiograph.pixels, shown(16), atol=1e-6)
        assert radiograph.bits_stored == 16

    def test_transparent_of_16_bits(self, read):
        with pytest.raises(ImageRejected, match="transparent"):
            read(_png_of_16_bits(ramp(16), 4, alpha=65000))

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
        with pytest.raises(ImageRejected, match="several frames"):
            read(buffer.getvalue())

    def test_bomb_is_refused_by_its_header(self, read):
        with pytest.raises(ImageRejected, match="claims more than"):
            read(_png_claiming(30000, 30000))

    def test_cut_off(self, read):
        content = _png(Image.fromarray(ramp(8).astype(np.uint8)))
        with pytest.raises(ImageRejected, match="damaged or cut off"):
            read(content[: len(content) // 2])


def _png(image: Image.Image, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def _png_of_16_bits(
    stored: np.ndarray, channels: int, exif: Image.Exif | None = None, alpha: int = 65535
) -> bytes:
    """Return a PNG of 16-bit samples, which Pillow cannot write: even channels have alpha."""
    planes = [stored] * channels
    if channels % 2 == 0:
        planes[-1] = np.full_like(stored, alpha)
    samples = np.stack(planes, axis=-1).astype(">u2")
    rows, columns = stored.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = (
        columns.to_bytes(4, "big") + rows.to_bytes(4, "big") + bytes([16, colour_type, 0, 0, 0])
    )
    lines = b"".join(b"\0" + line.tobytes() for line in samples)  # filter 0 before each line
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + (_chunk(b"eXIf", exif.tobytes()[6:]) if exif else b"")
        + _chunk(b"IDAT", zlib.compress(lines))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body).to_bytes(4, "big")
    return len(body).to_bytes(4, "big") + kind + body + check


def _png_claiming(width: int, height: int) -> bytes:
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", data)
        + _chunk(b"IEND", b"")
    )
