"""An anonymized image as a DICOM object: derived DX (For Presentation), CR or Secondary Capture.

The attributes of the source go through the confidentiality profile first; what describes the new
pixels and how they came about is added afterwards, for the profile would remove it (PS3.15 E.3).
What was said of the source's stored values does not hold of the new ones, and is not kept.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom import DataElement, Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from privdiff_infer import __version__
from privdiff_infer.burned_in_text import TextState
from privdiff_infer.dicom.confidentiality import ConfidentialityProfile, Option
from privdiff_infer.dicom.derived_attributes import (
    COMMON_EMPTY,
    COMMON_STATED,
    COMPRESSION_METHODS,
    CR,
    DX,
    KEPT_OF_GROUP_0028,
    OF_THE_SOURCE_ALONE,
    SECONDARY_CAPTURE,
    Kind,
)
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.file_formats import SourceFormat
from privdiff_infer.radiograph import Radiograph
from privdiff_infer.readers.dicom_header import SPACINGS, spacing, text
from privdiff_infer.readers.quiet import silent_pydicom
from privdiff_infer.vocabulary import Profile

if TYPE_CHECKING:
    from privdiff_infer.anonymizer import AnonymizedImage

BITS = 12
"""Bits of a stored value: more grey levels than the networks tell apart and than displays show, at
the depth that every viewer and printer of CR and DX takes."""

LARGEST = 2**BITS - 1

SERIES_DESCRIPTION = "PrivDiff-Net: redrawn, not for diagnosis"


@dataclass(frozen=True)
class Derivation:
    """How results of a run come about; nothing of a person.

    Attributes
    ----------
    model, version, sha256
        Name, version and hash of the bundle.
    profile
        Way of sampling.
    strength
        That the run starts with; an image that failed a gate was redrawn with more.
    num_inference_steps
        Steps over the whole schedule.
    """

    model: str
    version: str
    sha256: str
    profile: Profile
    strength: float
    num_inference_steps: int


def stored_values(pixels: np.ndarray) -> np.ndarray:
    """Return what is stored.

    Parameters
    ----------
    pixels
        Shape (rows, columns), float32 in [0, 1], 0 = black = air.

    Returns
    -------
    numpy.ndarray
        Shape (rows, columns), little-endian uint16 from 0 to `LARGEST`.
    """
    return np.round(np.clip(pixels, 0, 1) * np.float32(LARGEST)).astype("<u2")


def derived_dataset(
    result: AnonymizedImage,
    source: Radiograph,
    profile: ConfidentialityProfile,
    pseudonyms: Pseudonyms,
    derivation: Derivation,
    image_seed: int,
) -> Dataset:
    """Return the object of a result, with its file meta information.

    A DX source becomes DX For Presentation, for its pixels have been through a display
    transformation, also where the source was For Processing; without the detector's pixel spacing,
    which DX requires, it becomes a Secondary Capture. CR stays CR; all else, also what is no DICOM
    file, is a Secondary Capture.

    Parameters
    ----------
    result
        The redrawn image. PatientIdentityRemoved is YES only if it was looked through for text.
    source
        What it was made from.
    profile
        Decides what of the source's attributes is kept.
    pseudonyms
        Of the same key, for the new UIDs.
    derivation
        How the image came about.
    image_seed
        Seed of the image; goes into the keyed UID alone.

    Returns
    -------
    pydicom.Dataset
        MONOCHROME2 of 12 bits. Equal arguments give equal bytes (see `encode_dicom`).
    """
    original = source.dataset
    if original is None:
        original = _attributes_of_file(source, pseudonyms)
    with silent_pydicom():
        dataset = profile.deidentify(
            original, pixels_checked=result.text.state is TextState.CHECKED
        )
        _remove_what_described_other_pixels(dataset)
        _correct_spacing(dataset, source.pixels.shape, result.pixels.shape)
        kind = _kind(dataset)
        _describe(dataset, kind)
        _write_pixels(dataset, stored_values(result.pixels))
        _state_compression(dataset, original)
        _state_derivation(dataset, derivation, result.strength)
        if Option.RETAIN_UIDS in profile.options:
            _name_source(dataset, original)
        if Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES in profile.options:
            dataset.RecognizableVisualFeatures = "NO"
        parameters = json.dumps([asdict(derivation), sorted(profile.options)], sort_keys=True)
        _identify(dataset, source, original, pseudonyms, parameters, image_seed)
    return dataset


def encode_dicom(dataset: Dataset) -> bytes:
    """Return the bytes of a DICOM file (PS3.10), Explicit VR Little Endian, with an empty preamble.

    Parameters
    ----------
    dataset
        Of `derived_dataset`.
    """
    buffer = BytesIO()
    with silent_pydicom():
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def without_burned_in_text(content: bytes) -> bytes:
    """Return a file whose BurnedInAnnotation is NO, as a person decided; all else stays.

    The SOP Instance UID stays too: the pixels are the same, and the file with YES is a draft that
    was never published, so that only one object of this UID ever leaves.

    Parameters
    ----------
    content
        Bytes of `encode_dicom`.
    """
    with silent_pydicom():
        dataset = pydicom.dcmread(BytesIO(content))
        dataset.BurnedInAnnotation = "NO"
    return encode_dicom(dataset)


def _attributes_of_file(source: Radiograph, pseudonyms: Pseudonyms) -> Dataset:
    """Return what a file that is no DICOM says; its hash, keyed, stands for patient and study."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = pseudonyms.instance_uid(source.digest)
    dataset.StudyInstanceUID = pseudonyms.instance_uid(source.digest, "study")
    dataset.SeriesInstanceUID = pseudonyms.instance_uid(source.digest, "series")
    dataset.PatientID = pseudonyms.patient_id(source.digest)
    dataset.PatientName = dataset.PatientID
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    if source.spacing_mm:
        dataset.PixelSpacing = [_decimal(value) for value in source.spacing_mm]
    if source.source_format is SourceFormat.JPEG:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = COMPRESSION_METHODS[JPEGBaseline8Bit]
    return dataset


