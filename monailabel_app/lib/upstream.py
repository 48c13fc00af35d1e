"""What MONAI Label is told: its own settings, made from ours.

MONAI Label keeps settings in an object of its process and hands them to its subprocesses through
the environment; both are set here, whether the server was started by us or by its own launcher.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel_app.lib.settings import PREFIX, ServerSettings, load_settings
from monailabel_app.lib.state_folder import StateFolder
from privdiff_infer.errors import OptionError
from privdiff_infer.release import reporting_disk_errors, write_private

MAIN = '''"""What MONAI Label loads; see monailabel_app."""

from monailabel_app.main import PrivDiffApp as PrivDiffApp
'''

TASK = "privdiff"
"""Name of our model, trainer and batch inference in MONAI Label."""

STATE_VARIABLE = f"{PREFIX}STATE"

OF_OTHERS = frozenset({"models", "server_mode"})
"""Keys of ``--conf`` that are no settings of ours."""

SESSION_SECONDS = 3600


def settings_from_launcher(app: str, studies: str, conf: Mapping[str, str]) -> ServerSettings:
    """Return the settings of a process that MONAI Label started.

    Parameters
    ----------
    app
        App folder; STATE is the folder that it lies in, unless it is named.
    studies
        As the launcher was told.
    conf
        Pairs of ``--conf``, which win over the environment.

    Raises
    ------
    OptionError
        If a key is unknown, a value impossible, or STATE not named.
    """
    known = set(ServerSettings.model_fields)
    if unknown := sorted(conf.keys() - known - OF_OTHERS):
        raise OptionError(
            f"--conf {unknown[0]} is unknown", f"use one of: {', '.join(sorted(known))}, models"
        )
    wanted = conf.get("models", TASK)
    if wanted not in (TASK, "all"):
        raise OptionError(f"--conf models {wanted} names no model of this app", f"name {TASK}")
    chosen: dict[str, Any] = {name: text for name, text in conf.items() if name in known}
    if "state" not in chosen and STATE_VARIABLE not in os.environ:
        if Path(app).name != "app":
            raise OptionError(
                "the folder for what the server writes is not named",
                "give --conf state DIR, or the app folder that `privdiff serve --prepare` makes",
            )
        chosen["state"] = Path(app).parent
    return load_settings(**{"studies": studies, **chosen})


def prepare(settings: ServerSettings) -> StateFolder:
    """Create STATE, with the app folder that MONAI Label is given.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    folder = StateFolder(settings.state)
    folder.create()
    with reporting_disk_errors():
        write_private(folder.app / "main.py", MAIN.encode())
        for name in ("lib", "logs", "model", "bin"):  # what its launcher would make
            (folder.app / name).mkdir(exist_ok=True)
    return folder


def configure(settings: ServerSettings) -> None:
    """Set MONAI Label's settings, and the temporary folder, in this process and its subprocesses.

    Its authentication stays off: it refuses every valid token, and ours has answered before.
    """
    from monailabel.config import settings as theirs

    folder = prepare(settings)
    chosen: dict[str, Any] = {
        "MONAI_LABEL_APP_DIR": str(folder.app),
        "MONAI_LABEL_STUDIES": settings.studies,
        "MONAI_LABEL_APP_CONF": {},  # it is in our settings
        "MONAI_LABEL_AUTH_ENABLE": False,
        "MONAI_LABEL_AUTO_UPDATE_SCORING": False,
        "MONAI_LABEL_TASKS_SCORING": False,
        "MONAI_LABEL_TRACKING_ENABLED": False,
        "MONAI_LABEL_SESSION_PATH": str(folder.sessions),
        "MONAI_LABEL_SESSION_EXPIRY": SESSION_SECONDS,
        "MONAI_LABEL_INFER_CONCURRENCY": -1,
    }
    for name, value in chosen.items():
        setattr(theirs, name, value)
        os.environ[name] = "{}" if value == {} else str(value)
    # Uploads above 1 MB are spooled to the temporary folder: patients' data, which stays in STATE.
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder.temporary.resolve())
    os.environ.update(settings.environment())
    # Its subprocesses are started with this, and it must be there. Sources that are not installed
    # are found by it too.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys([*os.environ.get("PYTHONPATH", "").split(os.pathsep), str(_package_folder())])
    ).strip(os.pathsep)


def _package_folder() -> Path:
    return Path(str(sys.modules["monailabel_app"].__file__)).resolve().parents[1]
