"""The app that MONAI Label loads, in the server and in the subprocesses of batches and training."""

from __future__ import annotations

from monailabel_app.lib import compat

compat.install()  # before anything of monailabel

from collections.abc import Callable, Mapping
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from monailabel_app.lib.errors import NotFound
from monailabel_app.lib.infers.params import check_json
from monailabel_app.lib.server import Server
from monailabel_app.lib.sessions import Sessions
from monailabel_app.lib.upstream import TASK, configure, settings_from_launcher
from privdiff_infer import __version__


class PrivDiffApp(MONAILabelApp):
    """PrivDiff-Net by the contract of MONAI Label.

    Parameters
    ----------
    app_dir
        App folder, below STATE.
    studies
        Folder or URL of the images.
    conf
        Settings of ``--conf``, which win over the environment.

    Attributes
    ----------
    server
        What everything here works with.

    Raises
    ------
    OptionError
        If a setting is impossible.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        settings = settings_from_launcher(app_dir, studies, conf)
        configure(settings)
        self.server = Server.open(settings)
        super().__init__(
            app_dir=app_dir,
            studies=settings.studies,
            conf=dict(conf),
            name="PrivDiff-Net",
            description="Redraws chest X-rays so that the findings stay and the person goes",
            version=__version__,
            labels=[],
        )

    def init_datastore(self) -> Datastore:
        """Return the originals, the approved results, and the labels of both."""
        from monailabel_app.lib.datastores.datastore import PrivDiffDatastore

        return PrivDiffDatastore(self.server)

    def init_infers(self) -> dict[str, InferTask]:
        """Return our one model."""
        from monailabel_app.lib.infers.task import PrivDiffInfer

        return {TASK: PrivDiffInfer(self.server)}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Return the fine-tuning of our model."""
        from monailabel_app.lib.trainers.privdiff import PrivDiffTrainTask

        return {TASK: PrivDiffTrainTask(self.server.settings)}

    def init_strategies(self) -> dict[str, Strategy]:
        """Return the ways to choose the next image."""
        from monailabel_app.lib.strategies import strategies

        return strategies(self.server)

    def init_batch_infer(self) -> Callable[..., Any]:
        """Return what redraws many images."""
        from monailabel_app.lib.batch import PrivDiffBatch

        return PrivDiffBatch(self.server)

    def _download_dcmqi_tools(self) -> None:
        """Download nothing: DICOM SEG is not written here."""

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the id and the file name of the next image, and nothing of where it lies."""
        check_json(request)
        name = request.get("strategy") or "random"
        strategy = self._strategies.get(name) if isinstance(name, str) else None
        if strategy is None:
            raise NotFound(
                "there is no such strategy", f"use one of: {', '.join(self._strategies)}"
            )
        chosen = strategy(request, self._datastore)
        if chosen is None:
            return {}
        return {**chosen, "name": self._datastore.file_name(chosen["id"])}

    def _load_sessions(self, load: bool = False) -> Sessions:
        """Return our sessions, of which upstream only removes the expired ones."""
        return Sessions(self.server.folder.sessions)

    def infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> Any:
        """Redraw one image and wait for it; for MONAI Label's subprocesses.

        Unlike upstream, an image is an id and never a path.
        """
        file, params = self._infers[TASK](request)
        return {"label": file, "tag": "", "file": file, "params": params}
