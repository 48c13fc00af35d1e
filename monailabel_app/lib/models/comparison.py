"""What was measured of a bundle that was trained here and of the one that it started from."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from privdiff_infer.vocabulary import Profile


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
"""A figure; None where the images did not suffice, for JSON has no NaN."""


class Record(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelReference(Record):
    """One bundle, exactly: another one may come by the same name."""

    id: str = Field(description="`<name>-<version>`.", examples=["privdiff-cxr-256-0.6.0"])
    sha256: str = Field(description="Of its metadata, which names the hashes of its weights.")


class Interval(Record):
    """A figure, its 95 % interval and the number of patients behind it."""

    value: Number
    low: Number
    high: Number
    patients: int


class ModelFigures(Record):
    """What was measured on one set of images."""

    same_image: Interval = Field(description="Linkage AUC to the very originals; 0.5 is chance.")
    follow_up: Interval = Field(description="Linkage AUC to other images of the same people.")
    findings: Interval = Field(description="Macro AUC of the findings that are still read.")
    kernel_distance: Number = Field(description="KID to the originals.")
    similarity: Number = Field(description="Mean cosine of an image and its original.")


class ComparisonFigures(Record):
    """Two bundles on the same images of the same people."""

    old: ModelFigures
    new: ModelFigures
    originals: ModelFigures
    labels_only: Interval = Field(description="Linkage AUC by the labels that are kept: the floor.")
    new_minus_old: dict[str, Interval]
    findings_counted: tuple[str, ...]
    images: int
    patients: int


class ComparisonRecord(Record):
    """The content of ``<name>-<version>.comparison.json``, beside the bundle."""

    old: ModelReference
    new: ModelReference
    profile: Profile
    time: datetime
    reason: str = Field("", description="Why nothing was measured; empty where it was.")
    figures: ComparisonFigures | None = None

    @property
    def is_measured(self) -> bool:
        """Whether linkage is known of both bundles."""
        return self.figures is not None and all(
            side.same_image.value is not None for side in (self.figures.old, self.figures.new)
        )

    def pairs(self, one: str, other: str) -> bool:
        """Tell whether these two bundles, by SHA-256, are the ones that were measured."""
        return self.is_measured and {one, other} == {self.old.sha256, self.new.sha256}


def comparison_file(bundle: Path) -> Path:
    """Return where the comparison of a bundle lies: beside it, for it is no file of the bundle."""
    return bundle.with_name(f"{bundle.name}.comparison.json")


def read_comparison(bundle: Path) -> ComparisonRecord | None:
    """Return the comparison of a bundle, or None where there is none that can be read."""
    try:
        return ComparisonRecord.model_validate_json(comparison_file(bundle).read_bytes())
    except (OSError, ValidationError):
        return None
