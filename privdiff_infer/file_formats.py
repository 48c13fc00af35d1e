"""Which files are read, and which are written."""

from __future__ import annotations

from enum import Enum


class SourceFormat(str, Enum):
    """File family of a source."""

    DICOM = "dicom"
    PNG = "png"
    JPEG = "jpeg"
    NIFTI = "nifti"
    NRRD = "nrrd"


class OutputFormat(str, Enum):
    """File format of results; `auto` writes DICOM for DICOM, NRRD for volumes, else 8-bit PNG."""

    AUTO = "auto"
    PNG = "png"
    PNG16 = "png16"
    NRRD = "nrrd"
    DICOM = "dicom"

    def for_source(self, source: SourceFormat) -> OutputFormat:
        """Return the format that `auto` means for a source."""
        if self is not OutputFormat.AUTO:
            return self
        return AUTOMATIC[source]

    @property
    def suffix(self) -> str:
        """File name suffix."""
        return {OutputFormat.NRRD: ".nrrd", OutputFormat.DICOM: ".dcm"}.get(self, ".png")

    @property
    def may_be_dicom(self) -> bool:
        """Whether a run can write DICOM files, which need the key."""
        return self in (OutputFormat.AUTO, OutputFormat.DICOM)


AUTOMATIC = {
    SourceFormat.DICOM: OutputFormat.DICOM,
    SourceFormat.PNG: OutputFormat.PNG,
    SourceFormat.JPEG: OutputFormat.PNG,
    SourceFormat.NIFTI: OutputFormat.NRRD,
    SourceFormat.NRRD: OutputFormat.NRRD,
}
"""What `auto` means."""
