"""How good the gates of results are: what they let through of the real, spoiled and redrawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from privdiff_infer.anonymizer import AnonymizedImage, Anonymizer
from privdiff_infer.errors import ImageError
from privdiff_infer.gallery import Gallery
from privdiff_infer.gates import MAX_ATTEMPTS, gallery_failure, grain, quality_failure
from privdiff_infer.radiograph import read_radiograph
from privdiff_infer.vocabulary import FindingState, Profile
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.redraw import redraw
from privdiff_training.evaluation.spoiled import SPOILED
from privdiff_training.sampling import generator_for

BATCH = 32
REDRAWN = 48
"""Most images of a cohort that are redrawn, three times and more each."""
RATES = (0.01, 0.05, 0.1, 0.2, 0.3)
"""Rates of strangers that the findings gate may accept."""


@dataclass(frozen=True)
class FindingsPoint:
    """The findings gate at one rate of false accepts.

    Attributes
    ----------
    false_accepts
        Part of pairs of images of different patients without a common label that pass as source
        and result.
    threshold
        Of the agreement of the findings.
    reconstructions
        Part of images decoded from their latents that pass.
    redrawn
        Part of images of which one of the first 1, 2, ... drawings at the same strength passes.
    """

    false_accepts: float
    threshold: float
    reconstructions: float
    redrawn: tuple[float, ...]


@dataclass(frozen=True)
class ResultGateFigures:
    """Measured quality of the gates of results, with the thresholds of the bundle.

    Attributes
    ----------
    strength
        Of the first attempt, with `Profile.STANDARD`.
    findings
        See `FindingsPoint`, of the number of `stranger_pairs`; none where no finding is known.
    looks_real
        Part of images, by kind, that pass the gates of likeness (frontal) and quality; ``redrawn``
        are first attempts.
    grain, contrast
        Quantiles of originals and of their reconstructions.
    linkage
        Part of first attempts that are not too similar to their source.
    gallery
        Part of first attempts that do not lead to their source among the others' originals.
    passed
        Part of the images that the product redraws of which a result had passed all gates after
        1, 2, ... attempts.
    held
        Part of them whose last attempt failed, by gate; one can fail several.
    counts
        Numbers of images.
    """

    strength: float
    stranger_pairs: int
    findings: tuple[FindingsPoint, ...]
    looks_real: dict[str, dict[str, float]]
    grain: dict[str, dict[str, float]]
    contrast: dict[str, dict[str, float]]
    linkage: float
    gallery: float
    passed: tuple[float, ...]
    held: dict[str, float]
    counts: dict[str, int]


@torch.no_grad()
def measure_result_gates(
    anonymizer: Anonymizer, cohort: Cohort, real: Tensor, cache_dir: Path, seed: int
) -> ResultGateFigures:
    """Measure the gates of results.

    Parameters
    ----------
    anonymizer
        Of the bundle, without a gallery.
    cohort
        Real frontal radiographs that the bundle's networks were not trained on.
    real
        Its pixels, shape (n, 1, s, s), float32 in [0, 1].
    cache_dir
        Where redrawn images are kept.
    seed
        Of all noise.
    """
    rows = np.unique(np.linspace(0, len(cohort) - 1, min(REDRAWN, len(cohort))).astype(int))
    part = Cohort(cohort.root, tuple(cohort.rows[row] for row in rows))
    drawings = [
        redraw(
            anonymizer.bundle.path,
            part,
            real[rows],
            Profile.STANDARD,
            anonymizer.strength,
            seed + attempt,
            cache_dir,
        )
        for attempt in range(MAX_ATTEMPTS)
    ]
    autoencoder = anonymizer.pipeline.autoencoder
    decoded = [autoencoder.decode(autoencoder.encode(each)) for each in real.split(BATCH)]
    reconstructions = torch.cat(decoded).clamp(0, 1)
    results = _product(anonymizer, part, seed)
    judge = _Judge(anonymizer)
    strangers = _strangers(cohort)
    spoiled = {
        name: torch.stack(
            [spoil(image, generator_for(seed, name, i)) for i, image in enumerate(real)]
        )
        for name, spoil in SPOILED.items()
    }
    compared = {"originals": real, "reconstructions": reconstructions}
    return ResultGateFigures(
        strength=anonymizer.strength,
        stranger_pairs=int(strangers.sum()),
        findings=judge.findings(real, reconstructions, rows, drawings, strangers),
        looks_real={
            name: judge.looks_real(images.clamp(0, 1))
            for name, images in {**compared, "redrawn": drawings[0], **spoiled}.items()
        },
        grain={name: _quantiles(_grains(images)) for name, images in compared.items()},
        contrast={name: _quantiles(_contrasts(images)) for name, images in compared.items()},
        **judge.links(cohort, real, rows, drawings[0]),
        passed=tuple(
            float(np.mean([not r.failures and r.attempts <= count for r in results]))
            for count in range(1, MAX_ATTEMPTS + 1)
        ),
        held=_held(results),
        counts={"real": len(real), "redrawn": len(rows), "product": len(results)},
    )


class _Judge:
    """The networks and thresholds of a bundle, over many images."""

    def __init__(self, anonymizer: Anonymizer) -> None:
        self.pipeline = anonymizer.pipeline
        self.thresholds = anonymizer.bundle.metadata.gates

    def findings(
        self,
        real: Tensor,
        reconstructions: Tensor,
        rows: np.ndarray,
        drawings: list[Tensor],
        strangers: np.ndarray,
    ) -> tuple[FindingsPoint, ...]:
        if not strangers.any():
            return ()
        sources = self._evidence(real)
        false = (sources @ sources.mT).numpy()[strangers]
        kept = (sources * self._evidence(reconstructions)).sum(-1).numpy()
        drawn = [(sources[rows] * self._evidence(each)).sum(-1).numpy() for each in drawings]
        best = np.maximum.accumulate(np.stack(drawn))  # (attempts, images)
        thresholds = {rate: float(np.quantile(false, 1 - rate)) for rate in RATES}
        return tuple(
            FindingsPoint(
                rate,
                threshold,
                float((kept >= threshold).mean()),
                tuple((best >= threshold).mean(axis=1).tolist()),
            )
            for rate, threshold in thresholds.items()
        )

    def looks_real(self, images: Tensor) -> dict[str, float]:
        frontal = torch.cat([self.pipeline.reader(each).frontal for each in images.split(BATCH)])
        pairs = zip(_grains(images), _contrasts(images), strict=True)
        good = [
            quality_failure(each, contrast, self.thresholds) is None for each, contrast in pairs
        ]
        return {
            "frontal": float((frontal >= self.thresholds.frontal_logit).float().mean()),
            "quality": float(np.mean(good)),
        }

    def links(
        self, cohort: Cohort, real: Tensor, rows: np.ndarray, drawn: Tensor
    ) -> dict[str, float]:
        originals, results = self._identities(real), self._identities(drawn)
        units = np.array([row.unit for row in cohort])
        apart, hidden = [], []
        for row, result in zip(rows, results, strict=True):
            similarity = float(originals[row] @ result)
            place = Gallery(originals[units != units[row]]).rank(result, similarity)
            apart.append(similarity <= self.thresholds.linkage_similarity)
            hidden.append(gallery_failure(place) is None)
        return {"linkage": float(np.mean(apart)), "gallery": float(np.mean(hidden))}

    def _evidence(self, images: Tensor) -> Tensor:
        """Return the evidence of images (n, 15), scaled to length 1."""
        reader = self.pipeline.reader
        evidence = torch.cat([reader.evidence(reader(each)) for each in images.split(BATCH)])
        return torch.nn.functional.normalize(evidence, dim=-1)

    def _identities(self, images: Tensor) -> np.ndarray:
        return torch.cat([self.pipeline.identity(each) for each in images.split(BATCH)]).numpy()


def _product(anonymizer: Anonymizer, cohort: Cohort, seed: int) -> list[AnonymizedImage]:
    """Redraw as the product does; what it does not redraw is left out."""
    results = []
    for index, row in enumerate(track(cohort.rows, "Anonymizing")):
        try:
            radiograph = read_radiograph(cohort.root / row.image)
            results.append(anonymizer.anonymize(radiograph, seed + index))
        except ImageError:
            continue
    return results


def _held(results: list[AnonymizedImage]) -> dict[str, float]:
    failed = Counter(failure.gate.value for result in results for failure in result.failures)
    return {gate: number / len(results) for gate, number in sorted(failed.items())}


def _strangers(cohort: Cohort) -> np.ndarray:
    """Return which ordered pairs (n, n) are of different patients without a common label.

    An image of which no label is known is in none.
    """
    present = np.array([[s is FindingState.PRESENT for s in row.findings] for row in cohort])
    units = np.array([row.unit for row in cohort])
    different: np.ndarray = units[:, None] != units[None, :]
    known = present.any(axis=1)
    common = present.astype(int) @ present.T.astype(int) > 0
    strangers: np.ndarray = different & np.outer(known, known) & ~common
    return strangers


def _grains(images: Tensor) -> np.ndarray:
    return np.array([grain(image[0].numpy()) for image in images])


def _contrasts(images: Tensor) -> np.ndarray:
    return np.array([float(image.numpy().std()) for image in images])


def _quantiles(values: np.ndarray) -> dict[str, float]:
    levels = (0.005, 0.05, 0.5, 0.95, 0.995)
    return {f"{level:g}": float(np.quantile(values, level)) for level in levels}
