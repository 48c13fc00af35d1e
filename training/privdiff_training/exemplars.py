"""The images that redrawings start from: of nobody, and with the findings of a group of patients.

For each group many candidates are drawn around its mean and under its conditions. Those that lie
nearer to an image of a patient than images of strangers do are discarded; of the others those are
kept in which the reader sees the findings of the group most clearly. Nothing here looks at an image
that will be redrawn, so the choice costs no privacy, however often it is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity

from privdiff_infer.errors import CohortError
from privdiff_infer.model.clusters import PatientClusters
from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_infer.model.guidance import Guidance
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.profiles import PROFILES, ProfileSettings
from privdiff_infer.vocabulary import Profile
from privdiff_training.clusters import (
    ClustersConfig,
    ExemplarsConfig,
    PatientGroups,
    PatientReadings,
    alike,
    group_patients,
)
from privdiff_training.evaluation.copies import CopyThresholds, TrainingSet
from privdiff_training.sampling import generator_for
from privdiff_training.stages.data import TrainingImages
from privdiff_training.whole_folder import whole_folder

CLUSTERS = "clusters"
"""Folder of the groups in a bundle."""

BATCH = 8

IsCopy = Callable[[Tensor], Tensor]
"""Tells which of images (n, 1, s, s) are near copies, shape (n,), bool."""


@dataclass(frozen=True)
class NearCopies:
    """Tells which images lie nearer to an image of a patient than images of strangers do.

    Attributes
    ----------
    patients
        Every image that nothing may be a copy of.
    thresholds
        How near one half of the patients comes to the other, who are strangers to it.
    """

    patients: TrainingSet
    thresholds: CopyThresholds

    @classmethod
    def of(cls, images: TrainingImages, identity: IdentityEmbedder) -> NearCopies:
        """Index images, and measure how near strangers among them come."""
        units = sorted({row.unit for row in images.cohort})
        half = set(units[::2])
        in_half = torch.tensor([row.unit in half for row in images.cohort])
        one, other = (images.images(rows.nonzero().flatten()) for rows in (in_half, ~in_half))
        strangers = TrainingSet(one, identity).nearest(other)
        every = TrainingSet(torch.cat([one, other]), identity)
        return cls(every, CopyThresholds.of([strangers]))

    def __call__(self, images: Tensor) -> Tensor:
        """Tell it of images (n, 1, s, s) in [0, 1], shape (n,)."""
        return self.thresholds.is_copy(self.patients.nearest(images))


def export_clusters(components: Path, config: ClustersConfig) -> PatientClusters:
    """Fit the groups with the networks of a bundle that is being built, and put them into it.

    Parameters
    ----------
    components
        Folder of the bundle; its networks are used.
    config
        Whose groups, of how many, with how many exemplars.
    """
    images = TrainingImages.load(config.data)
    pipeline = PrivDiffPipeline.from_pretrained(components).to(images.device)
    units = [row.unit for row in images.cohort]
    readings = PatientReadings.read(pipeline, images.batches(), units)
    prototypes = pipeline.identity.prototypes.cpu()
    rows = alike(readings.evidence, config.num_groups, config.k)
    groups = group_patients(readings, prototypes, rows, config.num_directions)
    is_copy = NearCopies.of(images, pipeline.identity)
    clusters = with_exemplars(pipeline, groups, config.exemplars, is_copy, config.data.cache_dir)
    with whole_folder(components / CLUSTERS) as partial:
        clusters.save_pretrained(partial)
    return clusters


@torch.no_grad()
def with_exemplars(
    pipeline: PrivDiffPipeline,
    groups: PatientGroups,
    config: ExemplarsConfig,
    is_copy: IsCopy,
    cache_dir: Path,
) -> PatientClusters:
    """Draw exemplars of groups.

    Parameters
    ----------
    pipeline
        Draws, encodes and reads; its own groups are put aside meanwhile.
    groups
        Of patients.
    config
        How to draw and choose.
    is_copy
        Of the patients of the groups, such as `NearCopies`.
    cache_dir
        Exemplars of each group are kept here, so that a run that was stopped goes on.

    Raises
    ------
    CohortError
        If all candidates of a group are near copies.
    """
    own, run = pipeline.clusters, _key(pipeline, groups, config)
    chosen = []
    try:
        for group in track(range(len(groups.centres)), "Drawing exemplars"):
            path = cache_dir / f"exemplars-{run}-{group}.safetensors"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(".partial")
                exemplars = _exemplars_of(pipeline, groups, group, config, is_copy)
                save_file({"exemplars": exemplars}, partial)
                partial.replace(path)
            chosen.append(load_file(path)["exemplars"])
    finally:
        pipeline.register_modules(clusters=own)
    return _clusters(groups, list(range(len(chosen))), torch.stack(chosen))


def _exemplars_of(
    pipeline: PrivDiffPipeline,
    groups: PatientGroups,
    group: int,
    config: ExemplarsConfig,
    is_copy: IsCopy,
) -> Tensor:
    """Return the latents of the exemplars of one group, shape (m, channels, h, w)."""
    generators = [generator_for(config.seed, group, number) for number in range(config.candidates)]
    starts = groups.drawn(group, generators)
    alone = _clusters(groups, [group], starts[None]).to(pipeline.device)
    pipeline.register_modules(clusters=alone)
    size = [edge * pipeline.autoencoder.downsampling for edge in starts.shape[2:]]
    drawn = []
    for rows in torch.arange(config.candidates).split(BATCH):
        output = pipeline(
            starts.new_zeros(len(rows), 1, *size),  # of the only group there is, whatever it shows
            profile=_settings(config),
            strength=config.strength,
            num_inference_steps=config.num_inference_steps,
            generators=[generators[row] for row in rows],
            start_latents=starts[rows],
        )
        drawn.append(output.images)
    candidates = torch.cat(drawn)
    candidates = candidates[~is_copy(candidates)]
    if not len(candidates):
        raise CohortError(
            f"all {config.candidates} candidates of group {group} are near copies of patients",
            "draw more candidates, or at a higher strength",
        )
    evidence = pipeline.reader.evidence(pipeline.reader(candidates))
    agreement = cosine_similarity(evidence.cpu(), groups.centres[group][None])
    best = agreement.argsort(descending=True)
    kept = best[torch.arange(config.count) % len(best)]  # the best again where too few are left
    latents: Tensor = pipeline.autoencoder.encode(candidates[kept])
    return latents.cpu().contiguous()


def _settings(config: ExemplarsConfig) -> ProfileSettings:
    standard = PROFILES[Profile.STANDARD]
    return replace(standard, guidance=Guidance(findings_weight=config.findings_weight))


def _clusters(groups: PatientGroups, rows: list[int], exemplars: Tensor) -> PatientClusters:
    """Return some of the groups, each with exemplars (m, channels, h, w)."""
    clusters = PatientClusters(len(rows), exemplars.shape[2:], exemplars.shape[1])
    clusters.load_state_dict(
        {
            "centres": groups.centres[rows],
            "patients": groups.patients[rows],
            "exemplars": exemplars,
            "findings": groups.findings[rows],
            "identity": groups.identity[rows],
            "age": groups.age[rows],
            "sex": groups.sex[rows],
        }
    )
    return clusters


def _key(pipeline: PrivDiffPipeline, groups: PatientGroups, config: ExemplarsConfig) -> str:
    """Return a name for all that the exemplars depend on."""
    digest = hashlib.sha256(repr((_settings(config), config)).encode())
    networks = (pipeline.autoencoder, pipeline.denoiser, pipeline.reader, pipeline.identity)
    tensors = [values for network in networks for values in network.state_dict().values()]
    for values in (*tensors, *vars(groups).values()):
        digest.update(values.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
