"""Sources of every kind and results of them, for tests of derived objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)

from privdiff_infer.anonymizer import AnonymizedImage
from privdiff_infer.burned_in_text import TextState, TextStep
from privdiff_infer.dicom.confidentiality import ConfidentialityProfile, Option
from privdiff_infer.dicom.derived import Derivation, derived_dataset
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.gates import ResultChecks
from privdiff_infer.radiograph import Radiograph, read_radiograph
from privdiff_infer.vocabulary import Profile
from tests.unit.dicom_factory import coded, dicom_bytes, radiograph_dataset, ramp

PSEUDONYMS = Pseudonyms(b"a key of tests, which are no secret")
DERIVATION = Derivation("tiny", "1.0", "ab" * 32, Profile.STANDARD, 0.7, 20)
SHAPE = (48, 40)

GENERAL: dict[str, Any] = {
    "StudyInstanceUID": "1.2.826.0.1.3680043.1",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.2",
    "StudyDate": "20200131",
    "StudyTime": "101112",
    "AccessionNumber": "ACC-4711",
    "ReferringPhysicianName": "House^Gregory",
    "StudyID": "STUDY-4711",
    "SeriesNumber": 2,
    "InstanceNumber": 3,
    "PatientBirthDate": "19570312",
    "PatientSex": "F",
    "PatientOrientation": ["L", "F"],
    "Manufacturer": "Maker",
    "ImageType": ["ORIGINAL", "PRIMARY"],
}


def computed(**attributes: Any) -> FileDataset:
    """Return a complete Computed Radiography object."""
    return radiograph_dataset(ramp(), **GENERAL | attributes)


def captured(**attributes: Any) -> FileDataset:
    """Return a complete Secondary Capture object."""
    kind = {"SOPClassUID": SecondaryCaptureImageStorage, "ConversionType": "WSD"}
    return radiograph_dataset(ramp(), **GENERAL | kind | attributes)


def digital(**attributes: Any) -> FileDataset:
    """Return a complete DX object."""
    kind = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "ImagerPixelSpacing": [0.5, 0.5],
        "ImageLaterality": "U",
        "AnatomicRegionSequence": coded("51185008", "SCT", "Chest"),
        "ViewCodeSequence": coded("399348003", "SCT", "postero-anterior"),
        "DetectorType": "DIRECT",
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": -1,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
        "PresentationLUTShape": "IDENTITY",
        "LossyImageCompression": "00",
        "BurnedInAnnotation": "NO",
        "AcquisitionContextSequence": [],
        "PixelSpacing": None,
    }
    return radiograph_dataset(ramp(), **GENERAL | kind | attributes)


SOURCES = {
    ComputedRadiographyImageStorage: computed,
    DigitalXRayImageStorageForPresentation: digital,
    SecondaryCaptureImageStorage: captured,
}


def read(dataset: FileDataset, folder: Path) -> Radiograph:
    """Write a file and read it as any source is read."""
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    path = folder / "source.dcm"
    path.write_bytes(dicom_bytes(dataset))
    return read_radiograph(path)


def result_of(
    source: Radiograph,
    shape: tuple[int, int] = SHAPE,
    seed: int = 0,
    text_state: TextState = TextState.UNCHECKED,
) -> AnonymizedImage:
    """Return random pixels of the physical extent of a source, from black to white."""
    pixels = np.random.default_rng(seed).random(shape, np.float32)
    pixels.flat[:2] = 0, 1
    spacing = source.spacing_mm
    if spacing:
        rows, columns = source.pixels.shape
        spacing = (spacing[0] * rows / shape[0], spacing[1] * columns / shape[1])
    checks = ResultChecks(0.1, 1.0, 5.0, 0.01, 0.2, has_text=False)
    return AnonymizedImage(pixels, spacing, checks, {}, {}, 0.7, 1, TextStep(text_state), ())


def derive(
    source: Radiograph,
    result: AnonymizedImage | None = None,
    *,
    options: frozenset[Option] = frozenset(),
    pseudonyms: Pseudonyms = PSEUDONYMS,
    image_seed: int = 1,
    **derivation: Any,
) -> Dataset:
    """Return the derived object of a source."""
    return derived_dataset(
        result or result_of(source),
        source,
        ConfidentialityProfile(pseudonyms, options),
        pseudonyms,
        replace(DERIVATION, **derivation),
        image_seed,
    )
