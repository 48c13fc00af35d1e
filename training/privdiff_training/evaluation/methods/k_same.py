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
tested patients share an output is left to them. What holds for every patient and every attacker is
the theorem of `privdiff_infer.model.clusters`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.model.clusters import nearest_centre
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.vocabulary import Profile
from privdiff_training.clusters import (
    PatientGroups,
    PatientReadings,
    group_patients,
    microaggregated,
)
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.methods.method import Starts, hash_of, itself
from privdiff_training.evaluation.methods.reference import Reference
from privdiff_training.evaluation.redraw import redraw_with, weights_hash

BATCH = 32
CURVE = (5, 10, 30, 100, 200)
"""The last gives as many clusters of the embedded bundle's patients as that has groups."""
MIXTURES = (1.0, 0.5)


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
    shows_groups = True

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
    def clusters(self) -> PatientGroups:
        """The clusters of the reference patients."""
        pipeline = PrivDiffPipeline.from_pretrained(self.bundle)
        parts = map(self.reference.images, torch.arange(len(self.reference.cohort)).split(BATCH))
        units = [row.unit for row in self.reference.cohort]
        readings = PatientReadings.read(pipeline, parts, units)
        rows = microaggregated(normalize(readings.evidence, dim=1).numpy(), self.k)
        return group_patients(readings, pipeline.identity.prototypes, rows, num_directions=0)

    def mean_latents(self, pipeline: PrivDiffPipeline, originals: Tensor) -> Tensor:
        """Return the mean latent that stands for each original, shape (n, channels, h, w)."""
        return self.clusters.means[self._chosen(pipeline, originals)]

    @torch.no_grad()
    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Decode the mean of each original's cluster; see `Method`."""
        pipeline = PrivDiffPipeline.from_pretrained(self.bundle)
        return self._decoded_means(pipeline)[self._chosen(pipeline, originals)]

    @torch.no_grad()
    def starts(self, originals: Tensor) -> Starts:
        """Return the mean of each original's cluster; see `Method`."""
        pipeline = PrivDiffPipeline.from_pretrained(self.bundle)
        chosen, means = self._chosen(pipeline, originals), self._decoded_means(pipeline)
        return Starts(means, chosen[:, None] == torch.arange(len(means)))

    def _decoded_means(self, pipeline: PrivDiffPipeline) -> Tensor:
        parts = self.clusters.means.split(BATCH)
        return torch.cat([pipeline.autoencoder.decode(part) for part in parts]).clamp(0, 1)

    def _chosen(self, pipeline: PrivDiffPipeline, originals: Tensor) -> Tensor:
        parts = originals.split(BATCH)
        evidence = torch.cat([_evidence(pipeline, part) for part in parts])
        return nearest_centre(evidence, self.clusters.centres)


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

    @property
    def shows_groups(self) -> bool:
        """Whether the mean alone is in the start."""
        return self.weight == 1

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

    def starts(self, originals: Tensor) -> Starts:
        """Return the means, or the originals where a part of them is in the start; see `Method`."""
        return self.k_same.starts(originals) if self.shows_groups else itself(originals)

    @property
    def _redraw(self) -> str:
        source = f", {1 - self.weight:.0%} source" if self.weight < 1 else ""
        return f"redraw at {self.strength:g}{source}"


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
