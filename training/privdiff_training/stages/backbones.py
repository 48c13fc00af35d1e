"""Which network carries a critic: one of MONAI or an image encoder of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from transformers import AutoConfig, AutoModel
from typing_extensions import Self

from privdiff_infer.errors import ConfigError
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_training.config import Strict


class BackboneConfig(Strict):
    """A MONAI ResNet by default; `pretrained` names a transformers folder to start from instead."""

    kind: Literal["resnet", "densenet", "transformers"] = "resnet"
    layers: tuple[int, ...] | None = None
    widths: tuple[int, ...] | None = None
    init_features: int | None = None
    growth_rate: int | None = None
    config: dict[str, Any] | None = None
    pretrained: Path | None = Field(None, description="Folder of a ViT, DINOv2 or the like.")

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values  # pydantic says what is wrong with it
        if values.get("kind", "resnet") == "resnet":
            return {"layers": (2, 2, 2, 2), "widths": (48, 96, 192, 384), **values}
        if values["kind"] == "densenet":
            return {"layers": (6, 12, 24, 16), "init_features": 64, "growth_rate": 32, **values}
        if values.get("pretrained") and not values.get("config"):
            folder = Path(values["pretrained"])
            if not (folder / "config.json").is_file():
                raise ConfigError(f"{folder} holds no image encoder", "name a transformers folder")
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            return {**values, "config": config.to_dict()}
        return values

    @model_validator(mode="after")
    def _has_an_encoder(self) -> Self:
        if self.kind == "transformers" and not (self.config or {}).get("model_type"):
            raise ValueError(
                "kind transformers needs `pretrained`, the folder of an image encoder, or `config` "
                "with its model_type"
            )
        return self


def load_pretrained(critic: IdentityEmbedder | RadiographReader, folder: Path) -> None:
    """Copy the weights of a transformers folder into the backbone of a critic."""
    encoder = AutoModel.from_pretrained(folder, local_files_only=True)
    critic.encoder.get_submodule("encoder").load_state_dict(encoder.state_dict())
