"""STATE: the one folder that the server writes to, readable by its owner alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from privdiff_infer.release import OutputFolders, reporting_disk_errors

PRIVATE_FOLDER = 0o700


@dataclass(frozen=True)
class StateFolder:
    """Paths below STATE."""

    root: Path

    @property
    def database(self) -> Path:
        """The queue."""
        return self.root / "jobs.db"

    @property
    def audit(self) -> Path:
        """Who did what to which job; the same chain as in the folder of a run."""
        return self.root / "audit.jsonl"

    @property
    def dispatcher_lock(self) -> Path:
        """Held by the one dispatcher of this folder."""
        return self.root / "dispatcher.lock"

    @property
    def jobs(self) -> Path:
        """One folder a job."""
        return self.root / "jobs"

    @property
    def engine(self) -> Path:
        """What dask puts down while it works."""
        return self.root / "engine"

    @property
    def uploads(self) -> Path:
        """Originals that were sent to us, until their job has a result."""
        return self.root / "uploads"

    @property
    def cache(self) -> Path:
        """Originals of a DICOMweb store, for a while."""
        return self.root / "cache"

    @property
    def sessions(self) -> Path:
        """Uploads of MONAI Label clients, until their session expires."""
        return self.root / "sessions"

    @property
    def labels(self) -> Path:
        """Labels that annotators saved."""
        return self.root / "labels"

    @property
    def batches(self) -> Path:
        """What became of the images of every batch inference."""
        return self.root / "batches"

    @property
    def models(self) -> Path:
        """Bundles that were trained here."""
        return self.root / "models"

    @property
    def default_model(self) -> Path:
        """Which bundle jobs take that name none."""
        return self.root / "default-model.json"

    @property
    def training(self) -> Path:
        """Checkpoints, metrics and samples of fine-tuning."""
        return self.root / "training"

    @property
    def app(self) -> Path:
        """The app folder that MONAI Label is started with; it writes there."""
        return self.root / "app"

    @property
    def logs(self) -> Path:
        """Logs of every process, without identifiers."""
        return self.root / "logs"

    @property
    def temporary(self) -> Path:
        """What processes of the server put down in the place of the system's temporary folder."""
        return self.root / "tmp"

    def job(self, job_id: str) -> OutputFolders:
        """Return the folder of a job: a run of one image, with release/ and private/."""
        return OutputFolders(self.jobs / job_id)

    def upload(self, job_id: str) -> Path:
        """Return where an original that was sent to us lies; its name is no one's choice."""
        return self.uploads / job_id

    def create(self) -> None:
        """Create the folders.

        Raises
        ------
        OutputError
            If they cannot be created.
        """
        folders = (
            self.root, self.jobs, self.uploads, self.cache, self.sessions, self.labels,
            self.batches, self.models, self.training, self.app, self.logs, self.engine,
            self.temporary,
        )  # fmt: skip
        with reporting_disk_errors():
            for folder in folders:
                folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
                folder.chmod(PRIVATE_FOLDER)

    def empty_temporary(self) -> None:
        """Delete what a server before this one put down and left.

        Raises
        ------
        OutputError
            If it cannot be deleted.
        """
        with reporting_disk_errors():
            for path in self.temporary.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
