"""Reader and identity network fitted to the cohort, and kept if they are better there.

Better is judged on patients that nothing trains on. What is scaled by a critic moves with it: the
thresholds of the gates are put where they let as much through as before.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from privdiff_infer.model.bundle import BundleInfo, GateThresholds
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_infer.vocabulary import FINDINGS
from privdiff_training.config import DataConfig
from privdiff_training.evaluation.attacks.attack import Originals
from privdiff_training.evaluation.findings import FindingsTrial
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial
from privdiff_training.evaluation.networks import read_findings
from privdiff_training.finetuning.config import CriticsConfig, LegConfig
from privdiff_training.finetuning.folder import RunFolder, read_record, write_record
from privdiff_training.finetuning.groups import lacks_patients_for_groups, regroup
from privdiff_training.loop import train
from privdiff_training.stages.identity import IdentityConfig, IdentityStage
from privdiff_training.stages.reader import ReaderConfig, ReaderStage
from privdiff_training.stages.registry import Sources
from privdiff_training.whole_folder import copy_folder

LEAST_OF_A_KIND = 2
"""Judging images with a finding, and without it, for its AUC to count."""

PAIRINGS = 20


@dataclass(frozen=True)
class Refit:
    """What came of fitting one critic.

    Attributes
    ----------
    critic
        ``reader`` or ``identity``.
    before, after
        AUC on judging patients; None where it cannot be measured.
    kept
        Whether the bundle gets it.
    reason
        Why, or why not.
    """

    critic: str
    before: float | None
    after: float | None
    kept: bool
    reason: str


@dataclass(frozen=True)
class Fitting:
    """What fitting a critic needs.

    Attributes
    ----------
    base
        The bundle that is adapted.
    data
        The images that train.
    judges
        Images of judging patients.
    config
        Of the critics.
    folder
        Of the run.
    mixed_precision, seed
        Of the stages.
    """

    base: BundleInfo
    data: DataConfig
    judges: Originals
    config: CriticsConfig
    folder: RunFolder
    mixed_precision: str
    seed: int


def refit_critics(fitting: Fitting) -> tuple[Refit, ...]:
    """Fit both critics, or read what an earlier attempt at this run came to; all processes call it.

    Those that are better are put among the components of the bundle.
    """
    path = fitting.folder.critics
    state = PartialState()
    if not path.exists():
        refits = (refit_reader(fitting), refit_identity(fitting))
        if state.is_main_process:
            for refit in refits:
                if refit.kept:
                    _ADMIT[refit.critic](_trained(fitting, refit.critic), fitting)
            write_record(path, [asdict(refit) for refit in refits])
    state.wait_for_everyone()
    return tuple(Refit(**record) for record in read_record(path))


def refit_reader(fitting: Fitting) -> Refit:
    """Fit the reader, unless this run has done so, and say whether it is better."""
    leg, name = fitting.config.reader, "reader"
    before = RadiographReader.from_pretrained(fitting.base.path / name).eval()
    of_base = findings_auc(before, fitting.judges)
    if leg is None or of_base is None:
        return _left(name, of_base, leg, "judging patients have too few findings of a kind")
    if lacking := lacks_patients_for_groups(fitting.base, fitting.data):
        return _left(name, of_base, leg, lacking)
    trained = _trained(fitting, name)
    if not trained.is_dir():
        sources = Sources(fitting.base.path, fitting.base.path)
        config = ReaderConfig(
            **_keys(fitting, leg),
            backbone=before.config.backbone,
            critic_image_size=before.image_size,
        )
        stage = ReaderStage(config, sources.start(name, RadiographReader))
        stage.started_from = sources.started_from
        train(stage, fitting.folder.leg(name), trained.parent)
    after = RadiographReader.from_pretrained(trained).eval()
    return _compared(name, of_base, findings_auc(after, fitting.judges), fitting)


def refit_identity(fitting: Fitting) -> Refit:
    """Fit the identity network, unless this run has done so, and say whether it is better."""
    leg, name = fitting.config.identity, "identity"
    before = IdentityEmbedder.from_pretrained(fitting.base.path / name).eval()
    of_base = follow_up_auc(before, fitting.judges)
    if leg is None or of_base is None:
        return _left(name, of_base, leg, "too few judging patients have several images")
    trained = _trained(fitting, name)
    if not trained.is_dir():
        sources = Sources(fitting.base.path, fitting.base.path)
        config = IdentityConfig(
            **_keys(fitting, leg),
            backbone=before.config.backbone,
            critic_image_size=before.image_size,
            embedding_dim=before.config.embedding_dim,
            prototypes=len(before.prototypes),
            keep_prototypes=True,
        )
        stage = IdentityStage(config, sources.start(name, IdentityEmbedder))
        stage.started_from = sources.started_from
        train(stage, fitting.folder.leg(name), trained.parent)
    after = IdentityEmbedder.from_pretrained(trained).eval()
    return _compared(name, of_base, follow_up_auc(after, fitting.judges), fitting)


def admit_reader(reader: Path, fitting: Fitting) -> None:
    """Put a refitted reader among the components of the bundle, and groups that it has made.

    The one place where it enters: whatever else of a bundle is made with the reader is made here.
    """
    copy_folder(reader, fitting.folder.components / "reader")
    regroup(fitting.base, reader, fitting.data, fitting.folder.components, fitting.seed)


def admit_identity(identity: Path, fitting: Fitting) -> None:
    """Put a refitted identity network among the components of the bundle."""
    copy_folder(identity, fitting.folder.components / "identity")


_ADMIT = {"reader": admit_reader, "identity": admit_identity}


@torch.no_grad()
def moved_gates(fitting: Fitting, kept: Collection[str]) -> GateThresholds:
    """Return the gates of the bundle for the critics that it gets.

    A threshold keeps its place among the scores of judging images: as many of their standard
    deviations from their mean as before.
    """
    gates, images = fitting.base.metadata.gates, fitting.judges.pixels.float() / 255
    components = fitting.folder.components
    values = gates.model_dump()
    if "reader" in kept:
        logits = [
            RadiographReader.from_pretrained(folder / "reader").eval()(images).frontal
            for folder in (fitting.base.path, components)
        ]
        values["frontal_logit"] = moved_threshold(logits[0], logits[1], gates.frontal_logit)
    if "identity" in kept:
        cosines = [
            _cosines_of_strangers(
                IdentityEmbedder.from_pretrained(folder / "identity").eval(), fitting.judges
            )
            for folder in (fitting.base.path, components)
        ]
        moved = moved_threshold(cosines[0], cosines[1], gates.linkage_similarity)
        values["linkage_similarity"] = min(moved, gates.linkage_similarity)
    return GateThresholds(**values)


def moved_threshold(before: Tensor, after: Tensor, threshold: float) -> float:
    """Return the threshold that stands to scores `after` as `threshold` stands to those `before`.

    Examples
    --------
    >>> moved_threshold(torch.tensor([0.0, 2.0]), torch.tensor([10.0, 14.0]), 3.0)
    16.0
    """
    spread = before.std().clamp_min(1e-6)
    return float(after.mean() + (threshold - before.mean()) / spread * after.std())


@torch.no_grad()
def findings_auc(reader: RadiographReader, images: Originals) -> float | None:
    """Return the macro AUC over findings of which there are some of both kinds, or None."""
    trial = FindingsTrial(images.cohort)
    logits = read_findings(reader, images.pixels.float() / 255).numpy()
    rows = trial.rows(range(trial.patients))
    areas = [
        trial.area(index, logits, rows)
        for index in range(len(FINDINGS))
        if _has_both_kinds(trial.states[:, index])
    ]
    return float(np.mean(areas)) if areas else None


@torch.no_grad()
def follow_up_auc(embedder: IdentityEmbedder, images: Originals) -> float | None:
    """Return the AUC for two images of one patient against strangers, or None."""
    trial = LinkageTrial(images.cohort, Linkage.FOLLOW_UP)
    if trial.patients < LEAST_OF_A_KIND:
        return None
    embeddings = embedder(images.pixels.float() / 255)
    scores = (embeddings @ embeddings.mT).numpy()
    rng = np.random.default_rng(0)
    return float(np.mean([trial.auc(scores, range(trial.patients), rng) for _ in range(PAIRINGS)]))


def _has_both_kinds(states: np.ndarray) -> bool:
    return min((states == 1).sum(), (states == 2).sum()) >= LEAST_OF_A_KIND  # absent, present


@torch.no_grad()
def _cosines_of_strangers(embedder: IdentityEmbedder, images: Originals) -> Tensor:
    embeddings = embedder(images.pixels.float() / 255)
    units = np.array([row.unit for row in images.cohort])
    return (embeddings @ embeddings.mT)[torch.from_numpy(units[:, None] != units[None, :])]


def _keys(fitting: Fitting, leg: LegConfig) -> dict[str, object]:
    return {
        **leg.model_dump(),
        "data": fitting.data,
        "mixed_precision": fitting.mixed_precision,
        "seed": fitting.seed,
    }


def _left(critic: str, before: float | None, leg: LegConfig | None, lacking: str) -> Refit:
    return Refit(critic, before, None, False, "not asked for" if leg is None else lacking)


def _compared(critic: str, before: float, after: float | None, fitting: Fitting) -> Refit:
    kept = after is not None and after >= before + fitting.config.least_gain
    reason = "better on judging patients" if kept else "not better on judging patients"
    return Refit(critic, before, after, kept, reason)


def _trained(fitting: Fitting, critic: str) -> Path:
    return fitting.folder.leg(critic) / "trained" / critic
