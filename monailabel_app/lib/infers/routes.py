"""MONAI Label's route of inference, as one that leaves the event loop alone."""

from __future__ import annotations

import asyncio
import json
import mimetypes
from enum import Enum
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Query, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from requests_toolbelt import MultipartEncoder

from monailabel_app.lib.errors import BadRequest, NotFound
from monailabel_app.lib.infers.params import job_options, parse_params
from monailabel_app.lib.infers.queueing import (
    INFER_TIMEOUT_SECONDS,
    POLL_SECONDS,
    Result,
    queue_image,
    queue_upload,
    result_of,
    still_waiting,
)
from monailabel_app.lib.jobs.job import Job, JobOptions
from monailabel_app.lib.jobs.states import WAITING
from monailabel_app.lib.security.roles import Principal, Require, Role
from monailabel_app.lib.server import Server, server
from monailabel_app.lib.sessions import Sessions
from monailabel_app.lib.upstream import TASK

router = APIRouter(prefix="/infer", tags=["Infer"])


class ResultType(str, Enum):
    """What the answer is."""

    ALL = "all"
    IMAGE = "image"
    JSON = "json"


@router.post("/{model}", summary="Redraw one image and wait for it")
async def infer(
    model: str,
    here: Annotated[Server, Depends(server)],
    asking: Annotated[Principal, Depends(Require(Role.USER))],
    image: Annotated[str, Query(max_length=100)] = "",
    session_id: Annotated[str, Query(max_length=100)] = "",
    params: Annotated[str, Form()] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
    output: ResultType = ResultType.ALL,
) -> Response:
    """Queue an image, a session or a file as interactive work, and answer with the result.

    `output` chooses between a multipart answer with the parts `params` and `image`, the image
    alone, and the params alone.
    """
    if model != TASK:
        raise NotFound("there is no such model", f"the model of this server is {TASK}")
    options = job_options(parse_params(params))
    job = await run_in_threadpool(_queue, here, asking, image, session_id, file, options)
    deadline = asyncio.get_running_loop().time() + INFER_TIMEOUT_SECONDS
    while job.state in WAITING:
        if asyncio.get_running_loop().time() > deadline:
            raise still_waiting(job)
        await asyncio.sleep(POLL_SECONDS)
        job = await run_in_threadpool(here.jobs.get, job.id)
    return await run_in_threadpool(lambda: _answer(result_of(here, job), output))


def _queue(
    here: Server,
    asking: Principal,
    image: str,
    session_id: str,
    file: UploadFile | None,
    options: JobOptions,
) -> Job:
    if session_id:
        with Sessions(here.folder.sessions).open(session_id) as content:
            return queue_upload(here, content, options, asking)
    if file is not None:
        return queue_upload(here, file.file, options, asking)
    if image:
        return queue_image(here, image, options, asking)
    raise BadRequest("there is no image, no file and no session", "name one of them")


def _answer(result: Result, output: ResultType) -> Response:
    if output is ResultType.JSON:
        return JSONResponse(result.params)
    media_type = mimetypes.guess_type(result.file.name)[0] or "application/octet-stream"
    if output is ResultType.IMAGE:
        return FileResponse(result.file, media_type=media_type, filename=result.file.name)
    fields = {
        "params": (None, json.dumps(result.params), "application/json"),
        "image": (result.file.name, result.file.read_bytes(), media_type),
    }
    message = MultipartEncoder(fields=fields)
    return Response(content=message.to_string(), media_type=message.content_type)
