"""Many images: each becomes a row, whatever happens to it; a stopped run continues."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from privdiff_infer.errors import ImageHeld, ImageRejected, OptionError, OutputError
from privdiff_infer.image_files import OutputFormat, encode_image
from privdiff_infer.radiograph import Radiograph, read_radiograph
from privdiff_infer.release import (
    OutputFolders,
    Review,
    Row,
    Status,
    preview_name,
    reporting_disk_errors,
    write_atomically,
)
from privdiff_infer.review_pictures import write_review_pictures
from privdiff_infer.seeds import image_seed, release_name

if TYPE_CHECKING:
    from privdiff_infer.anonymizer import AnonymizedImage

logger = logging.getLogger(__name__)


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
class Figures:
    """What was measured on one redrawn image."""

    identity_similarity: float
    findings_before: dict[str, float]
    findings_after: dict[str, float]
    strength: float
    attempts: int


@dataclass(frozen=True)
class Outcome:
    """One finished source: its row, and its figures if it was redrawn."""

    row: Row
    figures: Figures | None

    def to_json(self) -> str:
        """Return one line of the journal."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Outcome:
        """Read one line of the journal."""
        record = json.loads(line)
        row = record["row"] | {
            "status": Status(record["row"]["status"]),
            "review": Review(record["row"]["review"]),
        }
        figures = record["figures"]
        return cls(Row(**row), Figures(**figures) if figures else None)


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
    factory: AnonymizerFactory,
    workers: int = 1,
    step_progress: StepProgress | None = None,
) -> Iterator[Outcome]:
    """Yield one outcome per source as they are reached, and keep them in the journal.

    Sources that the journal already has, with output bytes that still match, are yielded first and
    not done again.

    Parameters
    ----------
    sources
        Files.
    batch
        Folder, seed and format.
    factory
        Builds the anonymizer; must be picklable if `workers` is above 1.
    workers
        Number of processes; 1 runs in this one.
    step_progress
        Called with (steps done, steps in all) of the image in work, if there is one process.
    """
    if workers < 1:
        raise OptionError(f"{workers} workers cannot work", "give a number from 1")
    done = _journalled(batch.folders)
    yield from (done[str(path)] for path in sources if str(path) in done)
    todo = [path for path in sources if str(path) not in done]
    if not todo:
        return
    with reporting_disk_errors(), batch.folders.journal.open("a", encoding="utf-8") as journal:
        outcomes = (
            _in_this_process(todo, batch, factory, step_progress)
            if workers == 1
            else _in_processes(todo, batch, factory, workers)
        )
        for outcome in outcomes:
            journal.write(outcome.to_json() + "\n")
            journal.flush()
            yield outcome


def anonymize_file(
    path: Path, batch: Batch, anonymizer: ImageAnonymizer, progress: StepProgress | None = None
) -> Outcome:
    """Do one file; every error that it can cause becomes its row."""
    radiograph: Radiograph | None = None
    try:
        radiograph = read_radiograph(path)
        seed = image_seed(batch.seed, radiograph.digest)
        result = anonymizer.anonymize(radiograph, seed, progress)
        return _write(path, radiograph, seed, result, batch)
    except ImageHeld as error:
        return _without_output(path, radiograph, Status.HELD, str(error))
    except (ImageRejected, OutputError) as error:
        return _without_output(path, radiograph, Status.FAILED, str(error))
    except MemoryError:
        reason = "not enough memory; use fewer workers or a smaller image"
        return _without_output(path, radiograph, Status.FAILED, reason)
    except Exception as error:  # one bad file never stops a batch
        logger.debug("unexpected error", exc_info=True)
        reason = f"unexpected {type(error).__name__}; run with --verbose and report it"
        return _without_output(path, radiograph, Status.FAILED, reason)


def _write(
    path: Path, radiograph: Radiograph, seed: int, result: AnonymizedImage, batch: Batch
) -> Outcome:
    output_format = batch.output_format.for_source(radiograph.source_format)
    held = result.held_reason is not None
    folder = batch.folders.held if held else batch.folders.images
    target = folder / f"{release_name(seed)}{output_format.suffix}"
    content = encode_image(result.pixels, result.spacing_mm, output_format)
    write_review_pictures(
        batch.folders.review, release_name(seed), radiograph.pixels, result.pixels
    )
    if not held and output_format is OutputFormat.NRRD:
        batch.folders.previews.mkdir(exist_ok=True)
        preview = batch.folders.release / preview_name(target.relative_to(batch.folders.release))
        write_atomically(preview, encode_image(result.pixels, None, OutputFormat.PNG))
    sha256 = write_atomically(target, content)
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
    )
    return Outcome(row, figures)


def _without_output(
    path: Path, radiograph: Radiograph | None, status: Status, reason: str
) -> Outcome:
    uid = (radiograph.sop_instance_uid or "") if radiograph else ""
    return Outcome(Row(str(path), uid, "", "", status, reason, Review.NONE), None)


def _journalled(folders: OutputFolders) -> dict[str, Outcome]:
    """Return complete outcomes of an earlier run.

    What failed, a torn last line and a result whose bytes changed are done again.
    """
    if not folders.journal.exists():
        return {}
    done: dict[str, Outcome] = {}
    for line in folders.journal.read_text(encoding="utf-8").splitlines():
        try:
            outcome = Outcome.from_json(line)
        except (ValueError, KeyError, TypeError):
            continue
        if outcome.row.status is not Status.FAILED and _intact(outcome.row, folders.root):
            done[outcome.row.source] = outcome
    whole = "".join(outcome.to_json() + "\n" for outcome in done.values())
    write_atomically(folders.journal, whole.encode())
    return done


def _intact(row: Row, root: Path) -> bool:
    if not row.output:
        return True
    path = root / row.output
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == row.sha256


def _in_this_process(
    paths: Sequence[Path],
    batch: Batch,
    factory: AnonymizerFactory,
    progress: StepProgress | None,
) -> Iterator[Outcome]:
    anonymizer = factory()
    for path in paths:
        yield anonymize_file(path, batch, anonymizer, progress)


_loaded: list[ImageAnonymizer] = []  # one, in a worker process


def _start_worker(factory: AnonymizerFactory) -> None:
    _loaded.append(factory())


def _work(path: Path, batch: Batch) -> Outcome:
    return anonymize_file(path, batch, _loaded[0])


def _in_processes(
    paths: Sequence[Path], batch: Batch, factory: AnonymizerFactory, workers: int
) -> Iterator[Outcome]:
    """Keep a bounded number of images in work; images in work when a process dies run alone."""
    queue = list(reversed(paths))
    while queue:
        suspects: list[Path] = []
        with _pool(factory, workers) as pool:
            pending: dict[Future[Outcome], Path] = {}
            while queue or pending:
                while queue and len(pending) < 2 * workers and not suspects:
                    path = queue.pop()
                    pending[pool.submit(_work, path, batch)] = path
                if not pending:
                    break
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    path = pending.pop(future)
                    try:
                        yield future.result()
                    except BrokenProcessPool:
                        suspects.append(path)
        for path in suspects:
            yield _alone(path, batch, factory)


def _alone(path: Path, batch: Batch, factory: AnonymizerFactory) -> Outcome:
    with _pool(factory, 1) as pool:
        try:
            return pool.submit(_work, path, batch).result()
        except BrokenProcessPool:
            reason = "the worker process died on this image; check the file and the memory"
            return _without_output(path, None, Status.FAILED, reason)


def _pool(factory: AnonymizerFactory, workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(factory,),
    )
