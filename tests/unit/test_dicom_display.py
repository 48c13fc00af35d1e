"""From stored to displayed values: rescaling, windows and tables, as PS3.3 C.11 has them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sequence import Sequence

from privdiff_infer.errors import ImageRejected
from privdiff_infer.radiograph import read_radiograph
from tests.unit.dicom_factory import dicom_bytes, lookup_table, radiograph_dataset, ramp


@pytest.fixture
def pixels_of(tmp_path):
    def read(dataset) -> np.ndarray:
        (tmp_path / "file").write_bytes(dicom_bytes(dataset))
        return read_radiograph(tmp_path / "file").pixels

    return read


def shown(bits: int = 12) -> np.ndarray:
    return ramp(bits) / (2**bits - 1)


def windowed(value: float, center: float, width: float, function: str) -> float:
    """One value by the pseudo-code of PS3.3 C.11.2.1.2 and C.11.2.1.3, to [0, 1]."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(min(700, -4 * (value - center) / width)))
    if function == "LINEAR_EXACT":
        if value <= center - width / 2:
            return 0
        return 1 if value > center + width / 2 else (value - center) / width + 0.5
    if value <= center - 0.5 - (width - 1) / 2:
        return 0
    if value > center - 0.5 + (width - 1) / 2:
        return 1
    return (value - (center - 0.5)) / (width - 1) + 0.5


