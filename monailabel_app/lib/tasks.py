"""MONAI Label's routes that begin and end long tasks: batch inference and training.

A task is a process that MONAI Label starts; asking how it is stays with upstream's routes.
"""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.utils.async_tasks.task import AsyncTask

from monailabel_app.lib.batch import BatchRequest, batches
from monailabel_app.lib.errors import BadRequest, Busy, Conflict, NotFound
from monailabel_app.lib.infers.params import check_json
from monailabel_app.lib.jobs.cancelling import cancel
from monailabel_app.lib.jobs.queueing import check_options
from monailabel_app.lib.jobs.states import WAITING
from monailabel_app.lib.security.roles import Principal, Require, Role
from monailabel_app.lib.server import Server, server
from monailabel_app.lib.trainers.parameters import TrainingParameters
from monailabel_app.lib.trainers.privdiff import cohort_of
from monailabel_app.lib.trainers.told import ORDER, take_order, tell_of_killed, write_order
from monailabel_app.lib.upstream import TASK

BATCH, TRAIN = "batch_infer", "train"

RUNNING = "RUNNING"
"""A status of MONAI Label's tasks."""

router = APIRouter()

Admin = Annotated[Principal, Depends(Require(Role.ADMIN))]
Here = Annotated[Server, Depends(server)]
Params = Annotated[dict[str, Any] | None, Body()]


def refuse_run_sync(run_sync: Annotated[bool, Query(deprecated=True)] = False) -> None:
    """Refuse to run a long task in the process of the server; a dependency of routes.

    Raises
    ------
    BadRequest
        If that was asked for.
    """
    if run_sync:
        raise BadRequest("long tasks run in processes of their own", "leave run_sync out")


@router.post(
    "/batch/infer/{model}",
    tags=["Infer"],
    summary="Redraw many images",
    dependencies=[Depends(refuse_run_sync)],
)
def run_batch(
    model: str,
    here: Here,
    asking: Admin,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
    params: Params = None,
) -> dict[str, Any]:
    """Queue originals as batch work; what was done with the same options is not done again.

    `params` are options of the jobs; a list `images` of ids in it overrides the query.
    """
    _check_model(model)
    wanted = BatchRequest.of(params or {}, images.value, asking.name)
    check_options(here, wanted.options)
    return _run(BATCH, {"model": TASK, "batch": wanted.save(here.folder)})


@router.delete("/batch/infer", tags=["Infer"], summary="End the running batch")
def stop_batch(here: Here, asking: Admin) -> dict[str, Any] | None:
    """End the process of a batch, and cancel the jobs of all batches that are not done.

    Those of a batch that a server before this one began are among them.
    """
    task: dict[str, Any] | None = AsyncTask.stop(BATCH)
    cancel_batches(here, asking.name)
    return task or newest_batch(here)


@router.get("/batch/infer", tags=["Infer"], summary="How the batch is, or the last one")
def get_batch(here: Here, asking: Admin, all: bool = False, check_if_running: bool = False) -> Any:
    """Return the newest batch; after a restart of the server, what the queue knows of it."""
    known, _ = AsyncTask.status(BATCH, all, check_if_running)
    if known is not None:
        return known
    newest = newest_batch(here)
    if newest is None or (check_if_running and newest["status"] != RUNNING):
        raise NotFound("there is no such batch", f"begin one with POST /batch/infer/{TASK}")
    return [newest] if all and not check_if_running else newest


@router.post(
    "/train/{model}",
    tags=["Train"],
    summary="Fine-tune the model",
    dependencies=[Depends(refuse_run_sync)],
)
def run_training(
    model: str, here: Here, asking: Admin, params: Params = None, enqueue: bool = False
) -> dict[str, Any]:
    """Fine-tune the default bundle on the server's cohort; see the trainer's config in /info/."""
    _check_model(model)
    check_json(params)
    chosen = TrainingParameters.of(params or {}).model_dump(mode="json", exclude_unset=True)
    cohort_of(here.settings)
    order = write_order(here.folder.training, asking.name)
    try:
        return _run(TRAIN, {"model": TASK, **chosen, ORDER: order}, enqueue=enqueue)
    except Busy:
        take_order(here.folder.training, order)
        raise


@router.delete("/train/", tags=["Train"], summary="Kill the running fine-tuning")
def kill_training(here: Here, asking: Admin) -> dict[str, Any] | None:
    """Kill the process of a fine-tuning; asking for the same one again continues it."""
    task: dict[str, Any] | None = AsyncTask.stop(TRAIN)
    if task is not None:
        tell_of_killed(here.folder.training, here.audit, asking.name)
    return task


def newest_batch(here: Server) -> dict[str, Any] | None:
    """Return the newest batch in the form of MONAI Label's tasks, from STATE and the queue alone.

    Its process may have ended with a server before this one; its jobs stay in the queue.
    """
    known = batches(here.folder)
    if not known:
        return None
    is_waiting = here.jobs.page(states=WAITING, batch=known[-1], limit=1).jobs
    status = RUNNING if is_waiting else "DONE"
    return {
        "id": known[-1],
        "status": status,
        "request": {"model": TASK, "batch": known[-1]},
        "details": [],
    }


def cancel_batches(here: Server, by: str) -> None:
    """Cancel the jobs of all batches that are not done; those that clients named stay."""
    ours = set(batches(here.folder))
    after: int | None = 0
    while after is not None:
        page = here.jobs.page(states=WAITING, after=after)
        for job in page.jobs:
            if job.batch in ours:
                with contextlib.suppress(Conflict):  # it was done meanwhile
                    cancel(here, job.id, by)
        after = page.next


def _run(method: str, request: dict[str, Any], *, enqueue: bool = False) -> dict[str, Any]:
    task: dict[str, Any] | None
    task, _ = AsyncTask.run(method, request=request, enqueue=enqueue)
    if task is None:
        raise Busy("one such task runs already", "wait for its end, or stop it")
    return task


def _check_model(name: str) -> None:
    if name != TASK:
        raise NotFound("there is no such model", f"the model of this server is {TASK}")
