"""The way of one job: a run of one image in a folder of its own, and what its row says of it."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.errors import ApiError, Conflict
from monailabel_app.lib.jobs.engine import Engine, Stop, StopSignal, WorkerDied
from monailabel_app.lib.jobs.job import Job, JobOptions, decode_source
from monailabel_app.lib.jobs.server_faults import (
    DATABASE_AWAY,
    KEY_AWAY,
    MODEL_AWAY,
    WORKERS_AWAY,
    ServerFault,
    patient,
)
from monailabel_app.lib.jobs.states import MAX_ATTEMPTS, OF_STATUS, JobState
from monailabel_app.lib.jobs.store import JobStore
from monailabel_app.lib.models.registry import ModelRegistry
from monailabel_app.lib.settings import ServerSettings
from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.anonymizer import AnonymizedImage, AnonymizerOptions
from privdiff_infer.audit import Event
from privdiff_infer.errors import (
    AuditError,
    BundleError,
    ImageError,
    ImageRejected,
    OutputError,
    PrivDiffError,
    SecretError,
    WorkersLost,
)
from privdiff_infer.journal import Outcome
from privdiff_infer.model.bundle import BundleInfo
from privdiff_infer.radiograph import Radiograph
from privdiff_infer.release import Status
from privdiff_infer.run import Run, RunOptions

logger = logging.getLogger(__name__)

SECONDS_BEFORE_RETRY = 5.0
"""Times the attempts made: after a full disk."""

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
"""Seconds that a job waits after a fault of the server; doubled each time."""

EVENTS = {
    Status.RELEASED: Event.IMAGE_RELEASED,
    Status.HELD: Event.IMAGE_HELD,
    Status.FAILED: Event.IMAGE_FAILED,
}


class Cancelled(Stop):
    """Nobody wants the result; what there is of it goes."""


class Interrupted(Stop):
    """The dispatcher ends; the job continues with the next one."""


StepReport = Callable[[str, int, int], None]
"""Told (job id, steps done, steps in all)."""


@dataclass(frozen=True)
class RemoteAnonymizer:
    """An `ImageAnonymizer` whose work is done in a worker.

    Attributes
    ----------
    engine
        Has the workers.
    bundle, options
        As of the run.
    priority, stop
        Of the job.
    begin_again
        Called when a worker died; raises where the job was tried often enough.
    """

    engine: Engine
    bundle: BundleInfo
    options: AnonymizerOptions
    priority: int
    stop: StopSignal
    begin_again: Callable[[], None]

    def anonymize(
        self,
        radiograph: Radiograph,
        image_seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> AnonymizedImage:
        """Redraw one radiograph; see `Anonymizer.anonymize` and `Engine.redraw`."""
        facts = replace(radiograph, sop_instance_uid=None, dataset=None)
        while True:
            self.stop.check()
            try:
                return self.engine.redraw(
                    self.bundle,
                    self.options,
                    facts,
                    image_seed,
                    priority=self.priority,
                    stop=self.stop,
                    progress=progress or _silent,
                )
            except WorkerDied:
                self.begin_again()
            except WorkersLost:
                raise ServerFault(WORKERS_AWAY) from None
            except BundleError:  # it was whole when the run began
                raise ServerFault(MODEL_AWAY) from None


class JobRunner:
    """Brings running jobs to their end, several at once in threads.

    Parameters
    ----------
    settings
        Of the server.
    jobs
        The queue.
    audit
        The server's chain.
    engine
        Where images are redrawn.
    report
        Is told the steps.
    """

    def __init__(
        self,
        settings: ServerSettings,
        jobs: JobStore,
        audit: ServerAudit,
        engine: Engine,
        report: StepReport,
    ) -> None:
        self._settings = settings
        self._folder = StateFolder(settings.state)
        self._models = ModelRegistry(settings)
        self._jobs, self._audit, self._engine, self._report = jobs, audit, engine, report
        self._pauses: dict[str, float] = {}

    def run(self, job: Job, stop: StopSignal) -> None:
        """Bring a job that was taken from the queue to its end, whatever that is."""
        try:
            self._run(job, stop)
        except Cancelled:
            self._discard(job)
        except Interrupted:
            self._queue_again(job, attempts=job.attempts - 1)
        except ServerFault as fault:
            self._wait(job, fault.reason)
        except SQLAlchemyError:
            # Where the row cannot be written either, the dispatcher ends and the next one recovers.
            self._wait(job, ServerFault(DATABASE_AWAY).reason)
        except OutputError as error:
            self._retry_or_fail(job, error)
        except PrivDiffError as error:
            self._fail(job, _public(error))
        except Exception as error:  # the edge of the thread: a job never stays running
            logger.error("job %s: unexpected %s", job.id, type(error).__name__)
            self._fail(job, "the server could not do this; report it to its administrator")

    def _run(self, job: Job, stop: StopSignal) -> None:
        if job.attempts > MAX_ATTEMPTS:
            raise _tried_too_often()
        stop.check()
        with self._open(job) as run:
            self._jobs.set(
                job.id,
                model=run.bundle.name,
                model_version=run.bundle.version,
                model_sha256=run.bundle.sha256,
                linkage_limit=run.bundle.metadata.gates.linkage_similarity,
            )
            (outcome,) = run.outcomes(
                [patient(decode_source(job.source))],
                lambda step, steps: self._report(job.id, step, steps),
                lambda: self._anonymizer(job, run, stop),
            )
            run.finish()
        self._end(job, outcome)

    def _anonymizer(self, job: Job, run: Run, stop: StopSignal) -> RemoteAnonymizer:
        options = replace(run.options.anonymizer, device=self._settings.device)

        def begin_again() -> None:
            try:
                attempts = self._jobs.begin_again(job.id).attempts
            except SQLAlchemyError:
                raise ServerFault(DATABASE_AWAY) from None
            if attempts > MAX_ATTEMPTS:
                raise _tried_too_often()

        return RemoteAnonymizer(self._engine, run.bundle, options, job.priority, stop, begin_again)

    def _open(self, job: Job) -> Run:
        """Open the run of a job; a model that nobody has is its fault, one that is away is not."""
        try:
            return self._begun(self._options(job))
        except Conflict as error:
            raise ServerFault(error.problem) from None
        except BundleError:
            raise ServerFault(MODEL_AWAY) from None
        except SecretError:
            raise ServerFault(KEY_AWAY) from None

    def _begun(self, options: RunOptions) -> Run:
        """Begin a run, or continue it; what cannot be continued is begun anew.

        Nobody has seen a result of a job that runs, so that nothing is lost with its folder.
        """
        if options.out.exists():
            try:
                return Run(replace(options, resume=True))
            except (AuditError, BundleError, SecretError):
                raise
            except PrivDiffError:
                shutil.rmtree(options.out)
        return Run(options)

    def _options(self, job: Job) -> RunOptions:
        chosen: JobOptions = job.chosen
        bundle, _ = self._models.resolve(chosen.model)
        return RunOptions(
            out=self._folder.job(job.id).root,
            bundle=bundle,
            anonymizer=AnonymizerOptions(
                profile=chosen.profile,
                strength=chosen.strength,
                output_size=chosen.output_size,
                threads=self._settings.threads,
                device="cpu",  # of this process; the worker has its own
            ),
            output_format=chosen.output_format,
            seed=chosen.seed,
        )

    def _end(self, job: Job, outcome: Outcome) -> None:
        row = outcome.row
        figures = asdict(outcome.figures) if outcome.figures else None
        self._audit.record(EVENTS[row.status], job=job.id, sha256=row.sha256)
        self._move(
            job,
            OF_STATUS[row.status],
            output=row.output,
            sha256=row.sha256,
            reason=outcome.public_reason,
            figures=figures,
        )

    def _fail(self, job: Job, reason: str) -> None:
        self._audit.record(Event.IMAGE_FAILED, job=job.id)
        self._move(job, JobState.FAILED, reason=reason)

    def _retry_or_fail(self, job: Job, error: PrivDiffError) -> None:
        if job.attempts >= MAX_ATTEMPTS:
            self._fail(job, _public(error))
        else:
            later = time.time() + SECONDS_BEFORE_RETRY * job.attempts
            self._queue_again(job, not_before=later)

    def _wait(self, job: Job, reason: str) -> None:
        """Queue a job again after a fault of the server, which is no attempt at its image."""
        pause = min(self._pauses.get(job.id, FIRST_PAUSE), LONGEST_PAUSE)
        self._pauses[job.id] = 2 * pause
        later = time.time() + pause
        self._queue_again(job, attempts=job.attempts - 1, not_before=later, reason=reason)

    def _move(self, job: Job, to: JobState, **values: Any) -> None:
        """Let the row follow, unless it was cancelled meanwhile."""
        self._pauses.pop(job.id, None)
        try:
            self._jobs.move(job.id, to, start=[JobState.RUNNING], finished=time.time(), **values)
        except Conflict:
            self._discard(job)
        else:
            self._folder.upload(job.id).unlink(missing_ok=True)

    def _queue_again(self, job: Job, **values: Any) -> None:
        try:
            self._jobs.move(
                job.id, JobState.QUEUED, start=[JobState.RUNNING], step=0, steps=0, **values
            )
        except Conflict:
            self._discard(job)

    def _discard(self, job: Job) -> None:
        """Delete what there is of a job that was cancelled."""
        shutil.rmtree(self._folder.job(job.id).root, ignore_errors=True)
        self._folder.upload(job.id).unlink(missing_ok=True)


def _public(error: PrivDiffError) -> str:
    """Return what a client may be told; texts of other errors can name what is private."""
    if isinstance(error, (ImageError, ApiError)):
        return f"{error.problem}; {error.remedy}"
    return f"the server could not do this ({type(error).__name__}); ask its administrator"


def _tried_too_often() -> ImageRejected:
    return ImageRejected(
        f"the process that worked on this image died {MAX_ATTEMPTS} times",
        "check the file and the memory of the server",
    )


def _silent(step: int, steps: int) -> None:
    """Report nothing."""