def _remove_what_described_other_pixels(dataset: Dataset) -> None:
    for first, end in OF_THE_SOURCE_ALONE:
        del dataset[first:end]
    for element in dataset.group_dataset(0x0028):
        if element.keyword not in KEPT_OF_GROUP_0028:
            del dataset[element.tag]


def _correct_spacing(
    dataset: Dataset, source_shape: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    """Scale every distance of pixels to the new matrix: the physical extent stays.

    Each keeps its meaning (PS3.3 10.7.1.3): a spacing at the detector stays one, a calibrated one
    stays calibrated. What cannot be a spacing, such as 0, is removed.
    """
    for keyword in SPACINGS:
        found = spacing(dataset, keyword)
        if found is None:
            dataset.pop(keyword, None)
            continue
        scaled = (found[0] * source_shape[0] / shape[0], found[1] * source_shape[1] / shape[1])
        setattr(dataset, keyword, [_decimal(value) for value in scaled])
    if "PixelSpacing" not in dataset:
        dataset.pop("PixelSpacingCalibrationType", None)
        dataset.pop("PixelSpacingCalibrationDescription", None)


def _kind(dataset: Dataset) -> Kind:
    sop_class = dataset.get("SOPClassUID")
    if sop_class == ComputedRadiographyImageStorage:
        return CR
    digital = (DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing)
    if sop_class in digital and "ImagerPixelSpacing" in dataset:
        return DX
    return SECONDARY_CAPTURE


def _describe(dataset: Dataset, kind: Kind) -> None:
    """State what kind of object this is, and complete what its modules require."""
    dataset.SOPClassUID = kind.sop_class
    for keyword, value in {**COMMON_STATED, **kind.stated}.items():
        if text(dataset, keyword) is None:
            setattr(dataset, keyword, value)
    for keyword in COMMON_EMPTY + kind.empty:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    dataset.pop("PresentationIntentType", None)
    if kind is DX:
        dataset.PresentationIntentType = "FOR PRESENTATION"
        if not dataset.get("AnatomicRegionSequence"):  # empty only where it is not known
            dataset.AnatomicRegionSequence = [_code("816094009", "Chest", scheme="SCT")]
    dataset.ImageType = ["DERIVED", _secondary_or_primary(dataset)]
    dataset.SeriesDescription = SERIES_DESCRIPTION


def _secondary_or_primary(dataset: Dataset) -> str:
    """Return value 2 of ImageType (PS3.3 C.7.6.1.1.2) as the source has it.

    A third value names something that is specific to the source's IOD (for DX none, C.8.11.3.1.1).
    """
    words = (text(dataset, "ImageType") or "").split("\\")
    return "SECONDARY" if "SECONDARY" in words[1:2] else "PRIMARY"


def _write_pixels(dataset: Dataset, stored: np.ndarray) -> None:
    """Write the pixels and what a viewer needs of them: the whole range, white is dense."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, BITS, BITS - 1
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    # PS3.3 C.11.2.1.2.1: a LINEAR window c, w shows c - 0.5 - (w - 1) / 2 to c - 0.5 + (w - 1) / 2
    dataset.WindowCenter, dataset.WindowWidth = str((LARGEST + 1) // 2), str(LARGEST + 1)
    dataset.PresentationLUTShape = "IDENTITY"
    if "PixelIntensityRelationship" in dataset:
        dataset.PixelIntensityRelationshipSign = -1  # white, a high value, is little radiation
    dataset.BurnedInAnnotation = "YES"  # until a person says otherwise
    dataset.add(DataElement(0x7FE00010, "OW", stored.tobytes()))


def _state_compression(dataset: Dataset, original: Dataset) -> None:
    """What was lost once stays lost (PS3.3 C.7.6.1.1.5), though this object is not compressed."""
    stated = text(dataset, "LossyImageCompression")
    method = COMPRESSION_METHODS.get(original.file_meta.TransferSyntaxUID)
    if stated is None and method:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = method
    elif stated is None:
        dataset.LossyImageCompression = "00"


def _state_derivation(dataset: Dataset, derivation: Derivation, strength: float) -> None:
    # CID 7203 has no code for a generative model. SyntheticData is the flag of PS3.3 C.12.1.
    dataset.SyntheticData = "YES"
    dataset.DerivationDescription = (
        "Redrawn by a latent diffusion model that suppresses what identifies: "
        f"{derivation.model} {derivation.version}, weights {derivation.sha256[:16]}, "
        f"profile {derivation.profile.value}, strength {strength:g}, "
        f"{derivation.num_inference_steps} steps"
    )
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [_code("109104", "De-identifying Equipment")]
    equipment.Manufacturer = "PrivDiff-Net"
    equipment.ManufacturerModelName = derivation.model
    equipment.SoftwareVersions = __version__
    earlier = dataset.get("ContributingEquipmentSequence") or []
    dataset.ContributingEquipmentSequence = [*earlier, equipment]


def _name_source(dataset: Dataset, original: Dataset) -> None:
    item = Dataset()
    item.ReferencedSOPClassUID = original.SOPClassUID
    item.ReferencedSOPInstanceUID = original.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [
        _code("121322", "Source image for image processing operation")
    ]
    dataset.SourceImageSequence = [item]


def _identify(
    dataset: Dataset,
    source: Radiograph,
    original: Dataset,
    pseudonyms: Pseudonyms,
    parameters: str,
    image_seed: int,
) -> None:
    """Give the instance and its series keyed UIDs, also under Retain UIDs: they are new.

    One series holds what came of one series of the source with the same parameters. The UID of an
    instance depends on everything in it, the pixels too, so that no two ever share one.
    """
    instance = source.sop_instance_uid or source.digest
    study = text(original, "StudyInstanceUID")
    if study is None:
        dataset.StudyInstanceUID = pseudonyms.instance_uid(instance, "study")
    if text(dataset, "PatientID") is None:  # unknown patients are not all one patient
        dataset.PatientID = pseudonyms.patient_id(study or instance, issuer="study")
        dataset.PatientName = dataset.PatientID
    series = text(original, "SeriesInstanceUID") or instance
    dataset.SeriesInstanceUID = pseudonyms.instance_uid(series, "series", parameters)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    parts = (instance, parameters, str(image_seed))
    _name_instance(dataset, pseudonyms.instance_uid(*parts))
    content = hashlib.sha256(encode_dicom(dataset)).hexdigest()
    _name_instance(dataset, pseudonyms.instance_uid(*parts, content))


def _name_instance(dataset: Dataset, uid: str) -> None:
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)


def _code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    """Return an item of a code sequence; the scheme is the standard's own, or SNOMED CT (SCT)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _decimal(value: float) -> str:
    """Return ten digits, which fit into a decimal string (PS3.5 6.2: at most 16 characters)."""
    return f"{value:.10g}"
