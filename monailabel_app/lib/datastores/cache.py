"""STATE/cache: originals of a store, archives and uploads on their way; nothing stays long."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from privdiff_infer.release import reporting_disk_errors

SECONDS = 3600.0
"""How long a file stays."""


def forget_old_files(cache: Path) -> None:
    """Delete what came too long ago.

    Raises
    ------
    OutputError
        If it cannot be deleted.
    """
    oldest = time.time() - SECONDS
    with reporting_disk_errors():
        for path in cache.iterdir():
            with suppress(FileNotFoundError):  # another request forgot it
                if path.lstat().st_mtime < oldest:
                    path.unlink()
