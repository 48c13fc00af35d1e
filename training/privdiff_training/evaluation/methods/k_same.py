"""k-same in the latent space of a bundle: what is shown is a mean over k patients.

Theorem (Newton, Sweeney, Malin, Preserving Privacy by De-identifying Face Images, IEEE TKDE 17(2),
2005). Let a gallery hold one image of each of n persons, let the query be made from one of them,
each equally probable, and let a deterministic map give every output that occurs to at least k of
them. Then an attacker who knows the map and sees the output alone names the person with
probability at most 1/k. Proof: one guess per output is right for at most one person, and there are
at most n / k outputs.

It needs a closed group: the persons of the queries are those that were put together by k, with one
image each, and the attacker knows nothing else of them. Here it does NOT hold, for the set is open:
the means are those of clusters of reference patients, each of at least k of them, and a patient who
is none of them gets the mean whose findings are nearest to what the bundle reads. How many of the
tested patients share an output is left to them. What holds for every patient and every attacker:
the output is a function of the choice among c clusters, so that

    I(output; person) <= log c,

and, by the proof above with c outputs, at most c of n equally probable persons are ever named
right: rank 1 is at most c / n.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from privdiff_infer.errors import CohortError
from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.vocabulary import Profile
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.methods.method import hash_of
from privdiff_training.evaluation.methods.reference import Reference
from privdiff_training.evaluation.redraw import redraw_with, weights_hash

BATCH = 32
CURVE = (5, 10, 30, 100)
MIXTURES = (1.0, 0.5)


@dataclass(frozen=True)
class Clusters:
    """Groups of at least k patients with similar findings.

    Attributes
    ----------
    centres
        Mean evidence of the findings, shape (c, 15).
    latents
        Mean latents, shape (c, channels, h, w).
    patients
        Number of patients of each, shape (c,).
    """

    centres: Tensor
    latents: Tensor
    patients: Tensor

    def nearest(self, evidence: Tensor) -> Tensor:
        """Return the cluster of each row of evidence (n, 15), shape (n,)."""
        return torch.cdist(evidence, self.centres).argmin(dim=-1)


@dataclass(frozen=True)
class KSame:
    """The decoded mean latent of the cluster whose findings are nearest to the source.

    Nothing is random: all seeds give one copy.

    Attributes
    ----------
    bundle
        Folder; its reader tells the findings, its autoencoder gives the latents.
    reference
        Patients of the clusters.
    k
        Least number of patients of a cluster.
    """

    bundle: Path
    reference: Reference
    k: int
    family = "k-same"
    told = "nothing"

    @property
    def name(self) -> str:
        """Family and k."""
        return f"{self.family} {self.k}"

    @property
    def setting(self) -> str:
        """k."""
        return f"{self.k}"

    @cached_property
    def fingerprint(self) -> str:
        """Of weights, reference images and k."""
        weights = weights_hash(read_bundle(self.bundle))
        return hash_of(self.family, weights, self.reference.fingerprint, self.k)

    @cached_property
    def clusters(self) -> Clusters:
        """The clusters of the reference patients."""
        pipeline = PrivDiffPipeline.from_pretrained(self.bundle)
        rows, images = torch.arange(len(self.reference.cohort)), self.reference.images
        return clustered(
            torch.cat([_evidence(pipeline, images(part)) for part in rows.split(BATCH)]),
            torch.cat([_encoded(pipeline, images(part)) for part in rows.split(BATCH)]),
            [row.unit for row in self.reference.cohort],
            self.k,
        )

    def mean_latents(self, pipeline: PrivDiffPipeline, originals: Tensor) -> Tensor:
        """Return the mean latent that stands for each original, shape (n, channels, h, w)."""
        return self.clusters.latents[self._chosen(pipeline, originals)]

    @torch.no_grad()
    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Decode the mean of each original's cluster; see `Method`."""
        pipeline = PrivDiffPipeline.from_pretrained(self.bundle)
        parts = self.clusters.latents.split(BATCH)
        means = torch.cat([pipeline.autoencoder.decode(part) for part in parts]).clamp(0, 1)
        return means[self._chosen(pipeline, originals)]

    def _chosen(self, pipeline: PrivDiffPipeline, originals: Tensor) -> Tensor:
        parts = originals.split(BATCH)
        return self.clusters.nearest(torch.cat([_evidence(pipeline, part) for part in parts]))


