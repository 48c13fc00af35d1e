"""What the server's chain is told of fine-tunings: who asked for one, and that one was killed.

A run is a process that MONAI Label starts with its request as arguments, which everybody sees, so
who asked travels in a file.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from filelock import FileLock, Timeout

from monailabel_app.lib.audit import ServerAudit
from monailabel_app.lib.errors import NotFound
from monailabel_app.lib.trainers.progress import TrainingState, now, run_folders
from privdiff_infer.audit import Event
from privdiff_infer.release import write_private

ORDER = "order"
"""Key of a request that names the file of who asked."""

SECONDS_TO_DIE = 10.0
"""Given to a process that was killed, until its lock is free."""


def training_lock(training: Path) -> FileLock:
    """Return the lock that a run holds while it is at work."""
    return FileLock(training / "lock", mode=0o600)


def write_order(training: Path, by: str) -> str:
    """Keep who asks for a run; return what its request says instead of the name."""
    order = secrets.token_hex(16)
    write_private(training / f"{ORDER}-{order}", by.encode())
    return order


def take_order(training: Path, order: str) -> str:
    """Return who asked, and delete the file; empty where nobody is known."""
    file = training / f"{ORDER}-{order}"
    try:
        by = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    file.unlink()
    return by


def tell_of_killed(training: Path, audit: ServerAudit, by: str = "") -> None:
    """Record the end of runs that were killed, unless one is at work and does that at its start."""
    try:
        with training_lock(training).acquire(timeout=SECONDS_TO_DIE if by else 0):
            end_killed(training, audit, by)
    except Timeout:
        return


def end_killed(training: Path, audit: ServerAudit, by: str = "") -> None:
    """Record the end of each run that was killed, once; to be called with the lock.

    Parameters
    ----------
    training
        Folder of all runs.
    audit
        The server's chain.
    by
        Who killed it; empty where nobody is known to have.
    """
    for folder in run_folders(training):
        try:
            progress = folder.read()
        except NotFound:
            continue
        if progress.state is TrainingState.INTERRUPTED and progress.ended is None:
            audit.record(
                Event.TRAINING_ENDED,
                by=by,
                training=folder.id,
                state=progress.state.value,
                model=progress.model,
            )
            folder.write(progress.model_copy(update={"ended": now()}))
