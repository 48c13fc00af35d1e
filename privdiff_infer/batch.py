"""Many images: each becomes a row, whatever happens to it; a stopped run continues."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
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
from privdiff_infer.image_files import OutputFormat, encode_image
from privdiff_infer.journal import Figures, Journal, Outcome
from privdiff_infer.radiograph import Radiograph, read_radiograph
from privdiff_infer.release import (
    OutputFolders,
    Review,
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
from privdiff_infer.workers import WorkerPool

if TYPE_CHECKING:
    from privdiff_infer.anonymizer import AnonymizedImage

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
    """

    out: Path
    seed: str
    output_format: OutputFormat

    @property
    def folders(self) -> OutputFolders:
        """The folders below OUT."""
        return OutputFolders(self.out)


AnonymizerFactory = Callable[[], ImageAnonymizer]
StepProgress = Callable[[int, int], None]


def run_batch(
    sources: Sequence[Path],
    batch: Batch,
    journal: Journal,
    factory: AnonymizerFactory,
    workers: int = 1,
    step_progress: StepProgress | None = None,
) -> Generator[Outcome, None, None]:
    """Yield one outcome per source as they are reached, and keep them in the journal.

    Outcomes that the journal already has and that still hold (see `Journal.settle`) are yielded
    first and not done again. However this ends, every result on disk has a row in the journal.

    Parameters
    ----------
    sources
        Files.
    batch
        Folder, seed and format.
    journal
        Of this folder.
    factory
        Builds the anonymizer; must be picklable if `workers` is above 1.
    workers
        Number of processes; 1 runs in this one.
    step_progress
        Called with (steps done, steps in all) of the image in work, if there is one process.
    """
    if workers < 1:
        raise OptionError(f"{workers} workers cannot work", "give a number from 1")
    settled = journal.settle(sources)
    todo = [path for path in sources if path not in journal]
    try:
        yield from settled
        if workers == 1:
            yield from _in_this_process(todo, batch, journal, factory, step_progress)
        else:
            yield from _in_processes(todo, batch, journal, factory, workers)
    finally:
        discard_results_without_row(batch.folders, journal.outputs)


def anonymize_file(
    path: Path, batch: Batch, anonymizer: ImageAnonymizer, progress: StepProgress | None = None
) -> Outcome:
    """Do one file; every error that it can cause becomes its row."""
    radiograph: Radiograph | None = None
    try:
        _check_is_no_folder(path)
        radiograph = read_radiograph(path)
        seed = image_seed(batch.seed, radiograph.digest)
        result = anonymizer.anonymize(radiograph, seed, progress)
        return _write(path, radiograph, seed, result, batch)
    except Exception as error:  # one bad file never stops a batch
        return _without_result(path, radiograph, _explained(error))


def _check_is_no_folder(path: Path) -> None:
    # `find_sources` names the files of a folder, and the folder itself if it cannot be listed.
    if os.path.isdir(path):
        raise ImageRejected("the folder cannot be listed", "give permission to read it")


def _write(
    path: Path, radiograph: Radiograph, seed: int, result: AnonymizedImage, batch: Batch
) -> Outcome:
    """Write the result, then the pictures of it; what an error leaves goes when the batch ends."""
    name = release_name(seed)
    output_format = batch.output_format.for_source(radiograph.source_format)
    held = result.held_reason is not None
    target = (
        batch.folders.held if held else batch.folders.images
    ) / f"{name}{output_format.suffix}"
    content = encode_image(result.pixels, result.spacing_mm, output_format)
    sha256 = write_private(target, content) if held else write_released(target, content)
    if not held and output_format is OutputFormat.NRRD:
        _write_preview(batch.folders, target, result)
    write_review_pictures(
        batch.folders.review, name, radiograph.pixels, result.pixels, result.text.boxes
    )
    row = Row(
        source=str(path),
        sop_instance_uid=radiograph.sop_instance_uid or "",
        output=target.relative_to(batch.out).as_posix(),
        sha256=sha256,
        status=Status.HELD if held else Status.RELEASED,
        reason=result.held_reason or "",
        review=Review.PENDING,
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


def _write_preview(folders: OutputFolders, target: Path, result: AnonymizedImage) -> None:
    with reporting_disk_errors():
        folders.previews.mkdir(exist_ok=True)
    preview = folders.release / preview_name(target.relative_to(folders.release))
    write_released(preview, encode_image(result.pixels, None, OutputFormat.PNG))


def _without_result(path: Path, radiograph: Radiograph | None, error: PrivDiffError) -> Outcome:
    status = Status.HELD if isinstance(error, ImageHeld) else Status.FAILED
    if radiograph:
        uid, digest = radiograph.sop_instance_uid or "", radiograph.digest
    else:
        uid, digest = error.sop_instance_uid if isinstance(error, ImageError) else "", ""
    return Outcome.without_result(str(path), status, error, uid, digest)


def _explained(error: Exception) -> PrivDiffError:
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
    paths: Sequence[Path],
    batch: Batch,
    journal: Journal,
    factory: AnonymizerFactory,
    progress: StepProgress | None,
) -> Iterator[Outcome]:
    if not paths:
        return
    anonymizer = factory()
    for path in paths:
        yield journal.add(anonymize_file(path, batch, anonymizer, progress))


def _in_processes(
    paths: Sequence[Path],
    batch: Batch,
    journal: Journal,
    factory: AnonymizerFactory,
    workers: int,
) -> Iterator[Outcome]:
    with WorkerPool(partial(_job, factory, batch), min(workers, len(paths))) as pool:
        try:
            for path, outcome in pool.results(paths):
                yield journal.add(outcome or _died(path))
        finally:
            for _, outcome in pool.drain():
                journal.add(outcome)


def _job(factory: AnonymizerFactory, batch: Batch) -> Callable[[Path], Outcome]:
    return partial(anonymize_file, batch=batch, anonymizer=factory())


def _died(path: Path) -> Outcome:
    error = ImageRejected("the worker process died on this image", "check the file and the memory")
    return _without_result(path, None, error)