@dataclass(frozen=True)
class KSameRedraw:
    """Plain diffusion that starts from the mean latent of k patients, or from a mixture with it.

    Plain, for its only condition is the findings. So with the mean alone (`weight` 1) an image owes
    to its source the choice of the cluster and the states of the findings, and nothing else.

    Attributes
    ----------
    k_same
        Chooses the mean.
    strength
        Of the redrawing.
    weight
        Part of the mean in the start, in (0, 1]; the rest is the source.
    """

    k_same: KSame
    strength: float
    weight: float = 1.0
    told = "nothing"

    @property
    def name(self) -> str:
        """k, strength, and the part of the source."""
        return f"k-same {self.setting} + {self._redraw}"

    @property
    def family(self) -> str:
        """The same without k, which makes the curve."""
        return f"k-same + {self._redraw}"

    @property
    def setting(self) -> str:
        """k."""
        return f"{self.k_same.k}"

    @cached_property
    def fingerprint(self) -> str:
        """Of the clusters, the strength and the weight."""
        return hash_of("redraw", self.k_same.fingerprint, self.strength, self.weight)

    @torch.no_grad()
    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Redraw every original from its start; see `Method`."""
        pipeline = PrivDiffPipeline.from_pretrained(self.k_same.bundle)
        start = self.weight * self.k_same.mean_latents(pipeline, originals)
        if self.weight < 1:
            own = torch.cat([_encoded(pipeline, part) for part in originals.split(BATCH)])
            start = start + (1 - self.weight) * own
        return redraw_with(
            pipeline, originals, Profile.VANILLA, self.strength, seed, start_latents=start
        )

    @property
    def _redraw(self) -> str:
        source = f", {1 - self.weight:.0%} source" if self.weight < 1 else ""
        return f"redraw at {self.strength:g}{source}"


def clustered(evidence: Tensor, latents: Tensor, units: list[str], k: int) -> Clusters:
    """Put patients with similar findings together, at least k in each cluster.

    A patient counts once, with the mean over the images.

    Parameters
    ----------
    evidence
        Of the findings, one row per image, shape (n, 15).
    latents
        Shape (n, channels, h, w).
    units
        Whose image it is.
    k
        Least number of patients of a cluster.

    Raises
    ------
    CohortError
        If there are fewer than k patients.
    """
    number = {unit: index for index, unit in enumerate(dict.fromkeys(units))}
    patient = torch.tensor([number[unit] for unit in units])
    if len(number) < k:
        raise CohortError(f"{len(number)} patients make no cluster of {k}", "choose a smaller k")
    evidence, latents = (_mean_by(values, patient, len(number)) for values in (evidence, latents))
    groups = microaggregated(evidence.double().numpy(), k)
    return Clusters(
        centres=torch.stack([evidence[group].mean(0) for group in groups]),
        latents=torch.stack([latents[group].mean(0) for group in groups]),
        patients=torch.tensor([len(group) for group in groups]),
    )


def microaggregated(values: np.ndarray, k: int) -> list[np.ndarray]:
    """Partition rows into groups of k to 2k - 1 similar ones (MDAV).

    Source: Domingo-Ferrer, Torra, Ordinal, Continuous and Heterogeneous k-Anonymity Through
    Microaggregation, Data Mining and Knowledge Discovery 11, 2005: the row that is farthest from
    the mean, and the one farthest from that, each take their k - 1 nearest rows, until too few are
    left.

    Examples
    --------
    >>> groups = microaggregated(np.array([[0.0], [9.0], [1.0], [8.0], [7.0]]), k=2)
    >>> sorted(sorted(group.tolist()) for group in groups)
    [[0, 2], [1, 3, 4]]
    """
    left = np.arange(len(values))
    groups = []
    while len(left) >= 3 * k:
        first = values[_farthest(values, left, values[left].mean(0))]
        second = values[_farthest(values, left, first)]
        for centre in (first, second):
            group, left = _split_nearest(values, left, centre, k)
            groups.append(group)
    if len(left) >= 2 * k:
        centre = values[_farthest(values, left, values[left].mean(0))]
        group, left = _split_nearest(values, left, centre, k)
        groups.append(group)
    return [*groups, left]


def k_same_methods(
    bundle: Path, reference: Reference, strength: float
) -> tuple[KSame | KSameRedraw, ...]:
    """Return k-same for every k that there are patients for, decoded and redrawn.

    Parameters
    ----------
    bundle
        Folder.
    reference
        Patients of the clusters.
    strength
        At which a mean is redrawn.
    """
    patients = _patients(reference.cohort)
    decoded = [KSame(bundle, reference, k) for k in CURVE if k <= patients]
    redrawn = [KSameRedraw(k_same, strength, weight) for k_same in decoded for weight in MIXTURES]
    return (*decoded, *redrawn)


def k_same_without_patients(reference: Cohort) -> Iterator[tuple[str, str]]:
    """Yield every k that there are too few reference patients for, with the reason."""
    for k in CURVE:
        if k > _patients(reference):
            yield f"k-same {k}", f"fewer than {k} reference patients"


def _patients(cohort: Cohort) -> int:
    return len({row.unit for row in cohort})


@torch.no_grad()
def _evidence(pipeline: PrivDiffPipeline, images: Tensor) -> Tensor:
    return pipeline.reader.evidence(pipeline.reader(images))


@torch.no_grad()
def _encoded(pipeline: PrivDiffPipeline, images: Tensor) -> Tensor:
    return pipeline.autoencoder.encode(images)


def _mean_by(values: Tensor, group: Tensor, count: int) -> Tensor:
    """Return the mean of the rows of each of `count` groups."""
    sums = values.new_zeros(count, *values.shape[1:]).index_add_(0, group, values)
    sizes = torch.bincount(group, minlength=count).to(values)
    return sums / sizes.view(-1, *[1] * (values.ndim - 1))


def _farthest(values: np.ndarray, rows: np.ndarray, point: np.ndarray) -> int:
    return int(rows[np.square(values[rows] - point).sum(1).argmax()])


def _split_nearest(
    values: np.ndarray, rows: np.ndarray, point: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    order = np.square(values[rows] - point).sum(1).argsort(kind="stable")
    return rows[order[:count]], rows[order[count:]]
