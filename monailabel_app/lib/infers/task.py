"""Our model in MONAI Label's list of models."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from monailabel_app.lib.infers.params import BUNDLE, BY_BUNDLE, job_options
from monailabel_app.lib.infers.queueing import (
    INFER_TIMEOUT_SECONDS,
    POLL_SECONDS,
    queue_image,
    result_of,
    still_waiting,
)
from monailabel_app.lib.jobs.states import WAITING
from monailabel_app.lib.security.roles import LOCAL
from monailabel_app.lib.server import Server
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.vocabulary import OutputSize, Profile

STRENGTHS = ("0.4", "0.5", "0.6", "0.7", "0.8", "0.9")


class PrivDiffInfer(InferTask):
    """Redraws one image; the answer is an image, not a segmentation.

    Its type is `others`, so that clients that list segmentation models leave it out.

    Parameters
    ----------
    server
        The parts of the server.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        super().__init__(
            type=InferType.OTHERS,
            labels=[],
            dimension=2,
            description="Redraws a chest X-ray so that the findings stay and the person goes",
        )

    def config(self) -> dict[str, Any]:
        """Return what a client may choose, the default first."""
        models = self._server.models.models()
        return {
            "profile": [
                Profile.STANDARD.value,
                *(p.value for p in Profile if p != Profile.STANDARD),
            ],
            "strength": [BY_BUNDLE, *STRENGTHS],
            "output_format": [choice.value for choice in OutputFormat],
            "output_size": [choice.value for choice in OutputSize],
            BUNDLE: [BY_BUNDLE, *(model.id for model in models)],
        }

    def is_valid(self) -> bool:
        """Tell that the model is there, which its construction has shown."""
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Queue an image of the datastore and wait for its result.

        Parameters
        ----------
        request
            ``image``, an id, and options of a job.

        Returns
        -------
        tuple
            The file of the result, which is not to be deleted, and what is told of it.
        """
        params = {name: request[name] for name in request.keys() - {"model", "image"}}
        image_id = str(request.get("image", ""))
        job = queue_image(self._server, image_id, job_options(params), LOCAL)
        deadline = time.monotonic() + INFER_TIMEOUT_SECONDS
        while job.state in WAITING:
            if time.monotonic() > deadline:
                raise still_waiting(job)
            time.sleep(POLL_SECONDS)
            job = self._server.jobs.get(job.id)
        result = result_of(self._server, job)
        return str(result.file), result.params
