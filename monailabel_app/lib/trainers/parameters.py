"""What a client may say about a fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from monailabel_app.lib.errors import BadRequest
from privdiff_infer.vocabulary import Profile

OF_MONAI_LABEL = frozenset({"model", "gpus", "local_rank", "client_id"})
"""Keys that MONAI Label and its clients add to every request; they say nothing to us."""


class TunedProfile(str, Enum):
    """The profiles whose adapter the suppression stage trains."""

    STANDARD = "standard"
    PAPER = "paper"

    @property
    def profile(self) -> Profile:
        """The same in the vocabulary of the library."""
        return Profile(self.value)


class TrainingParameters(BaseModel):
    """Parameters of ``POST /train/privdiff``; none is a path, and unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(40, ge=1, le=100_000, description="Updates.")
    learning_rate: float = Field(1e-4, gt=0, le=0.1, description="Of AdamW.")
    batch_size: int = Field(8, ge=2, le=256, description="Images a step.")
    seed: int = Field(0, ge=0, lt=2**31, description="Of everything random.")
    profile: TunedProfile = Field(TunedProfile.STANDARD, description="Whose adapter is trained.")
    max_minutes: float = Field(
        60, gt=0, le=20_160, description="After which training ends early and keeps what it has."
    )
    resume: bool = Field(
        True, description="Continue an unfinished run with the same parameters, if there is one."
    )

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> TrainingParameters:
        """Read a request of MONAI Label.

        Raises
        ------
        BadRequest
            If a key is unknown or its value impossible; neither is quoted.
        """
        try:
            return cls.model_validate(
                {key: value for key, value in request.items() if key not in OF_MONAI_LABEL}
            )
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            key = str(first["loc"][0])
            known = ", ".join(cls.model_fields)
            if key not in cls.model_fields:
                raise BadRequest("fine-tuning has no such parameter", f"use {known}") from None
            raise BadRequest(f"{key}: {first['msg']}", "correct it, or leave it out") from None

    @classmethod
    def choices(cls) -> dict[str, Any]:
        """Return every parameter with its default, a list where one of a few is chosen."""
        defaults = cls().model_dump(mode="json")
        return defaults | {"profile": [profile.value for profile in TunedProfile]}

    def equals(self, other: TrainingParameters) -> bool:
        """Tell whether another request asks for the same training, to be continued or not."""
        return self.model_copy(update={"resume": other.resume}) == other
