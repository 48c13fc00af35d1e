"""The server as an ASGI application: MONAI Label's routes that are safe, and ours.

Started by `privdiff serve`, or by MONAI Label's launcher with ``--uvicorn_app
monailabel_app.lib.asgi:app``. It is an application of our own, so that a route of MONAI Label is
there only because it is named here: uploads of weights, the proxy to the store, reloading and the
rest are not, and neither is its CORS, which is open to everybody.
"""

from __future__ import annotations

from monailabel_app.lib import compat

compat.install()  # before anything of monailabel

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from monailabel.config import settings as theirs
from monailabel.endpoints import activelearning, batch_infer, info, train
from monailabel.endpoints.user.auth import User, get_current_user
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks import utils as their_tasks

from monailabel_app.lib import about, answers, log, sessions, tasks
from monailabel_app.lib.datastores import routes as datastore
from monailabel_app.lib.datastores.cache import forget_old_files
from monailabel_app.lib.infers import routes as infer
from monailabel_app.lib.jobs import routes as jobs
from monailabel_app.lib.jobs.supervisor import Supervisor
from monailabel_app.lib.models import routes as models
from monailabel_app.lib.review import routes as review
from monailabel_app.lib.security.middleware import protect
from monailabel_app.lib.security.roles import principal
from monailabel_app.lib.security.sign_in import authenticator_of
from monailabel_app.lib.state_folder import StateFolder
from monailabel_app.lib.study import routes as study
from monailabel_app.lib.trainers import routes as training
from monailabel_app.lib.trainers.told import tell_of_killed
from monailabel_app.lib.upstream import configure, settings_from_launcher
from privdiff_infer import __version__

logger = logging.getLogger(__name__)

MB = 10**6

TIDY_SECONDS = 300

Address = tuple[frozenset[str], str]
"""Methods and path of a route."""

THEIRS = (info, activelearning, batch_infer, train)
"""Modules of MONAI Label whose routes are served."""

OURS: tuple[APIRouter, ...] = (
    about.router,
    jobs.router,
    review.router,
    study.router,
    infer.router,
    tasks.router,
    datastore.router,
    sessions.router,
    models.router,
    training.router,
)
"""Ours; where both have a route, it is ours."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the parts of the server, and close them."""
    instance = await run_in_threadpool(app_instance)
    instance.server_mode(True)
    app.state.server = instance.server
    await run_in_threadpool(tell_of_killed, instance.server.folder.training, instance.server.audit)
    app.state.datastore = instance.datastore()
    instance.server.studies.read_ahead()
    app.state.supervisor = Supervisor(instance.server.settings)
    app.state.supervisor.start()
    tidying = asyncio.create_task(_tidy(instance.server.folder))
    try:
        yield
    finally:
        tidying.cancel()
        await run_in_threadpool(app.state.supervisor.stop)
        await run_in_threadpool(_end_their_tasks)
        instance.server.jobs.close()


async def _tidy(folder: StateFolder) -> None:
    """Forget, as time goes by, what clients sent or asked for and need no more."""
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        try:
            await run_in_threadpool(sessions.Sessions(folder.sessions).remove_expired)
            await run_in_threadpool(forget_old_files, folder.cache)
        except Exception as error:  # the next time, perhaps; its text can name a file
            logger.error("tidying failed", extra={"facts": {"kind": type(error).__name__}})


def create_app() -> FastAPI:
    """Return the application; settings come from the launcher and the environment."""
    settings = settings_from_launcher(
        theirs.MONAI_LABEL_APP_DIR, theirs.MONAI_LABEL_STUDIES, theirs.MONAI_LABEL_APP_CONF
    )
    configure(settings)
    folder = StateFolder(settings.state)
    folder.empty_temporary()
    log.configure(folder, "server")
    app = FastAPI(
        title="PrivDiff-Net", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    for router in OURS:
        app.include_router(router)
    ours = {_address(route) for router in OURS for route in _routes(router)}
    for module in THEIRS:
        app.include_router(_in_threads(module.router, but=ours))
    app.dependency_overrides[get_current_user] = _their_user
    answers.install(app, mistakes=(MONAILabelException,))
    protect(app, authenticator_of(settings), settings.max_upload_mb * MB)
    return app


def _in_threads(router: APIRouter, but: Container[Address]) -> APIRouter:
    """Return MONAI Label's routes as ones that leave the event loop alone.

    Its endpoints are coroutines that never wait but call what takes long.
    """
    copy = APIRouter()
    for route in _routes(router):
        if _address(route) in but or route.deprecated:
            continue
        copy.add_api_route(
            route.path,
            _in_thread(route.endpoint),
            methods=sorted(route.methods or ()),
            tags=route.tags,
            summary=route.summary,
            include_in_schema=route.include_in_schema,
            name=route.name,
        )
    return copy


def _routes(router: APIRouter) -> list[APIRoute]:
    return [route for route in router.routes if isinstance(route, APIRoute)]


def _address(route: APIRoute) -> Address:
    return frozenset(route.methods or ()), route.path.rstrip("/")


def _in_thread(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    def run(**arguments: Any) -> Any:
        try:
            endpoint(**arguments).send(None)
        except StopIteration as end:
            return end.value
        raise RuntimeError(f"{endpoint.__name__} waits, so it belongs into the event loop")

    # FastAPI reads the parameters from here; `functools.wraps` would show it the coroutine.
    run.__signature__ = inspect.signature(endpoint)  # type: ignore[attr-defined]
    run.__name__ = endpoint.__name__
    run.__doc__ = endpoint.__doc__
    return run


async def _their_user(request: Request) -> User:
    """Tell MONAI Label who asks; what they may do was decided before."""
    return User(username=principal(request).name)


def _end_their_tasks() -> None:
    """End training and batches with all their processes; none of those waiting begins."""
    while their_tasks.background_executors:
        _, executor = their_tasks.background_executors.popitem()
        executor.shutdown(wait=False, cancel_futures=True)
    for method in list(their_tasks.background_processes):
        while their_tasks.processes(method):
            their_tasks.stop_background_task(method)


@cache
def _the_app() -> FastAPI:
    return create_app()


def __getattr__(name: str) -> FastAPI:
    """Return `app`, made when it is asked for: the module alone needs no settings."""
    if name == "app":
        return _the_app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
