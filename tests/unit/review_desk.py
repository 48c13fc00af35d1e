"""A server with jobs that await review, made through the functions that real runs use."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monailabel_app.lib.jobs.job import Job, NewJob
from monailabel_app.lib.jobs.states import JobState
from monailabel_app.lib.security.roles import Principal, Role
from monailabel_app.lib.server import Server
from monailabel_app.lib.settings import ServerSettings
from privdiff_infer.audit import AuditLog, Entry, Event
from privdiff_infer.journal import Journal, Outcome
from privdiff_infer.records import write_records
from privdiff_infer.release import OutputFolders, Row, Status, json_bytes, write_private
from privdiff_infer.verification import verify
from tests.unit.audited_run import FACTS, FIGURES, add_result, open_log
from tests.unit.outputs import AUDIT_KEY

ADA, BEN, CAI = (Principal(name, Role.REVIEWER) for name in ("ada", "ben", "cai"))
CONTENT = b"a redrawn image"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass(frozen=True)
class Desk:
    """A server without processes."""

    server: Server

    @classmethod
    def at(cls, state: Path, **settings: Any) -> Desk:
        return cls(Server.open(ServerSettings(state=state, studies=str(state), **settings)))

    def with_settings(self, **settings: Any) -> Desk:
        """Return a desk in the same folder after a restart with other settings."""
        return Desk.at(self.server.settings.state, **settings)

    def add(self, submitter: str = "dr who", content: bytes = CONTENT) -> Job:
        """Add a job that awaits review."""
        job = self._running(submitter)
        folders = self.folders(job)
        with open_log(folders.root) as log:
            journal = Journal(folders, log)
            add_result(journal, folders, job.sequence, content)
            write_records(folders, journal.outcomes, log)
        row = journal.outcomes[0].row
        return self._done(job, JobState.AWAITING_REVIEW, row)

    def add_held(self) -> Job:
        """Add a job whose result did not pass the gates."""
        job = self._running("dr who")
        folders = self.folders(job)
        file = folders.held / "cxr-ffffffffffffffff.png"
        sha256 = write_private(file, CONTENT)
        name = file.relative_to(folders.root).as_posix()
        row = Row("/in/DOE held.png", "", name, sha256, Status.HELD, "too similar: 0.9")
        with open_log(folders.root) as log:
            journal = Journal(folders, log)
            journal.add(Outcome(row, "too similar", "d", FIGURES))
            write_records(folders, journal.outcomes, log)
        return self._done(job, JobState.HELD, row, reason="too similar")

    def redraw(self, job: Job, content: bytes) -> None:
        """Let the folder of a job hold other bytes, as a resumed run does."""
        folders = self.folders(job)
        with open_log(folders.root) as log:
            journal = Journal(folders, log)
            add_result(journal, folders, job.sequence, content)
            write_records(folders, journal.outcomes, log)

    def folders(self, job: Job) -> OutputFolders:
        return self.server.folder.job(job.id)

    def job(self, job: Job) -> Job:
        return self.server.jobs.get(job.id)

    def findings(self, job: Job) -> list[Any]:
        """Return what `privdiff verify` finds wrong with the folder of a job."""
        return verify(self.folders(job).root, AUDIT_KEY).findings

    def entries(self, job: Job) -> tuple[Entry, ...]:
        """Return the entries of the chain of a job's folder."""
        with open_log(self.folders(job).root) as log:
            return log.entries

    def steps(self, job: Job) -> list[tuple[str, str]]:
        """Return (event, by) of the entries of the server's chain about a job."""
        with open_server_log(self.server) as log:
            return [
                (entry.event.value, entry.facts.get("by", ""))
                for entry in log.entries
                if entry.facts.get("job") == job.id
            ]

    def _running(self, submitter: str) -> Job:
        self.server.jobs.add(NewJob(Path("/in/DOE JANE.png"), submitter))
        job = self.server.jobs.take()
        assert job is not None
        folders = self.folders(job)
        folders.create()
        write_private(folders.run, json_bytes(FACTS | {"seed": "1"}))
        with open_log(folders.root) as log:
            log.append(Event.RUN_STARTED, options=FACTS, resumed=False)
        return job

    def _done(self, job: Job, state: JobState, row: Row, reason: str = "") -> Job:
        figures = asdict(FIGURES)
        return self.server.jobs.move(
            job.id, state, output=row.output, sha256=row.sha256, reason=reason, figures=figures
        )


def open_server_log(server: Server) -> AuditLog:
    """Return the server's own chain with all its entries."""
    return AuditLog(server.folder.audit, AUDIT_KEY)
