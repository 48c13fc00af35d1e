"""The images that redrawings start from: of nobody, and with the findings of a group of patients.

For each group many candidates are drawn around its mean and under its conditions. Kept are those in
which the reader sees the findings of the group most clearly. Nothing here looks at an image that
will be redrawn, so the choice costs no privacy, however often it is made.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity

from privdiff_infer.model.clusters import PatientClusters
from privdiff_infer.model.guidance import Guidance
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.profiles import PROFILES, ProfileSettings
from privdiff_infer.vocabulary import Profile
from privdiff_training.clusters import (
    ClustersConfig,
    ExemplarsConfig,
    PatientGroups,
    PatientReadings,
    group_patients,
)
from privdiff_training.sampling import generator_for
from privdiff_training.stages.data import TrainingImages
from privdiff_training.whole_folder import whole_folder

CLUSTERS = "clusters"
"""Folder of the groups in a bundle."""

BATCH = 8


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
    groups = group_patients(readings, prototypes, config.k, config.num_directions)
    clusters = with_exemplars(pipeline, groups, config.exemplars, config.data.cache_dir)
    with whole_folder(components / CLUSTERS) as partial:
        clusters.save_pretrained(partial)
    return clusters


@torch.no_grad()
def with_exemplars(
    pipeline: PrivDiffPipeline, groups: PatientGroups, config: ExemplarsConfig, cache_dir: Path
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
    cache_dir
        Exemplars of each group are kept here, so that a run that was stopped goes on.
    """
    own, run = pipeline.clusters, _key(pipeline, groups, config)
    chosen = []
    try:
        for group in track(range(len(groups.centres)), "Drawing exemplars"):
            path = cache_dir / f"exemplars-{run}-{group}.safetensors"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(".partial")
                save_file({"exemplars": _exemplars_of(pipeline, groups, group, config)}, partial)
                partial.replace(path)
            chosen.append(load_file(path)["exemplars"])
    finally:
        pipeline.register_modules(clusters=own)
    return _clusters(groups, list(range(len(chosen))), torch.stack(chosen))


def _exemplars_of(
    pipeline: PrivDiffPipeline, groups: PatientGroups, group: int, config: ExemplarsConfig
) -> Tensor:
    """Return the latents of the exemplars of one group, shape (m, channels, h, w)."""
    generators = [generator_for(config.seed, group, number) for number in range(config.candidates)]
    starts = groups.drawn(group, generators)
    pipeline.register_modules(clusters=_clusters(groups, [group], starts[None]))
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
    evidence = pipeline.reader.evidence(pipeline.reader(candidates))
    agreement = cosine_similarity(evidence.cpu(), groups.centres[group][None])
    best = agreement.topk(min(config.count, config.candidates)).indices
    latents: Tensor = pipeline.autoencoder.encode(candidates[best])
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
    networks = (pipeline.autoencoder, pipeline.denoiser, pipeline.reader)
    tensors = [values for network in networks for values in network.state_dict().values()]
    for values in (*tensors, *vars(groups).values()):
        digest.update(values.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
