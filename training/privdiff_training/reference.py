"""The reference of all configuration keys, made from the classes that read them."""

from __future__ import annotations

import re
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from privdiff_training.assemble import BundleConfig
from privdiff_training.clusters import ClustersConfig, ExemplarsConfig
from privdiff_training.config import DataConfig, SourceConfig
from privdiff_training.evaluation.attacks.config import (
    AttackersConfig,
    AttributeConfig,
    EncoderConfig,
    InverterConfig,
    MetricConfig,
    SiameseConfig,
)
from privdiff_training.finetuning.config import (
    CriticsConfig,
    DiffusionLeg,
    FinetuneConfig,
    GateConfig,
    JudgeConfig,
    LegConfig,
    PrivateTraining,
    SplitConfig,
    SuppressionLeg,
)
from privdiff_training.stages.backbones import BackboneConfig
from privdiff_training.stages.diffusion import BranchConfig, SASMixture, ScheduleConfig
from privdiff_training.stages.registry import CONFIGS

INTRODUCTION = """# Configuration

One YAML file per stage (`training/configs`), plus `clusters.yaml` for `privdiff fit-clusters`,
`bundle.yaml` for `privdiff assemble`, the file of `privdiff finetune` and, if wanted, a file of
attackers for `privdiff evaluate`. Unknown keys are errors. Keys without a default must be given.
"""


def configuration_reference() -> str:
    """Return the reference as Markdown."""
    stages = {f"Stage `{name}`": model for name, model in CONFIGS.items()}
    parts: dict[str, type[BaseModel]] = {
        "`data`": DataConfig,
        "An entry of `data.sources`": SourceConfig,
        "`backbone`": BackboneConfig,
        "`schedule`": ScheduleConfig,
        "`branches`, parts of a batch that carry each condition": BranchConfig,
        "`sas`, parts of a batch in each mode": SASMixture,
        "`clusters.yaml`": ClustersConfig,
        "`exemplars` of `clusters.yaml`": ExemplarsConfig,
        "`bundle.yaml`": BundleConfig,
        **stages,
        "The file of `privdiff finetune --config`": FinetuneConfig,
        "`split`, who trains, judges and measures": SplitConfig,
        "`critics`": CriticsConfig,
        "`critics.reader` and `critics.identity`": LegConfig,
        "`diffusion` of a fine-tuning": DiffusionLeg,
        "`suppression` of a fine-tuning": SuppressionLeg,
        "`private_training`": PrivateTraining,
        "`judge`": JudgeConfig,
        "`gate`": GateConfig,
        "The file of `privdiff evaluate --attackers`": AttackersConfig,
        "`siamese`, attackers A1 and A2": SiameseConfig,
        "`metric`, attacker A3": MetricConfig,
        "`inverter`, attacker A7": InverterConfig,
        "`attributes`, attackers of sex and age": AttributeConfig,
        "An entry of `encoders`, attacker A4": EncoderConfig,
    }
    return INTRODUCTION + "".join(_section(title, model) for title, model in parts.items())


def _section(title: str, model: type[BaseModel]) -> str:
    lines = ["", f"## {title}", "", "| key | type | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        default = "" if field.default is PydanticUndefined else f"`{_plain(field.default)}`"
        description = _in_a_cell(field.description or "")
        lines.append(f"| `{name}` | {_kind(field)} | {default} | {description} |")
    return "\n".join(lines) + "\n"


def _kind(field: FieldInfo) -> str:
    annotation = field.annotation
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__name__
    without_modules = re.sub(r"\b[a-z_]+(\.[a-z_]+)*\.(?=[A-Z])", "", str(annotation))
    return _in_a_cell(without_modules)


def _in_a_cell(text: str) -> str:
    return text.replace("|", "\\|")


def _plain(value: object) -> str:
    if isinstance(value, BaseModel):
        return "see its section"
    if isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
        return "see its section"
    return str(value)