@settings(max_examples=80, deadline=None)
@given(
    slope=st.sampled_from([-3.0, -1.0, -0.25, 0.25, 1.0, 2.0]),
    intercept=st.integers(-3000, 3000),
    center=st.integers(-2000, 4000),
    width=st.integers(2, 6000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    signed=st.booleans(),
    inverted=st.booleans(),
)
def test_every_combination_of_rescaling_and_window(
    slope, intercept, center, width, function, signed, inverted, tmp_path_factory
):
    stored = ramp().astype(np.int16) - 2048 if signed else ramp()
    values = stored[::16, ::16] * slope + intercept
    expected = np.vectorize(windowed, otypes=[float])(values, center, width, function)
    dataset = radiograph_dataset(
        stored,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        WindowCenter=center,
        WindowWidth=width,
        VOILUTFunction=function,
        PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
    )
    path = tmp_path_factory.mktemp("window") / "file"
    path.write_bytes(dicom_bytes(dataset))
    try:
        pixels = read_radiograph(path).pixels[::16, ::16]
    except ImageRejected as error:
        assert "constant" in str(error)
        assert np.ptp(expected) < 0.2
        return
    np.testing.assert_allclose(pixels, 1 - expected if inverted else expected, atol=1e-5)


class TestWindow:
    def test_window_decides_the_range(self, pixels_of):
        dataset = radiograph_dataset(ramp(), WindowCenter=1024, WindowWidth=1024)
        expected = np.clip((ramp() - 512.0) / 1023, 0, 1)
        np.testing.assert_allclose(pixels_of(dataset), expected, atol=2e-3)

    def test_first_of_several_windows(self, pixels_of):
        dataset = radiograph_dataset(ramp(), WindowCenter=[1024, 9], WindowWidth=[1024, 9])
        expected = np.clip((ramp() - 512.0) / 1023, 0, 1)
        np.testing.assert_allclose(pixels_of(dataset), expected, atol=2e-3)

    def test_rescale_comes_before_the_window(self, pixels_of):
        dataset = radiograph_dataset(
            ramp(), RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1048, WindowWidth=2048
        )
        expected = np.clip((ramp() * 2.0 - 1000 - 24) / 2047, 0, 1)
        np.testing.assert_allclose(pixels_of(dataset), expected, atol=2e-3)

    def test_negative_slope_turns_the_sense(self, pixels_of):
        dataset = radiograph_dataset(
            ramp(), RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=4096
        )
        np.testing.assert_allclose(pixels_of(dataset), 1 - shown(), atol=1e-3)

    @pytest.mark.parametrize(
        "attributes",
        [
            {"WindowCenter": "", "WindowWidth": ""},
            {"WindowCenter": "2000"},
            {"WindowWidth": "2000"},
            {"WindowCenter": "2000", "WindowWidth": ""},
            {"WindowCenter": "0", "WindowWidth": "0"},
            {"WindowCenter": "2000", "WindowWidth": "0.5"},
            {"WindowCenter": "2000", "WindowWidth": "-400"},
            {"WindowCenter": "2000", "WindowWidth": "0", "VOILUTFunction": "SIGMOID"},
            {"WindowCenter": "2000", "WindowWidth": "400", "VOILUTFunction": "GAMMA"},
            {"VOILUTSequence": Sequence([])},
            {"ModalityLUTSequence": Sequence([])},
            {"RescaleSlope": "", "RescaleIntercept": ""},
            {"RescaleSlope": "", "RescaleIntercept": "-100"},
            {"RescaleSlope": "3"},
        ],
    )
    def test_what_is_empty_or_unusable_counts_as_absent(self, pixels_of, attributes):
        dataset = radiograph_dataset(ramp(), **attributes)
        np.testing.assert_allclose(pixels_of(dataset), shown(), atol=1e-6)

    def test_window_of_width_1_is_a_step(self, pixels_of):
        dataset = radiograph_dataset(ramp(), WindowCenter=2000, WindowWidth=1)
        np.testing.assert_array_equal(pixels_of(dataset), ramp() >= 2000)


class TestTables:
    @pytest.mark.parametrize("bits", [8, 12, 16])
    def test_voi_table(self, pixels_of, bits):
        table = np.linspace(0, 2**bits - 1, 4096).astype(np.uint16)[::-1]
        dataset = radiograph_dataset(ramp(), VOILUTSequence=lookup_table(0, bits, table, 4096))
        np.testing.assert_allclose(pixels_of(dataset), table[ramp()] / (2**bits - 1), atol=1e-6)

    @pytest.mark.parametrize("form", ["words", "packed in OW", "packed in US"])
    def test_voi_table_of_bytes(self, pixels_of, form):
        table = np.linspace(0, 255, 256).astype(np.uint8)[::-1]
        packed = table.tobytes()
        entries = {
            "words": table.astype("<u2").tobytes(),
            "packed in OW": packed,
            "packed in US": np.frombuffer(packed, "<u2"),
        }[form]
        dataset = radiograph_dataset(
            ramp(8).astype(np.uint8), 8, VOILUTSequence=lookup_table(0, 8, entries, 256)
        )
        np.testing.assert_allclose(pixels_of(dataset), 1 - shown(8), atol=1e-6)

    @pytest.mark.filterwarnings("ignore:The value for the data element")  # too long for US
    def test_voi_table_of_65536_entries(self, pixels_of):
        table = np.arange(65536, dtype=np.uint16)
        dataset = radiograph_dataset(ramp(16), 16, VOILUTSequence=lookup_table(0, 16, table, 65536))
        np.testing.assert_allclose(pixels_of(dataset), shown(16), atol=1e-6)

    def test_voi_table_of_negative_inputs(self, pixels_of):
        table = np.arange(4096, dtype=np.uint16)
        dataset = radiograph_dataset(
            ramp(),
            RescaleSlope=1,
            RescaleIntercept=-2048,
            VOILUTSequence=lookup_table(-2048, 12, table, 4096),
        )
        np.testing.assert_allclose(pixels_of(dataset), shown(), atol=1e-6)

    def test_inputs_beyond_a_table_get_its_ends(self, pixels_of):
        table = np.asarray([10, 40, 200], np.uint16)
        dataset = radiograph_dataset(ramp(), VOILUTSequence=lookup_table(2000, 8, table, 3))
        expected = table[np.clip(ramp().astype(int) - 2000, 0, 2)] / 255
        np.testing.assert_allclose(pixels_of(dataset), expected, atol=1e-6)

    def test_short_table_is_refused(self, pixels_of):
        table = np.arange(100, dtype=np.uint16)
        dataset = radiograph_dataset(ramp(), VOILUTSequence=lookup_table(0, 12, table, 4096))
        with pytest.raises(ImageRejected, match="lookup table"):
            pixels_of(dataset)

    def test_modality_table_comes_before_the_window(self, pixels_of):
        table = (np.arange(4096) * 8).astype(np.uint16)
        dataset = radiograph_dataset(
            ramp(),
            ModalityLUTSequence=lookup_table(0, 16, table, 4096),
            WindowCenter=16384,
            WindowWidth=32768,
        )
        np.testing.assert_allclose(pixels_of(dataset), shown(), atol=2e-3)

    def test_modality_table_without_a_window(self, pixels_of):
        table = (np.arange(4096) * 8).astype(np.uint16)
        dataset = radiograph_dataset(ramp(), ModalityLUTSequence=lookup_table(0, 16, table, 4096))
        np.testing.assert_allclose(pixels_of(dataset), shown(), atol=1e-6)


class TestPadding:
    @pytest.mark.parametrize("sense", ["MONOCHROME1", "MONOCHROME2"])
    def test_padding_is_black_and_outside_the_range(self, pixels_of, sense):
        stored = ramp() // 2 + 1000
        stored[:10] = 4095
        dataset = radiograph_dataset(stored, PhotometricInterpretation=sense)
        dataset.add_new("PixelPaddingValue", "US", 4095)
        pixels = pixels_of(dataset)
        assert (pixels[:10] == 0).all()
        assert pixels[10:].max() == 1

    @pytest.mark.parametrize("keyword", ["PixelPaddingValue", "PixelPaddingRangeLimit"])
    def test_empty_padding_value(self, pixels_of, keyword):
        dataset = radiograph_dataset(ramp(11))
        dataset.add_new("PixelPaddingValue", "US", 4095)
        dataset.add_new(keyword, "US", None)
        np.testing.assert_allclose(pixels_of(dataset), shown(11), atol=1e-6)
