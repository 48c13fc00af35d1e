"""How good the per-image gates of a bundle are, on images that its critics were not trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import skimage.data
import torch
from pydicom.data import get_testdata_file
from torch import Tensor

from privdiff_infer.anonymizer import Anonymizer, AnonymizerOptions
from privdiff_infer.errors import PrivDiffError
from privdiff_infer.model_grid import to_model_grid
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.radiograph import read_radiograph
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.result_gates import ResultGateFigures, measure_result_gates
from privdiff_training.images import load_images
from privdiff_training.impostors import KINDS
from privdiff_training.sampling import generator_for

BATCH = 32
PHOTOGRAPHS = ("camera", "coins", "moon", "page", "text", "clock", "cell", "brick", "grass")
"""Grey pictures that scikit-image brings along."""
SECTIONS = ("CT_small.dcm", "MR_small.dcm", "examples_overlay.dcm", "emri_small.dcm")
"""Images of other modalities that pydicom brings along; their headers are not looked at here."""


@dataclass(frozen=True)
class GateFigures:
    """Measured quality of the gates.

    Attributes
    ----------
    threshold
        Of the frontal gate, a logit.
    passed
        Part of real frontal radiographs that the frontal gate lets through.
    held
        Part of images that are none that it holds, by kind.
    counts
        Number of images behind each of these.
    logit_quantiles
        Of real frontal radiographs.
    similarity_quantiles
        Of the cosine of two images of different patients under the identity network.
    results
        Of the gates of results.
    """

    threshold: float
    passed: float
    held: dict[str, float]
    counts: dict[str, int]
    logit_quantiles: dict[str, float]
    similarity_quantiles: dict[str, float]
    results: ResultGateFigures

    def to_record(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


@torch.no_grad()
def measure_gates(bundle: Path, cohort: Cohort, cache_dir: Path, seed: int = 0) -> GateFigures:
    """Measure the gates of a bundle.

    Parameters
    ----------
    bundle
        Folder.
    cohort
        Real frontal radiographs that the bundle's networks were not trained on.
    cache_dir
        Where prepared images are kept.
    seed
        Of the impostors, and of what is redrawn.
    """
    anonymizer = Anonymizer.from_bundle(bundle, AnonymizerOptions(device="cpu"))
    pipeline, metadata = anonymizer.pipeline, anonymizer.bundle.metadata
    size, threshold = metadata.image_size, metadata.gates.frontal_logit
    real = load_images(cohort, size, cache_dir).unsqueeze(1).float() / 255

    def logits(images: Tensor) -> Tensor:
        return torch.cat([pipeline.reader(part).frontal for part in images.split(BATCH)])

    impostors = {
        name: torch.stack(
            [make(image, generator_for(seed, name, i)) for i, image in enumerate(real)]
        )
        for name, make in KINDS.items()
    }
    impostors["photographs"] = _on_grid([getattr(skimage.data, n)() for n in PHOTOGRAPHS], size)
    impostors["sections"] = _on_grid(_sections(), size)
    real_logits = logits(real)
    return GateFigures(
        threshold=threshold,
        passed=float((real_logits >= threshold).float().mean()),
        held={
            name: float((logits(images.clamp(0, 1)) < threshold).float().mean())
            for name, images in impostors.items()
        },
        counts={"real": len(real)} | {name: len(images) for name, images in impostors.items()},
        logit_quantiles=_quantiles(real_logits.numpy()),
        similarity_quantiles=_quantiles(_stranger_cosines(pipeline, real, cohort)),
        results=measure_result_gates(anonymizer, cohort, real, cache_dir, seed),
    )


def _stranger_cosines(pipeline: PrivDiffPipeline, real: Tensor, cohort: Cohort) -> np.ndarray:
    embeddings = torch.cat([pipeline.identity(part) for part in real.split(BATCH)])
    units = np.array([row.unit for row in cohort])
    strangers = np.triu(units[:, None] != units[None, :])
    cosines: np.ndarray = (embeddings @ embeddings.mT).numpy()[strangers]
    return cosines


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {
        f"{level:g}": float(np.quantile(values, level))
        for level in (0.001, 0.005, 0.01, 0.02, 0.05, 0.5, 0.95, 0.99, 0.999)
    }


def _sections() -> list[np.ndarray]:
    pictures = []
    for name in SECTIONS:
        path = get_testdata_file(name, download=False)
        if not isinstance(path, str):
            continue
        try:
            pictures.append(read_radiograph(Path(path)).pixels * 255)
        except PrivDiffError:
            pictures += _pixels_alone(Path(path))
    return pictures


def _pixels_alone(path: Path) -> list[np.ndarray]:
    """Return the pixels of an image whose header already holds it, for the learned gate alone."""
    stored = pydicom.dcmread(path).pixel_array.astype(np.float64)
    frame = stored.reshape(-1, *stored.shape[-2:])[0]
    return [(frame - frame.min()) / np.ptp(frame) * 255]


def _on_grid(pictures: list[np.ndarray], size: int) -> Tensor:
    grids = [to_model_grid((p / 255).astype(np.float32), None, size)[0] for p in pictures]
    return torch.from_numpy(np.stack(grids)).unsqueeze(1)
