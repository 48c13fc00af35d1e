"""How good the networks of a bundle are, one by one, on images they were not trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.findings import FindingsTrial
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial, metadata_scores
from privdiff_training.evaluation.statistics import Estimate, bootstrap
from privdiff_training.images import load_images

BATCH = 32
FINE = 0.25
"""Fine detail: spatial frequencies above this part of the Nyquist frequency."""


@dataclass(frozen=True)
class ComponentFigures:
    """Measured quality of every network.

    Attributes
    ----------
    reconstruction_psnr
        Of the autoencoder, mean over images, in dB; the data range is 1.
    fine_detail_kept
        Energy above a quarter of the Nyquist frequency, reconstructions over originals.
    latent_deviation
        Standard deviation of all latents.
    follow_up
        AUC of the identity network for two images of one patient, same data set and view.
    untrained
        The same for a network of its shape with random weights.
    labels_only
        The same for an attacker who knows the labels alone.
    findings, findings_of_reconstructions
        Macro AUC of the reader.
    images
        Number of images.
    """

    reconstruction_psnr: float
    fine_detail_kept: float
    latent_deviation: float
    follow_up: Estimate
    untrained: Estimate
    labels_only: Estimate
    findings: Estimate
    findings_of_reconstructions: Estimate
    images: int

    def to_record(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


@torch.no_grad()
def measure_components(
    bundle: Path, cohort: Cohort, cache_dir: Path, seed: int = 0
) -> ComponentFigures:
    """Measure the networks of a bundle on a cohort that none of them was trained on.

    Parameters
    ----------
    bundle
        Folder.
    cohort
        Images of one data set.
    cache_dir
        Where prepared images are kept.
    seed
        Of the bootstraps and of the untrained network.
    """
    pipeline = PrivDiffPipeline.from_pretrained(bundle)
    size = read_bundle(bundle).metadata.image_size
    images = load_images(cohort, size, cache_dir).unsqueeze(1).float() / 255
    latents = torch.cat([pipeline.autoencoder.encode(part) for part in images.split(BATCH)])
    decoded = torch.cat([pipeline.autoencoder.decode(part) for part in latents.split(BATCH)])
    decoded = decoded.clamp(0, 1)
    torch.manual_seed(seed)
    untrained = IdentityEmbedder.from_config(pipeline.identity.config).eval()
    trial = LinkageTrial(cohort, Linkage.FOLLOW_UP)

    def follow_up(scores: np.ndarray) -> Estimate:
        return bootstrap(lambda rows, rng: trial.auc(scores, rows, rng), trial.patients, seed)

    return ComponentFigures(
        reconstruction_psnr=float(_psnr(decoded, images)),
        fine_detail_kept=float(_fine_energy(decoded) / _fine_energy(images)),
        latent_deviation=float(latents.std()),
        follow_up=follow_up(_similarity(pipeline.identity, images)),
        untrained=follow_up(_similarity(untrained, images)),
        labels_only=follow_up(metadata_scores(cohort)),
        findings=_findings(pipeline, cohort, images, seed),
        findings_of_reconstructions=_findings(pipeline, cohort, decoded, seed),
        images=len(cohort),
    )


def _similarity(embedder: IdentityEmbedder, images: Tensor) -> np.ndarray:
    embeddings = torch.cat([embedder(part) for part in images.split(BATCH)])
    return (embeddings @ embeddings.mT).numpy()


def _psnr(decoded: Tensor, images: Tensor) -> Tensor:
    return peak_signal_noise_ratio(
        decoded, images, data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean"
    )


def _fine_energy(images: Tensor) -> Tensor:
    """Return the spectral energy above `FINE` of the Nyquist frequency, summed over images."""
    spectrum = torch.fft.rfft2(images).abs().square()
    rows = torch.fft.fftfreq(images.shape[-2])
    columns = torch.fft.rfftfreq(images.shape[-1])
    radius = torch.hypot(rows[:, None], columns[None, :]) / 0.5
    return (spectrum * (radius > FINE)).sum()


def _findings(pipeline: PrivDiffPipeline, cohort: Cohort, images: Tensor, seed: int) -> Estimate:
    trial = FindingsTrial(cohort)
    parts = [pipeline.reader(part).findings for part in images.split(BATCH)]
    logits = torch.cat(parts).numpy()
    return bootstrap(lambda rows, rng: trial.auc(logits, rows), trial.patients, seed)
