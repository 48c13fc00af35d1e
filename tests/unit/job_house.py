"""A server's parts in one process, whose images are redrawn here instead of in a worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from monailabel_app.lib import answers
from monailabel_app.lib.jobs import routes
from monailabel_app.lib.jobs.engine import StopSignal
from monailabel_app.lib.jobs.job import Job, JobOptions, NewJob
from monailabel_app.lib.jobs.runner import JobRunner
from monailabel_app.lib.security.roles import Principal, Role
from monailabel_app.lib.server import Server
from monailabel_app.lib.settings import ServerSettings
from privdiff_infer.anonymizer import AnonymizedImage, Anonymizer, AnonymizerOptions
from privdiff_infer.audit import AuditLog
from privdiff_infer.model.bundle import BundleInfo
from privdiff_infer.radiograph import Radiograph
from privdiff_infer.verification import verify
from tests.unit.outputs import AUDIT_KEY

ANN, BOB = Principal("ann", Role.USER), Principal("bob", Role.USER)
EVE = Principal("eve", Role.REVIEWER)


class Here:
    """Redraws in this process; `before` and `after` are called around it."""

    def __init__(self) -> None:
        self.before: Callable[[Radiograph], None] = lambda _: None
        self.after: Callable[[], None] = lambda: None
        self.calls = 0

    def redraw(
        self,
        bundle: BundleInfo,
        options: AnonymizerOptions,
        radiograph: Radiograph,
        image_seed: int,
        *,
        priority: int,
        stop: StopSignal,
        progress: Callable[[int, int], None],
    ) -> AnonymizedImage:
        self.calls += 1
        self.before(radiograph)
        anonymizer = Anonymizer.from_bundle(bundle.path, options)
        image = anonymizer.anonymize(radiograph, image_seed, progress)
        self.after()
        stop.check()
        return image


class House:
    """Server, runner and clients over one STATE."""

    def __init__(self, state: Path, studies: Path, bundle: Path, **settings: Any) -> None:
        self.settings = ServerSettings(
            state=state, studies=str(studies), bundle=str(bundle), **settings
        )
        self.server = Server.open(self.settings)
        self.engine = Here()
        self.steps: list[tuple[str, int, int]] = []

    @property
    def jobs(self) -> Any:
        return self.server.jobs

    def upload(self, content: bytes, submitter: str = "ann", **options: Any) -> Job:
        """Queue bytes as a job."""
        number = sum(self.jobs.counts().values())
        job_id = f"{number:032x}"
        path = self.server.folder.upload(job_id)
        path.write_bytes(content)
        return self.jobs.add(NewJob(path, submitter, JobOptions(**options), id=job_id))[0]

    def run(self, stop: StopSignal | None = None) -> Job:
        """Take the next job, bring it to its end and return it."""
        job = self.jobs.take()
        report = lambda *step: self.steps.append(step)  # noqa: E731
        runner = JobRunner(self.settings, self.jobs, self.server.audit, self.engine, report)
        runner.run(job, stop or StopSignal())
        return self.jobs.get(job.id)

    def client(self, who: Principal) -> TestClient:
        """Return a client of the routes of jobs that is known as somebody."""
        app = FastAPI()
        app.include_router(routes.router)
        answers.install(app)
        app.state.server = self.server

        @app.middleware("http")
        async def known(request: Request, call_next: Any) -> Any:
            request.state.principal = who
            return await call_next(request)

        return TestClient(app)

    def findings(self, job: Job) -> list[Any]:
        """Return what `privdiff verify` finds wrong with the folder of a job."""
        return list(verify(self.server.folder.job(job.id).root, AUDIT_KEY).findings)

    def told(self, job: Job) -> list[str]:
        """Return the events of the server's chain about a job."""
        with AuditLog(self.server.folder.audit, AUDIT_KEY) as log:
            return [e.event.value for e in log.entries if e.facts.get("job") == job.id]
