"""Many images: each becomes a row, whatever happens to it; a stopped run continues."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from privdiff_infer.errors import (
    ImageError,
    ImageHeld,
    ImageRejected,
    OptionError,
    OutputError,
    PrivDiffError,
)
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.image_files import encode_image
from privdiff_infer.journal import Figures, Journal, Outcome
from privdiff_infer.radiograph import Radiograph, decode_radiograph
from privdiff_infer.release import (
    OutputFolders,
    Row,
    Status,
    discard_results_without_row,
    preview_name,
    reporting_disk_errors,
    write_private,
    write_released,
)
from privdiff_infer.review_pictures import write_review_pictures
from privdiff_infer.seeds import image_seed, release_name
from privdiff_infer.sources import Source, read_source

if TYPE_CHECKING:
    from privdiff_infer.anonymizer import AnonymizedImage
    from privdiff_infer.cluster import Workers
    from privdiff_infer.dicom.output import DicomEncoder, DicomOutput
    from privdiff_infer.out_probe import RemoteWorkers

logger = logging.getLogger(__name__)

HELD_RESULT = "the result did not pass the output gates; see private/review.html"
"""The reason that leaves: the private one tells how similar the result is to its source."""


class ImageAnonymizer(Protocol):
    """What a batch needs of an anonymizer; see `anonymizer.Anonymizer`."""

    def anonymize(
        self,
        radiograph: Radiograph,
        image_seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> AnonymizedImage:
        """Redraw one radiograph."""


@dataclass(frozen=True)
class Batch:
    """What all images of a run have in common.

    Attributes
    ----------
    out
        Folder of the run.
    seed
        Seed of the run (see `seeds.run_seed`).
    output_format
        Format of results.
    dicom
        What DICOM results need; None if the format has none.
    """

    out: Path
    seed: str
    output_format: OutputFormat
    dicom: DicomOutput | None = None

    @property
    def folders(self) -> OutputFolders:
        """The folders below OUT."""
        return OutputFolders(self.out)

    def encoder(self) -> DicomEncoder | None:
        """Read the key, if DICOM is written."""
        return self.dicom.encoder() if self.dicom else None


AnonymizerFactory = Callable[[], ImageAnonymizer]
StepProgress = Callable[[int, int], None]
Job = Callable[[Source], Outcome]


def run_batch(
    sources: Sequence[Source],
    batch: Batch,
    journal: Journal,
    factory: AnonymizerFactory,
    workers: int = 1,
    step_progress: StepProgress | None = None,
    remote: RemoteWorkers | None = None,
) -> Generator[Outcome, None, None]:
    """Yield one outcome per source as they are reached, and keep them in the journal.

    Sources are given out a few at a time, and what is done is kept on the disk, so that memory does
    not grow with their number. Workers write results; this process alone tells journal and audit
    log of them. Outcomes that the journal already has and that still hold (see `Journal.settle`)
    are yielded first and not done again. However this ends, every result on disk has a row in the
    journal.

    Parameters
    ----------
    sources
        Files and instances.
    batch
        Folder, seed and format.
    journal
        Of this folder.
    factory
        Builds the anonymizer; must be picklable unless one process does it all.
    workers
        Number of processes on this machine; 1 runs in this one.
    step_progress
        Called with (steps done, steps in all) of the image in work, if there is one process.
    remote
        Workers elsewhere that do it instead.
    """
    alone = workers == 1 and remote is None
    progress = step_progress if alone else None  # it cannot be sent to processes
    make_job = partial(_job, factory, batch, progress)
    return run_jobs(sources, batch.folders, journal, make_job, workers, remote)


def run_jobs(
    sources: Sequence[Source],
    folders: OutputFolders,
    journal: Journal,
    make_job: Callable[[], Job],
    workers: int,
    remote: RemoteWorkers | None = None,
) -> Generator[Outcome, None, None]:
    """Yield one outcome per source as `run_batch` does, by any job that turns a source into one.

    Parameters
    ----------
    sources, journal, workers, remote
        As in `run_batch`.
    folders
        Of the run.
    make_job
        Called once in each process, and not where there is nothing to do; must be picklable unless
        one process does it all.
    """
    if workers < 1:
        raise OptionError(f"{workers} workers cannot work", "give a number from 1")
    if workers > 1 and remote:
        raise OptionError(
            "--workers starts processes here, and --scheduler has its own", "give one of them"
        )
    journal.settle(sources)
    left = sum(source not in journal for source in sources)
    todo = (source for source in sources if source not in journal)
    try:
        yield from journal.of(sources)
        if left and remote:
            yield from _in_workers_elsewhere(todo, journal, make_job, remote)
        elif left and workers > 1:
            yield from _in_own_workers(todo, journal, make_job, min(workers, left))
        elif left:
            yield from _in_this_process(todo, journal, make_job)
    finally:
        discard_results_without_row(folders, journal.outputs)


def anonymize_source(
    source: Source,
    batch: Batch,
    anonymizer: ImageAnonymizer,
    encoder: DicomEncoder | None,
    progress: StepProgress | None = None,
) -> Outcome:
    """Do one source; every error that it can cause becomes its row."""
    radiograph: Radiograph | None = None
    try:
        radiograph = decode_radiograph(read_source(source))
        seed = image_seed(batch.seed, radiograph.digest)
        result = anonymizer.anonymize(radiograph, seed, progress)
        return _write(source, radiograph, seed, result, batch, encoder)
    except Exception as error:  # one bad file never stops a batch
        return _without_result(source, radiograph, explained(error))


def _write(
    source: Source,
    radiograph: Radiograph,
    seed: int,
    result: AnonymizedImage,
    batch: Batch,
    encoder: DicomEncoder | None,
) -> Outcome:
    """Write the result, then the pictures of it; what an error leaves goes when the batch ends."""
    name = release_name(seed)
    output_format = batch.output_format.for_source(radiograph.source_format)
    held = result.held_reason is not None
    target = (
        batch.folders.held if held else batch.folders.images
    ) / f"{name}{output_format.suffix}"
    if output_format is OutputFormat.DICOM:
        content = _dicom_file(radiograph, seed, result, encoder)
    else:
        content = encode_image(result.pixels, result.spacing_mm, output_format)
    sha256 = write_private(target, content) if held else write_released(target, content)
    if not held and target.suffix != ".png":
        _write_preview(batch.folders, target, result)
    write_review_pictures(
        batch.folders.review, name, radiograph.pixels, result.pixels, result.text.boxes
    )
    row = Row(
        source=str(source),
        sop_instance_uid=radiograph.sop_instance_uid or "",
        output=target.relative_to(batch.out).as_posix(),
        sha256=sha256,
        status=Status.HELD if held else Status.RELEASED,
        reason=result.held_reason or "",
    )
    figures = Figures(
        result.identity_similarity,
        result.findings_before,
        result.findings_after,
        result.strength,
        result.attempts,
        result.text.state,
        len(result.text.boxes),
        result.text.redrawn,
    )
    return Outcome(row, HELD_RESULT if held else "", radiograph.digest, figures)


def _dicom_file(
    radiograph: Radiograph, seed: int, result: AnonymizedImage, encoder: DicomEncoder | None
) -> bytes:
    if encoder is None:
        raise OptionError("this run cannot write DICOM files", "give the batch a DicomOutput")
    return encoder.encode(result, radiograph, seed)


def _write_preview(folders: OutputFolders, target: Path, result: AnonymizedImage) -> None:
    with reporting_disk_errors():
        folders.previews.mkdir(exist_ok=True)
    preview = folders.release / preview_name(target.relative_to(folders.release))
    write_released(preview, encode_image(result.pixels, None, OutputFormat.PNG))


def _without_result(source: Source, radiograph: Radiograph | None, error: PrivDiffError) -> Outcome:
    status = Status.HELD if isinstance(error, ImageHeld) else Status.FAILED
    if radiograph:
        uid, digest = radiograph.sop_instance_uid or "", radiograph.digest
    else:
        uid, digest = error.sop_instance_uid if isinstance(error, ImageError) else "", ""
    return Outcome.without_result(str(source), status, error, uid, digest)


def explained(error: Exception) -> PrivDiffError:
    """Return what an error means for the source that caused it."""
    if isinstance(error, (ImageError, OutputError)):
        return error
    if isinstance(error, MemoryError):
        return ImageRejected("not enough memory", "use fewer workers or a smaller image")
    if _is_device_memory_error(error):
        return ImageRejected(
            "not enough memory on the device",
            "use fewer workers, --precision bfloat16 or --device cpu",
        )
    # Frames only: the message of an unforeseen error can quote the header.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.debug("unexpected %s\n%s", type(error).__name__, frames)
    return ImageRejected(f"unexpected {type(error).__name__}", "run with --verbose and report it")


def _is_device_memory_error(error: Exception) -> bool:
    from torch import OutOfMemoryError  # slow to import, and needed after an error only

    return isinstance(error, OutOfMemoryError)


def _in_this_process(
    sources: Iterable[Source], journal: Journal, make_job: Callable[[], Job]
) -> Iterator[Outcome]:
    job = make_job()
    for source in sources:
        yield journal.add(job(source))


def _in_own_workers(
    sources: Iterable[Source], journal: Journal, make_job: Callable[[], Job], count: int
) -> Iterator[Outcome]:
    from privdiff_infer.cluster import own_workers  # slow to import

    with own_workers(count) as workers:
        yield from _in_workers(sources, journal, make_job, workers, _nothing)


def _in_workers_elsewhere(
    sources: Iterable[Source], journal: Journal, make_job: Callable[[], Job], remote: RemoteWorkers
) -> Iterator[Outcome]:
    from privdiff_infer.cluster import workers_of  # slow to import

    with workers_of(remote.scheduler) as workers:
        yield from _in_workers(sources, journal, make_job, workers, remote.probe.check)


def _in_workers(
    sources: Iterable[Source],
    journal: Journal,
    make_job: Callable[[], Job],
    workers: Workers,
    check: Callable[[], None],
) -> Iterator[Outcome]:
    from privdiff_infer.job_keeper import JobKeeper  # slow to import

    with JobKeeper(workers, make_job, check) as keeper:
        try:
            for source, outcome in keeper.results(sources):
                yield journal.add(outcome or _died(source))
        finally:
            for _, outcome in keeper.drain():
                journal.add(outcome)


def _nothing() -> None:
    """Check nothing: processes of this machine see what this one sees."""


def _job(factory: AnonymizerFactory, batch: Batch, progress: StepProgress | None) -> Job:
    """Load the model and read the key, in the process that will use them."""
    return partial(
        anonymize_source,
        batch=batch,
        anonymizer=factory(),
        encoder=batch.encoder(),
        progress=progress,
    )


def _died(source: Source) -> Outcome:
    error = ImageRejected("the worker process died on this image", "check the file and the memory")
    return _without_result(source, None, error)
