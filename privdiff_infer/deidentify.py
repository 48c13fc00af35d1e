"""Header and burned-in text only, of DICOM objects of any kind: nothing is redrawn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import Dataset

from privdiff_infer import __version__
from privdiff_infer.batch import explained, run_jobs
from privdiff_infer.burned_in_text import UNAVAILABLE
from privdiff_infer.dicom.burned_in import has_pixels, remove_burned_in_text
from privdiff_infer.dicom.confidentiality import ConfidentialityProfile
from privdiff_infer.dicom.profile_table import Option
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import (
    ImageError,
    ImageHeld,
    ImageRejected,
    OptionError,
    OutputError,
    PrivDiffError,
)
from privdiff_infer.journal import Outcome
from privdiff_infer.out_probe import OutProbe, RemoteWorkers
from privdiff_infer.readers.dicom import parse, recognizes
from privdiff_infer.readers.dicom_header import text
from privdiff_infer.readers.quiet import silent_pydicom
from privdiff_infer.records import DEIDENTIFY
from privdiff_infer.release import OutputFolders, Row, Status, write_released
from privdiff_infer.run_folder import HeldRun
from privdiff_infer.seeds import image_seed, release_name
from privdiff_infer.sources import Source, read_source

if TYPE_CHECKING:
    from privdiff_infer.burned_in_text import TextDetector

TEXT_UNCHECKED = "burned-in text was not looked for"
NOT_COMPOSITE = ("this DICOM file names no SOP class or instance", "export it again")
SUFFIX = ".dcm"


@dataclass(frozen=True)
class DeidentifyOptions:
    """What a user asks of one run.

    Attributes
    ----------
    out
        Folder of the run.
    options
        Of the confidentiality profile.
    accept_unchecked_text
        Whether images whose pixels cannot be searched for text are released all the same.
    workers
        Number of processes on this machine.
    scheduler
        Address of a dask scheduler whose workers do it instead; empty: none.
    resume
        Whether to continue an earlier run in `out`.
    """

    out: Path
    options: frozenset[Option] = frozenset()
    accept_unchecked_text: bool = False
    workers: int = 1
    scheduler: str = ""
    resume: bool = False


class Deidentification(HeldRun):
    """A run whose options are checked and whose folders exist; a context manager as `run.Run`.

    Raises
    ------
    OptionError
        If options exclude each other, or differ from those of the run that is continued.
    OutputError
        If the folder is in use or cannot be written.
    AuditError
        If the audit log of the run that is continued was changed.
    SecretError
        If there is no usable key.
    """

    def __init__(self, options: DeidentifyOptions) -> None:
        if Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES in options.options:
            raise OptionError(
                "nothing is redrawn here, so whom the pixels show stays recognizable",
                "leave out --clean recognizable-visual-features, or use privdiff anonymize",
            )
        self.options = options
        pseudonyms = Pseudonyms.load()
        self.key_fingerprint = pseudonyms.fingerprint
        ConfidentialityProfile(pseudonyms, options.options)  # before a folder is made
        super().__init__(options.out, self._decisions(), None, resume=options.resume)

    def outcomes(self, sources: Sequence[Source]) -> Generator[Outcome, None, None]:
        """Yield one outcome per source; see `batch.run_jobs`."""
        options = replace(self.options, out=self.options.out.absolute())
        make_job = partial(_job, options, self.seed)
        remote = None
        if options.scheduler:
            probe = OutProbe.of(self.folders, self.key_fingerprint)
            remote = RemoteWorkers(options.scheduler, probe)
        return run_jobs(sources, self.folders, self.journal, make_job, options.workers, remote)

    def _decisions(self) -> dict[str, Any]:
        return {
            "command": DEIDENTIFY,
            "options": sorted(option.value for option in self.options.options),
            "accept_unchecked_text": self.options.accept_unchecked_text,
            "key_fingerprint": self.key_fingerprint,
            "software": f"privdiff {__version__}",
        }


class Deidentifier:
    """Turns the bytes of one DICOM file into those of another that names nobody.

    Parameters
    ----------
    profile
        What is done to the header.
    detector
        Finds burned-in text; None if it does not load.
    accept_unchecked_text
        Whether images whose pixels cannot be searched pass, with PatientIdentityRemoved NO.
    """

    def __init__(
        self,
        profile: ConfidentialityProfile,
        detector: TextDetector | None,
        *,
        accept_unchecked_text: bool = False,
    ) -> None:
        self._profile = profile
        self._detector = detector
        self._accepts_unchecked_text = accept_unchecked_text

    def deidentify(self, content: bytes) -> Deidentified:
        """Return the new file.

        Raises
        ------
        ImageRejected
            If the file is no DICOM object, or damaged.
        ImageHeld
            If its pixels cannot be searched for text, or text stays in them.
        """
        instance_uid = ""
        try:
            with silent_pydicom():
                dataset = _read(content)
                instance_uid = text(dataset, "SOPInstanceUID") or ""
                checked = self._without_text(dataset)
                result = self._profile.deidentify(dataset, pixels_checked=checked)
                _check_pixels(dataset, result)
                return Deidentified(_file(result), instance_uid, checked)
        except ImageError as error:
            error.sop_instance_uid = instance_uid
            raise
        except Exception as error:  # pydicom raises whatever the bytes lead to
            rejected = _explained(error)
            rejected.sop_instance_uid = instance_uid
            raise rejected from error

    def _without_text(self, dataset: Dataset) -> bool:
        """Remove burned-in text; tell whether that could be done."""
        if not has_pixels(dataset):
            return True
        try:
            if self._detector is None:
                raise ImageHeld(*UNAVAILABLE)
            remove_burned_in_text(dataset, self._detector)
        except ImageHeld:
            if not self._accepts_unchecked_text:
                raise
            return False
        return True


@dataclass(frozen=True)
class Deidentified:
    """A new file; `sop_instance_uid` is that of its source, which is private."""

    content: bytes
    sop_instance_uid: str
    text_checked: bool


def _job(options: DeidentifyOptions, seed: str) -> Callable[[Source], Outcome]:
    """Read the key and load the detector, in the process that will use them."""
    deidentifier = Deidentifier(
        ConfidentialityProfile(Pseudonyms.load(), options.options),
        _text_detector(),
        accept_unchecked_text=options.accept_unchecked_text,
    )
    return partial(
        _deidentify_source, deidentifier=deidentifier, folders=OutputFolders(options.out), seed=seed
    )


def _deidentify_source(
    source: Source, deidentifier: Deidentifier, folders: OutputFolders, seed: str
) -> Outcome:
    """Do one source; every error that it can cause becomes its row."""
    digest = ""
    try:
        content = read_source(source)
        digest = hashlib.sha256(content).hexdigest()
        result = deidentifier.deidentify(content)
        target = folders.images / f"{release_name(image_seed(seed, digest))}{SUFFIX}"
        sha256 = write_released(target, result.content)
    except Exception as error:  # one bad file never stops a batch
        return _without_result(source, digest, explained(error))
    output = target.relative_to(folders.root).as_posix()
    reason = "" if result.text_checked else TEXT_UNCHECKED
    row = Row(str(source), result.sop_instance_uid, output, sha256, Status.RELEASED, reason)
    return Outcome(row, reason, digest)


def _without_result(source: Source, digest: str, error: PrivDiffError) -> Outcome:
    status = Status.HELD if isinstance(error, ImageHeld) else Status.FAILED
    uid = error.sop_instance_uid if isinstance(error, ImageError) else ""
    if isinstance(error, OutputError):
        digest = ""  # the source is not at fault
    return Outcome.without_result(str(source), status, error, uid, digest)


def _read(content: bytes) -> Dataset:
    if not recognizes(content):
        raise ImageRejected("this is no DICOM file", "name DICOM files only")
    dataset = parse(content)
    if "DirectoryRecordSequence" in dataset:
        raise ImageRejected("this is a DICOMDIR, an index and not an image", "name its images")
    if not text(dataset, "SOPClassUID") or not text(dataset, "SOPInstanceUID"):
        raise ImageRejected(*NOT_COMPOSITE)
    return dataset


def _check_pixels(source: Dataset, result: Dataset) -> None:
    """Refuse images without pixels, which cut files and pixels of a wrong VR become."""
    if ("Rows" in source or has_pixels(source)) and not has_pixels(result):
        raise ImageRejected("the pixels are missing or damaged", "export the file again")


def _file(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _explained(error: Exception) -> ImageRejected:
    if isinstance(error, RecursionError):
        return ImageRejected("sequences are nested too deep", "check how the file was made")
    if isinstance(error, MemoryError):
        return ImageRejected("not enough memory for the file", "free memory")
    return ImageRejected(
        "the DICOM file is damaged", "export it again", detail=type(error).__name__
    )


def _text_detector() -> TextDetector | None:
    """Return the detector, or None if it does not load: images are held then, with the reason."""
    try:
        from privdiff_infer.burned_in_text import RapidTextDetector

        return RapidTextDetector(fine=True)
    except (ImportError, PrivDiffError):
        return None
