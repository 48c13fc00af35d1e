"""What every training configuration has in common; unknown keys are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from privdiff_infer.errors import ConfigError
from privdiff_infer.vocabulary import AGE_BIN_EDGES
from privdiff_training.cohort import (
    Cohort,
    CohortImage,
    is_judging_patient,
    is_select_patient,
    read_manifest,
)


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceConfig(Strict):
    """Images of one data set in some splits, and their part of every batch."""

    dataset: str = Field("cohort", description="Value of the manifest's column `dataset`.")
    folds: tuple[str, ...] | None = Field(None, description="Splits to use; none means all.")
    share: float = Field(1.0, gt=0, le=1, description="Part of every batch.")


class DataConfig(Strict):
    """Where the images are and which of them train."""

    manifest: Path = Field(Path("../shared/data/metadata.csv"), description="CSV of the cohort.")
    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    image_size: int = Field(256, ge=32, description="Side of the model grid in pixels.")
    cache_dir: Path = Field(Path("runs/cache"), description="For prepared pixels and latents.")
    exclude_units_of_folds: tuple[str, ...] = Field(
        (), description="Leave out images whose strict unit also occurs in these splits."
    )

    judging_folds: tuple[str, ...] = Field(
        (), description="Leave out the fifth of the patients of these splits that judges networks."
    )

    def read_sources(self) -> list[Cohort]:
        """Return one cohort per source, without the patients of select and judging sets."""
        cohort = read_manifest(self.manifest)
        barred = cohort.where(lambda row: row.fold in self.exclude_units_of_folds)
        usable = cohort.where(self._may_train).without_units_of(barred)
        chosen = []
        for source in self.sources:
            part = usable.where(
                lambda row, source=source: (
                    row.dataset == source.dataset  # type: ignore[misc]
                    and (source.folds is None or row.fold in source.folds)
                )
            )
            if not len(part):
                raise ConfigError(
                    f"source {source.dataset} with folds {source.folds} has no images",
                    "check the dataset and split names against the manifest",
                )
            chosen.append(part)
        return chosen

    def _may_train(self, row: CohortImage) -> bool:
        judges = row.fold in self.judging_folds and is_judging_patient(row)
        return not judges and not is_select_patient(row)


class StageConfig(Strict):
    """Keys of every stage."""

    stage: str
    data: DataConfig = DataConfig()
    steps: int = Field(ge=1, description="Updates of the first player.")
    batch_size: int = Field(ge=1, description="Global batch over all processes.")
    learning_rate: float = Field(1e-4, gt=0, description="Of AdamW.")
    weight_decay: float = Field(0.0, ge=0, description="Of AdamW.")
    warmup_steps: int = Field(0, ge=0, description="Steps of rising learning rate.")
    decay: Literal["none", "cosine"] = Field("none", description="Of the learning rate.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to it.")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="Of the exported average.")
    seed: int = Field(0, description="Of everything random in the stage.")
    checkpoint_every: int = Field(500, ge=1, description="Steps between checkpoints.")
    log_every: int = Field(20, ge=1, description="Steps between log entries.")
    mixed_precision: Literal["no", "fp16", "bf16"] = Field("no", description="Of accelerate.")


ADULT_YEARS = AGE_BIN_EDGES[0]

ConfigT = TypeVar("ConfigT", bound=Strict)


def load_config(path: Path, config_class: type[ConfigT]) -> ConfigT:
    """Read the YAML file of one stage.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key is unknown or its value impossible; the message names
        the key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML", "check path and syntax") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text", "save the file as UTF-8") from error
    try:
        return config_class.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "file"
        raise ConfigError(
            f"{path.name}: {key}: {first['msg']}", f"see the keys of {config_class.__name__}"
        ) from error
