"""MONAI Label's training task `privdiff`: fine-tunes the default bundle on the server's cohort.

MONAI Label calls it in a subprocess, whose arguments are the request: it holds a few numbers and no
path. Everything else comes from the settings.
"""

from __future__ import annotations

import logging
import os
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import Timeout
from monailabel.interfaces.tasks.train import TrainTask

from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.errors import Busy, Conflict, NotFound
from monailabel_app.lib.models.comparison import read_comparison
from monailabel_app.lib.models.registry import Model, ModelRegistry
from monailabel_app.lib.settings import ServerSettings
from monailabel_app.lib.state_folder import StateFolder
from monailabel_app.lib.trainers.errors import TrainingFailed
from monailabel_app.lib.trainers.parameters import TrainingParameters
from monailabel_app.lib.trainers.progress import (
    Process,
    Progress,
    RunFolder,
    TrainingStage,
    TrainingState,
    latest,
    now,
    run_folders,
)
from monailabel_app.lib.trainers.reporter import Reporter
from monailabel_app.lib.trainers.told import ORDER, end_killed, take_order, training_lock
from privdiff_infer.audit import Event
from privdiff_infer.errors import CohortError
from privdiff_infer.release import write_private

logger = logging.getLogger(__name__)

NICENESS = 5
"""Jobs and answers come first."""

SEE_CONSOLE = "read error.txt in the folder of this run, on the server"


class PrivDiffTrainTask(TrainTask):
    """Runs the suppression stage, makes a bundle of it and compares it with the one before.

    Parameters
    ----------
    settings
        Of the server.
    """

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__("Fine-tunes the default model on this server's cohort and compares both")
        self._settings = settings
        self._folder = StateFolder(settings.state)
        self._models = ModelRegistry(settings)

    def config(self) -> dict[str, Any]:
        """Return the parameters that a client may set."""
        return TrainingParameters.choices()

    def stats(self) -> dict[str, Any]:
        """Return how far the newest run is, in the words of MONAI Label's clients."""
        progress = latest(self._folder.training)
        return {} if progress is None else _stats(progress, self._folder.models)

    def __call__(self, request: Mapping[str, Any], datastore: object) -> dict[str, Any]:
        """Fine-tune, or continue an unfinished run with the same parameters.

        Raises
        ------
        BadRequest
            If a parameter is unknown or impossible.
        Busy
            If another fine-tuning runs.
        Conflict
            If the default model cannot be used, or this is the server's own process.
        TrainingFailed
            If the cohort or anything else cannot be used; the reason stands in the progress, and in
            full in ``error.txt`` of the run.
        """
        _refuse_server()
        training = self._folder.training
        by = take_order(training, str(request.get(ORDER, "")))
        parameters = TrainingParameters.of({k: v for k, v in request.items() if k != ORDER})
        cohort = cohort_of(self._settings)
        try:
            with training_lock(training).acquire(timeout=0):
                return self._run(parameters, cohort, by)
        except Timeout:
            raise Busy("another fine-tuning runs", "wait for it, or stop it") from None

    def _run(self, parameters: TrainingParameters, cohort: Path, by: str) -> dict[str, Any]:
        _step_back(self._settings.device)
        base = self._models.default()
        audit = ServerAudit.open(self._folder)
        end_killed(self._folder.training, audit)
        reporter = self._reporter(parameters, base)
        run = reporter.folder.id
        audit.record(Event.TRAINING_STARTED, by=by, sha256=base.sha256, training=run, model=base.id)
        try:
            self._fine_tune(reporter, cohort, base)
        except TrainingFailed as failed:
            self._end(reporter, audit, TrainingState.FAILED, failed.problem)
            raise
        except Exception as error:
            write_private(reporter.folder.error, traceback.format_exc().encode())
            reason = _reason(error)
            self._end(reporter, audit, TrainingState.FAILED, reason)
            # The message of the cause may name a file.
            raise TrainingFailed(reason, SEE_CONSOLE) from None
        if reporter.progress.step < reporter.progress.steps:
            self._end(reporter, audit, TrainingState.STOPPED, reporter.folder.stop_reason())
        else:
            self._end(reporter, audit, TrainingState.DONE, "")
        return _stats(reporter.progress, self._folder.models)

    def _fine_tune(self, reporter: Reporter, cohort: Path, base: Model) -> None:
        from monailabel_app.lib.trainers.finetuning import Task, fine_tune

        fine_tune(
            Task(
                manifest=cohort,
                evaluators=self._settings.evaluators,
                models=self._folder.models,
                base=base.usable(),
                folder=reporter.folder,
                reporter=reporter,
            )
        )

    def _reporter(self, parameters: TrainingParameters, base: Model) -> Reporter:
        """Return the reporter of the run to continue, or of a new one."""
        for folder in run_folders(self._folder.training) if parameters.resume else ():
            found = _readable(folder)
            if found is None or found.base != base.reference:
                continue
            if found.parameters.equals(parameters) and self._is_unfinished(found):
                logger.info("continuing training %s", folder.id)
                reporter = Reporter(folder, found)
                reporter.change(state=TrainingState.RUNNING, ended=None, reason="")
                return reporter
        folder = RunFolder.create(self._folder.training)
        progress = Progress(
            id=folder.id,
            parameters=parameters,
            base=base.reference,
            started=now(),
            updated=now(),
            steps=parameters.steps,
            process=Process.this(),
        )
        folder.write(progress)
        return Reporter(folder, progress)

    def _is_unfinished(self, progress: Progress) -> bool:
        """Tell whether something is left to do: to train, or to measure."""
        if progress.state in (TrainingState.INTERRUPTED, TrainingState.FAILED):
            return True
        bundle = self._folder.models / progress.model
        comparison = read_comparison(bundle)
        return bundle.is_dir() and (comparison is None or not comparison.is_measured)

    def _end(
        self, reporter: Reporter, audit: ServerAudit, state: TrainingState, reason: str
    ) -> None:
        reporter.change(
            state=state, stage=TrainingStage.ENDED, ended=now(), eta_seconds=None, reason=reason
        )
        audit.record(
            Event.TRAINING_ENDED,
            by=reporter.folder.stopped_by() if state is TrainingState.STOPPED else "",
            training=reporter.folder.id,
            state=state.value,
            model=reporter.progress.model,
        )


