"""The legs of a fine-tuning: the denoiser on the cohort, then an adapter against recognition."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from privdiff_infer.errors import OptionError
from privdiff_infer.model.bundle import BundleInfo
from privdiff_infer.model.clusters import PatientClusters
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.pipeline import ADAPTERS, PrivDiffPipeline
from privdiff_infer.vocabulary import FindingState, Profile
from privdiff_training.cohort import Cohort
from privdiff_training.config import DataConfig
from privdiff_training.evaluation.attacks.attack import Originals
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.finetuning.config import (
    DiffusionLeg,
    FinetuneConfig,
    LegConfig,
    SuppressionLeg,
)
from privdiff_training.finetuning.folder import RunFolder, read_record, write_record
from privdiff_training.finetuning.judging import (
    Look,
    PrivacyUtilityJudge,
    best_of,
    judged_pipeline,
)
from privdiff_training.finetuning.method import Method
from privdiff_training.finetuning.settings import adapter_rank, schedule_keys
from privdiff_training.loop import train
from privdiff_training.stages.diffusion import DiffusionConfig, DiffusionStage, LatentData
from privdiff_training.stages.registry import Sources
from privdiff_training.stages.suppression import SuppressionConfig, SuppressionStage

STANDARD = Profile.STANDARD.value


@dataclass(frozen=True)
class Leg:
    """What became of one leg.

    Attributes
    ----------
    name
        ``diffusion`` or ``suppression``.
    looks
        What was seen of judging patients.
    kept
        The step that was kept; 0 if none was better than the start.
    steps
        Steps that were run.
    epsilon, delta
        Of differential privacy; None without.
    """

    name: str
    looks: tuple[Look, ...]
    kept: int
    steps: int
    epsilon: float | None = None
    delta: float | None = None


@dataclass(frozen=True)
class LegSetting:
    """What both legs need.

    Attributes
    ----------
    base
        The bundle that is adapted.
    config, method
        Of the run.
    data
        The images that train.
    judges
        Images of judging patients.
    evaluators
        Verifier and classifier.
    folder
        Of the run.
    """

    base: BundleInfo
    config: FinetuneConfig
    method: Method
    data: DataConfig
    judges: Originals
    evaluators: Evaluators
    folder: RunFolder

    @property
    def strength(self) -> float:
        """At which judging images are redrawn."""
        return self.base.metadata.operating_points[Profile.STANDARD].strength


def adapt_denoiser(setting: LegSetting) -> Leg | None:
    """Train the denoiser on the cohort, unless this run has done so; all processes call it."""
    keys = setting.config.diffusion
    if keys is None:
        return None
    done = setting.folder.leg("diffusion") / "leg.json"
    if not done.exists():
        sources = Sources(setting.folder.components, setting.base.path)
        config = DiffusionConfig(
            **_stage_keys(setting, keys),
            finding_dropout=keys.finding_dropout,
            snr_gamma=keys.snr_gamma,
            rank=keys.rank if setting.method is Method.LORA else None,
            unet={},  # of a denoiser that starts afresh
        )
        stage = _diffusion_stage(setting, config, sources)
        _run(setting, "diffusion", stage, sources, done)
    return _read(done)


def tune_adapter(setting: LegSetting) -> Leg | None:
    """Train the adapter of the profile `standard`, unless done; all processes call it.

    An adapter that gained nothing is not put into the bundle.
    """
    keys = setting.config.suppression
    if keys is None:
        return None
    done = setting.folder.leg("suppression") / "leg.json"
    if not done.exists():
        sources = Sources(setting.folder.components, setting.base.path)
        config = SuppressionConfig(
            **{
                **_stage_keys(setting, keys),
                "rank": adapter_rank(setting.base, STANDARD, keys.rank),
                "adapter": STANDARD,
                **keys.further,
            }
        )
        stage = SuppressionStage(
            config,
            sources.autoencoder(),
            sources.need("identity", IdentityEmbedder),
            sources.need("reader", RadiographReader),
            sources.need("denoiser", PrivDiffDenoiser),
            sources.first_adapter(STANDARD),
        )
        _run(setting, "suppression", stage, sources, done)
    leg = _read(done)
    if leg.kept == 0 and PartialState().is_main_process:
        shutil.rmtree(setting.folder.components / ADAPTERS / STANDARD, ignore_errors=True)
    PartialState().wait_for_everyone()
    return leg


def _diffusion_stage(
    setting: LegSetting, config: DiffusionConfig, sources: Sources
) -> DiffusionStage:
    parts = (
        sources.autoencoder(),
        sources.need("identity", IdentityEmbedder),
        sources.first_denoiser(),
    )
    privacy = setting.config.private_training
    if privacy is None:
        return DiffusionStage(config, *parts)
    try:
        from privdiff_training.stages.private_diffusion import PrivateDiffusionStage
    except ModuleNotFoundError as error:
        raise OptionError(
            f"differentially private training needs the module {error.name}",
            "install the extra with pip install 'privdiff[privacy]'",
        ) from error
    return PrivateDiffusionStage(
        config,
        *parts,
        epsilon=privacy.epsilon,
        clip=privacy.clip,
        secret=setting.folder.secret(),
    )


def _run(
    setting: LegSetting,
    name: str,
    stage: DiffusionStage | SuppressionStage,
    sources: Sources,
    done: Path,
) -> None:
    """Train under a judge; the record is written last."""
    stage.started_from = sources.started_from
    pipeline = judged_pipeline(
        stage,
        sources.need("identity", IdentityEmbedder),
        sources.need("reader", RadiographReader),
        sources.find("clusters", PatientClusters),
    )
    read_missing_findings(stage.data, pipeline)
    judge = PrivacyUtilityJudge(
        stage,
        pipeline,
        setting.strength,
        spread(setting.judges, setting.config.judge.images),
        setting.evaluators,
        setting.config.judge,
        setting.folder.leg(name),
        setting.config.seed,
    )
    train(stage, setting.folder.leg(name) / "run", setting.folder.components, judge=judge)
    if PartialState().is_main_process:
        steps = max(judge.looks)
        write_record(done, _record(stage, judge.looks, steps, setting.config))
    PartialState().wait_for_everyone()


@torch.no_grad()
def read_missing_findings(data: LatentData, pipeline: PrivDiffPipeline) -> None:
    """Give images without any findings those that the bundle's own reader sees.

    They are what such an image is redrawn with. Left unknown, the cohort would teach the denoiser
    to draw without findings.
    """
    findings = data.labels.findings.clone()
    rows = (findings == FindingState.UNKNOWN).all(dim=1).nonzero()[:, 0]
    if not len(rows):
        return
    pipeline.to(data.images.device)
    for part in rows.split(32):
        findings[part] = pipeline.read_findings(data.images.images(part)).cpu()
    data.labels = replace(data.labels, findings=findings)


def _stage_keys(setting: LegSetting, keys: DiffusionLeg | SuppressionLeg) -> dict[str, Any]:
    return {
        **keys.model_dump(include=set(LegConfig.model_fields)),
        "data": setting.data,
        "schedule": schedule_keys(setting.base),
        "latent_versions": keys.latent_versions,
        "mixed_precision": setting.config.mixed_precision,
        "seed": setting.config.seed,
    }


def spread(images: Originals, count: int) -> Originals:
    """Return so many images, the first one of every patient first, then the second ones."""
    seen: Counter[str] = Counter()
    turns = []
    for row in images.cohort:
        turns.append(seen[row.unit])
        seen[row.unit] += 1
    chosen = sorted(sorted(range(len(turns)), key=lambda row: turns[row])[:count])
    rows = tuple(images.cohort.rows[row] for row in chosen)
    return Originals(Cohort(images.cohort.root, rows), images.pixels[chosen])


def _record(
    stage: DiffusionStage | SuppressionStage,
    looks: dict[int, Look],
    steps: int,
    config: FinetuneConfig,
) -> dict[str, Any]:
    return {
        "name": stage.config.stage,
        "looks": [asdict(look) for look in looks.values()],
        "kept": best_of(looks, config.judge).step,
        "steps": steps,
        **stage.privacy_spent(steps),
    }


def _read(path: Path) -> Leg:
    record = read_record(path)
    return Leg(**{**record, "looks": tuple(Look(**look) for look in record["looks"])})
