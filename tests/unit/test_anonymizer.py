"""The way of one image, on a tiny bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from privdiff_infer.anonymizer import Anonymizer, AnonymizerOptions
from privdiff_infer.errors import ImageHeld
from privdiff_infer.file_formats import SourceFormat
from privdiff_infer.radiograph import HeaderFacts, Radiograph
from privdiff_infer.vocabulary import Sex

ADULT = Radiograph(
    pixels=np.random.default_rng(0).random((90, 70), np.float32),
    spacing_mm=(0.2, 0.2),
    digest="0" * 64,
    source_format=SourceFormat.DICOM,
    bits_stored=12,
    sop_instance_uid="1.2.3",
    header=HeaderFacts(modality="DX", sex=Sex.F, age_years=30.0),
)


@pytest.fixture(scope="module")
def anonymizer(tiny_bundle: Path) -> Anonymizer:
    return Anonymizer.from_bundle(tiny_bundle, AnonymizerOptions(strength=0.8))


def test_true_sex_and_age_of_the_header_guide_the_redrawing(anonymizer: Anonymizer) -> None:
    def redrawn(**facts: object) -> np.ndarray:
        header = replace(ADULT.header, **facts)
        return anonymizer.anonymize(replace(ADULT, header=header), image_seed=1).pixels

    told = redrawn()
    assert np.array_equal(redrawn(age_years=31.0), told)  # of one bin
    assert not np.array_equal(redrawn(age_years=80.0), told)
    assert not np.array_equal(redrawn(sex=Sex.M), told)


def test_a_child_is_held(anonymizer: Anonymizer) -> None:
    child = replace(ADULT, header=replace(ADULT.header, age_years=17.9))
    with pytest.raises(ImageHeld, match="under 18"):
        anonymizer.anonymize(child, image_seed=1)


def test_physical_extent_is_kept(anonymizer: Anonymizer) -> None:
    result = anonymizer.anonymize(ADULT, image_seed=1)
    assert result.spacing_mm is not None
    extent = [
        n * spacing for n, spacing in zip(result.pixels.shape, result.spacing_mm, strict=True)
    ]
    assert extent == pytest.approx([90 * 0.2, 70 * 0.2])
