"""Attributes of derived objects as data: what modules require, what does not hold of new pixels."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import (
    JPEG2000,
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    SecondaryCaptureImageStorage,
)


@dataclass(frozen=True)
class Kind:
    """One SOP class that is written.

    `stated` are attributes that its modules require with the value for a source that states none;
    `empty` are those that may be empty (type 2).
    """

    sop_class: UID
    stated: dict[str, str]
    empty: tuple[str, ...]


COMMON_STATED = {"BodyPartExamined": "CHEST"}
"""The gates let nothing else through."""

COMMON_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "SeriesNumber",
    "InstanceNumber",
    "PatientOrientation",
)
"""Type 2 of the modules Patient, General Study, General Series and General Image (PS3.3 C.7)."""

DX = Kind(
    DigitalXRayImageStorageForPresentation,
    # The chest is no paired part. Displayed grey goes with density, so with the logarithm.
    {"Modality": "DX", "ImageLaterality": "U", "PixelIntensityRelationship": "LOG"},
    ("Manufacturer", "DetectorType", "PositionerType", "AcquisitionContextSequence"),
)
CR = Kind(
    ComputedRadiographyImageStorage,
    {"Modality": "CR"},
    ("Manufacturer", "ViewPosition"),
)
SECONDARY_CAPTURE = Kind(
    SecondaryCaptureImageStorage, {"Modality": "OT", "ConversionType": "SYN"}, ()
)

KEPT_OF_GROUP_0028 = frozenset(
    {
        "PixelSpacing",
        "PixelAspectRatio",
        "PixelSpacingCalibrationType",
        "PixelSpacingCalibrationDescription",
        "QualityControlImage",
        "LongitudinalTemporalInformationModified",
        "PixelIntensityRelationship",
        "PartialView",
        "PartialViewDescription",
        "PartialViewCodeSequence",
        "LossyImageCompression",
        "LossyImageCompressionRatio",
        "LossyImageCompressionMethod",
    }
)
"""The rest of the group describes stored values: depth, padding, windows, tables, ranges."""

OF_THE_SOURCE_ALONE = (
    (0x00080012, 0x00080016),  # when and by whom the instance was created
    (0x00181400, 0x00181402),  # what the device did to the pixels
    (0x00181600, 0x00181721),  # shutter and collimator, in pixels of the source's matrix
    (0x00185020, 0x00185022),  # processing and postprocessing function
    (0x00600000, 0x00610000),  # histogram
    (0x00700000, 0x00710000),  # graphics
    (0x00880200, 0x00880201),  # icon
    (0x20100000, 0x20110000),  # how it was printed
    (0x20500000, 0x20510000),  # presentation tables
    (0x4FFE0000, 0x4FFF0000),  # what digital signatures cover
    (0x50000000, 0x51000000),  # curves
    (0x52000000, 0x53000000),  # functional groups
    (0x60000000, 0x61000000),  # overlays
    (0x7FE00000, 0x7FE10000),  # pixels
    (0xFFFA0000, 0xFFFFFFFF),  # digital signatures, trailing padding
)
"""First tag, and the one after the last, of what does not hold of other pixels."""

COMPRESSION_METHODS = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
}
"""Defined terms of PS3.3 C.7.6.1.1.5.1 for transfer syntaxes that can lose something."""
