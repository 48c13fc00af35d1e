"""Routes of fine-tuning: how far every run is, what it draws, and ending one early."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, Field

from monailabel_app.lib.errors import Conflict, NotFound
from monailabel_app.lib.models.comparison import ComparisonRecord, ModelReference, read_comparison
from monailabel_app.lib.security.roles import Principal, Require, Role
from monailabel_app.lib.server import Server, server
from monailabel_app.lib.trainers.parameters import TrainingParameters
from monailabel_app.lib.trainers.progress import (
    Point,
    Progress,
    RunFolder,
    TrainingStage,
    TrainingState,
    run_folder,
    run_folders,
)

router = APIRouter(prefix="/privdiff/v1/training", tags=["Training"])

STOPPED_BY = "an administrator ended it early"
EXAMPLE_ID = "20260314-092653-3fa26c"

RunId = Annotated[str, Path(max_length=50, description="Of the run.", examples=[EXAMPLE_ID])]
Admin = Annotated[Principal, Depends(Require(Role.ADMIN))]
At = Annotated[Server, Depends(server)]


class TrainingView(BaseModel):
    """One run."""

    id: str = Field(examples=[EXAMPLE_ID])
    state: TrainingState
    stage: TrainingStage
    parameters: TrainingParameters
    base: ModelReference
    started: datetime
    updated: datetime
    ended: datetime | None
    step: int = Field(examples=[12])
    steps: int = Field(examples=[40])
    latest: Point | None = Field(description="Figures of the last step.")
    eta_seconds: float | None = Field(description="Until the last step; comparing follows.")
    seconds: float = Field(description="Computed for so far.")
    model: str = Field(description="Id of the bundle that came of it; empty before.")
    reason: str = Field(description="Why it ended early, or failed.")

    @classmethod
    def of(cls, progress: Progress) -> TrainingView:
        """Show a run."""
        return cls.model_validate(progress.model_dump(exclude={"process", "history"}))


class TrainingDetails(BaseModel):
    """One run with everything that is known of it."""

    training: TrainingView
    history: tuple[Point, ...] = Field(description="Figures, evenly spread over the steps.")
    samples: list[str] = Field(
        description="Names of pictures of patients: originals above, redrawings below.",
        examples=[["step-000004.png", "step-000008.png"]],
    )
    comparison: ComparisonRecord | None = Field(description="Of old and new; null until it is.")


class TrainingList(BaseModel):
    """All runs, the newest first."""

    training: list[TrainingView]


@router.get("", summary="List the fine-tunings")
def list_training(asking: Admin, at: At) -> TrainingList:
    """List every run that this server has, also those before its last start."""
    found = []
    for folder in run_folders(at.folder.training):
        try:
            found.append(TrainingView.of(folder.read()))
        except NotFound:
            continue  # it was killed before it wrote anything
    return TrainingList(training=found)


@router.get("/{run_id}", summary="Show a fine-tuning")
def show_training(run_id: RunId, asking: Admin, at: At) -> TrainingDetails:
    """Show how far a run is, its figures, the names of its samples and its comparison."""
    folder = run_folder(at.folder.training, run_id)
    progress = folder.read()
    bundle = at.folder.models / progress.model
    return TrainingDetails(
        training=TrainingView.of(progress),
        history=progress.history,
        samples=folder.sample_names(),
        comparison=read_comparison(bundle) if progress.model else None,
    )


@router.get(
    "/{run_id}/samples/{name}",
    summary="Show a sample",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
)
def show_sample(
    run_id: RunId,
    name: Annotated[str, Path(max_length=50, examples=["step-000004.png"])],
    asking: Admin,
    at: At,
) -> Response:
    """Return a picture of patients that nothing was trained on, and of how they are redrawn.

    It is a quick look with few steps of sampling; a job draws better.
    """
    content = run_folder(at.folder.training, run_id).sample(name)
    return Response(content, media_type="image/png", headers={"Cache-Control": "no-store"})


@router.post("/{run_id}/stop", summary="End a fine-tuning early", status_code=202)
def stop_training(run_id: RunId, asking: Admin, at: At) -> TrainingView:
    """Let a run end after its next step and keep what it has trained: a bundle comes of it.

    `DELETE /train/` kills instead; the same `POST /train/privdiff` continues a run that was killed.
    """
    folder = run_folder(at.folder.training, run_id)
    return TrainingView.of(_asked_to_stop(folder, asking.name))


def _asked_to_stop(folder: RunFolder, by: str) -> Progress:
    progress = folder.read()
    early = progress.stage in (TrainingStage.PREPARING, TrainingStage.TRAINING)
    if progress.state is not TrainingState.RUNNING or not early:
        raise Conflict(
            f"this training is {progress.state.value}, at the stage {progress.stage.value}",
            "only one that still trains can end early",
        )
    folder.ask_to_stop(STOPPED_BY, by)
    return progress