def cohort_of(settings: ServerSettings) -> Path:
    """Return the manifest that fine-tuning reads.

    Raises
    ------
    TrainingFailed
        If none is configured, or it is not there.
    """
    if settings.cohort is None:
        raise TrainingFailed(
            "this server has no cohort to fine-tune on", "start it with --cohort MANIFEST"
        )
    if not settings.cohort.is_file():
        raise TrainingFailed(
            "the manifest of this server's cohort is not there", "start it with one that is"
        )
    return settings.cohort


def _readable(folder: RunFolder) -> Progress | None:
    try:
        return folder.read()
    except NotFound:
        return None


def _reason(error: Exception) -> str:
    """Return why a run failed, without a name or a value of the cohort."""
    from torch import OutOfMemoryError

    if isinstance(error, OutOfMemoryError):
        return "memory ran out; choose a smaller batch_size"
    if isinstance(error, CohortError):
        return "the cohort cannot be used as it is"
    return f"it failed unexpectedly ({type(error).__name__})"


def _refuse_server() -> None:
    """Refuse to train where answers are given: MONAI Label's `run_sync` would slow them all.

    The server calls tasks in threads; a process that was started to train does in its main one.
    """
    if threading.current_thread() is not threading.main_thread():
        raise Conflict("fine-tuning does not run inside the server", "leave run_sync out")


def _step_back(device: str) -> None:
    """Let jobs and answers come first, and keep to the device of the settings."""
    os.nice(NICENESS)
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"


def _stats(progress: Progress, models: Path) -> dict[str, Any]:
    """Return the keys that MONAI Label's clients know, and the id, state and stage of the run."""
    stats: dict[str, Any] = {
        "id": progress.id,
        "state": progress.state.value,
        "stage": progress.stage.value,
        "epoch": progress.step,
        "total_epochs": progress.steps,
        "model": progress.model,
    }
    if progress.ended is not None:
        stats["total_time"] = str(progress.took)
    comparison = read_comparison(models / progress.model) if progress.model else None
    if comparison is not None and comparison.figures is not None:
        findings = comparison.figures.new.findings.value
        if findings is not None:
            stats["best_metric"] = findings
    return stats
