"""Routes of models: what there is, and which one jobs take by default."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field

from monailabel_app.lib.models.comparison import ComparisonRecord
from monailabel_app.lib.models.registry import Model, Origin
from monailabel_app.lib.security.roles import Principal, Require, Role
from monailabel_app.lib.server import Server, server
from privdiff_infer.model.bundle import BundleInfo, Evaluated, Measured, OperatingPoint
from privdiff_infer.vocabulary import Profile

router = APIRouter(prefix="/privdiff/v1/models", tags=["Models"])

EXAMPLE_ID = "privdiff-cxr-256-0.6.0"

ModelId = Annotated[
    str, Path(max_length=200, description="`<name>-<version>`.", examples=[EXAMPLE_ID])
]


class BundleView(BaseModel):
    """What a bundle says of itself."""

    name: str = Field(examples=["privdiff-cxr-256"])
    version: str = Field(examples=["0.6.0"])
    sha256: str = Field(description="Of its metadata, which names the hashes of its weights.")
    summary: str
    licence: str = Field(examples=["Apache-2.0"])
    training_data: str
    intended_use: str
    image_size: int = Field(description="Side of the model grid in pixels.", examples=[256])
    size_bytes: int
    evaluated_under_18: bool = Field(description="Else images of patients under 18 are held.")
    profiles: list[Profile] = Field(description="Ways of sampling that have an operating point.")
    operating_points: dict[Profile, OperatingPoint]
    measured: dict[Profile, dict[str, Measured]] = Field(
        description="Linkage and kept findings by profile and strength; empty: not measured.",
        examples=[
            {
                "standard": {
                    "0.7": {
                        "linkage_auc": 0.746,
                        "interval": [0.718, 0.778],
                        "findings_auc": 0.581,
                        "n": 239,
                    }
                }
            }
        ],
    )
    evaluation: Evaluated | None = Field(
        description="What the strongest attackers found at the default; null: not evaluated."
    )
    linkage_limit: float = Field(
        description="Above this cosine of source and result an attempt fails.", examples=[0.6]
    )

    @classmethod
    def of(cls, info: BundleInfo) -> BundleView:
        """Show a bundle."""
        metadata = info.metadata
        return cls(
            sha256=info.sha256,
            size_bytes=info.size_bytes,
            profiles=list(metadata.operating_points),
            linkage_limit=metadata.gates.linkage_similarity,
            **metadata.model_dump(exclude={"files", "gates", "format_version"}),
        )


class ModelView(BaseModel):
    """One bundle."""

    id: str = Field(description="What a job names as its model.", examples=[EXAMPLE_ID])
    origin: Origin
    default: bool = Field(description="Whether jobs take it that name none.")
    problem: str = Field(description="Why it cannot be used; empty: it can.", examples=[""])
    bundle: BundleView | None = Field(description="null where its metadata is not understood.")
    comparison: ComparisonRecord | None = Field(
        description="With the bundle that it was trained from; null for one not trained here."
    )

    @classmethod
    def of(cls, model: Model, default: str) -> ModelView:
        """Show a model, given the id of the default."""
        return cls(
            id=model.id,
            origin=model.origin,
            default=not model.problem and model.id == default,
            problem=model.problem,
            bundle=None if model.info is None else BundleView.of(model.info),
            comparison=model.comparison,
        )


class ModelList(BaseModel):
    """All bundles of this server."""

    default: str = Field(
        description="Id of the default; empty while it cannot be used.", examples=[EXAMPLE_ID]
    )
    models: list[ModelView]


@router.get("", summary="List the models")
def list_models(
    asking: Annotated[Principal, Depends(Require(Role.USER))],
    at: Annotated[Server, Depends(server)],
) -> ModelList:
    """List every bundle with its measured risk and utility, also those that cannot be used.

    A new bundle appears as soon as its training ends; the server is not started again.
    """
    default = at.models.default_id()
    return ModelList(
        default=default, models=[ModelView.of(model, default) for model in at.models.models()]
    )


@router.post("/{model_id}/default", summary="Make a model the default")
def make_default(
    model_id: ModelId,
    asking: Annotated[Principal, Depends(Require(Role.ADMIN))],
    at: Annotated[Server, Depends(server)],
) -> ModelView:
    """Let jobs that name no model use this one, from the next job that begins.

    A model that was trained here is refused with 409 unless its linkage was measured beside that of
    the model it replaces. Going back to that one is always possible.
    """
    model = at.models.activate(model_id, asking.name, at.audit)
    return ModelView.of(model, model.id)
