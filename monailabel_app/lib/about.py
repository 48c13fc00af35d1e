"""Routes of the server itself: whether it is well, and who asks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError

from monailabel_app.lib.answers import answer
from monailabel_app.lib.jobs.supervisor import Supervisor
from monailabel_app.lib.security.roles import Principal, Require, Role
from monailabel_app.lib.server import Server, server
from privdiff_infer import __version__

router = APIRouter(prefix="/privdiff/v1", tags=["Server"])

At = Annotated[Server, Depends(server)]


class Health(BaseModel):
    """What anybody may know."""

    status: str = Field(examples=["ok"])
    version: str = Field(examples=["0.1.0"])


class Me(BaseModel):
    """Who asks, and what this server lets them do."""

    name: str = Field(examples=["reviewer-1"])
    role: Role
    two_person: bool = Field(description="Whether an approval needs two people.")
    store: bool = Field(description="Whether the server has a store to publish to.")


@router.get(
    "/health",
    summary="Ask whether the server is well",
    response_model=Health,
    responses={503: {"description": "The dispatcher or the database is not there."}},
)
def health(request: Request, at: At) -> Any:
    """Tell whether jobs are taken; needs no token."""
    supervisor: Supervisor = request.app.state.supervisor
    try:
        at.jobs.counts()
    except SQLAlchemyError:
        return _unwell("the database cannot be reached")
    if not supervisor.is_alive:
        return _unwell("jobs are not taken: their process is being started again")
    return Health(status="ok", version=__version__)


@router.get("/me", summary="Ask who you are")
def me(who: Annotated[Principal, Depends(Require(Role.USER))], at: At) -> Me:
    """Tell the name and role behind the token."""
    return Me(
        name=who.name,
        role=who.role,
        two_person=at.settings.two_person,
        store=bool(at.settings.store),
    )


def _unwell(message: str) -> JSONResponse:
    return answer(503, "unavailable", message, "ask again soon, or ask the administrator")
