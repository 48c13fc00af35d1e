"""Groups of patients with like findings, k or more in each, and the file that says whose.

Findings are alike if their evidence points the same way: the measure is the cosine, as in the gate
of findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

from privdiff_infer.errors import CohortError
from privdiff_infer.pipeline import PrivDiffPipeline, finding_states
from privdiff_training.config import DataConfig, Strict


class ExemplarsConfig(Strict):
    """How the images that redrawings start from are drawn and chosen."""

    count: int = Field(32, ge=1, description="Exemplars that each group keeps.")
    candidates: int = Field(256, ge=1, description="Images drawn for each group to choose from.")
    strength: float = Field(0.7, gt=0, le=1, description="Of drawing a candidate.")
    num_inference_steps: int = Field(20, ge=1, description="Over the whole schedule.")
    findings_weight: float = Field(2.0, ge=1, description="w_diag of drawing a candidate.")
    seed: int = Field(0, description="Of drawing.")


class ClustersConfig(Strict):
    """The keys of ``clusters.yaml``."""

    data: DataConfig = DataConfig()
    num_groups: int = Field(
        3,
        ge=1,
        description="Groups at most; what bounds linkage. Fewer if some would be too small.",
    )
    k: int = Field(10, ge=2, description="Least number of patients of a group.")
    num_directions: int = Field(
        64, ge=0, description="Principal directions in which the patients of a group differ."
    )
    exemplars: ExemplarsConfig = Field(
        ExemplarsConfig(), description="The images of nobody that redrawings start from."
    )


@dataclass(frozen=True)
class PatientReadings:
    """What the networks of a bundle see of each patient, the mean over the images.

    Attributes
    ----------
    evidence
        Of the findings, shape (patients, 15).
    latents
        Shape (patients, channels, h, w).
    identity
        Embeddings, shape (patients, embedding_dim).
    age, sex
        Logits, shapes (patients, 5) and (patients,).
    """

    evidence: Tensor
    latents: Tensor
    identity: Tensor
    age: Tensor
    sex: Tensor

    @classmethod
    @torch.no_grad()
    def read(
        cls, pipeline: PrivDiffPipeline, batches: Iterable[Tensor], units: Sequence[str]
    ) -> PatientReadings:
        """Read images (n, 1, s, s) in [0, 1], in batches; `units` says whose each of them is."""
        parts = []
        for images in batches:
            reading = pipeline.reader(images)
            seen = (
                pipeline.reader.evidence(reading),
                pipeline.autoencoder.encode(images),
                pipeline.identity(images),
                reading.age,
                reading.sex,
            )
            parts.append([values.float().cpu() for values in seen])
        number = {unit: index for index, unit in enumerate(dict.fromkeys(units))}
        patient = torch.tensor([number[unit] for unit in units])
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        return cls(*(_mean_by(column, patient, len(number)) for column in columns))


@dataclass(frozen=True)
class PatientGroups:
    """c groups of patients, told apart by their findings.

    Attributes
    ----------
    centres
        Mean evidence of the findings, shape (c, 15).
    patients
        How many each has, shape (c,).
    means
        Mean latents, shape (c, channels, h, w).
    directions
        Principal directions within groups times their standard deviations, shape (d, channels, h,
        w).
    findings, identity, age, sex
        Conditions: states (c, 15), rows of the codebooks (c,).
    """

    centres: Tensor
    patients: Tensor
    means: Tensor
    directions: Tensor
    findings: Tensor
    identity: Tensor
    age: Tensor
    sex: Tensor

    def drawn(self, group: int, generators: Sequence[torch.Generator]) -> Tensor:
        """Draw latents around the mean of one group, varied as patients of a group vary.

        The mean alone is a shadow of all patients; the directions make it the latent of somebody
        who does not exist.

        Parameters
        ----------
        group
            Row of the group.
        generators
            One CPU generator for each of n latents.

        Returns
        -------
        Tensor
            Shape (n, channels, h, w), of the scale of ``autoencoder.encode``.
        """
        count = len(self.directions)
        weights = torch.stack([torch.randn(count, generator=each) for each in generators])
        return self.means[group] + torch.einsum("nd,dchw->nchw", weights, self.directions)


def group_patients(
    readings: PatientReadings,
    prototypes: Tensor,
    groups: Sequence[np.ndarray],
    num_directions: int,
) -> PatientGroups:
    """Describe groups of patients.

    Parameters
    ----------
    readings
        Of the patients.
    prototypes
        The identity codebook, shape (prototypes, embedding_dim).
    groups
        Rows of the patients of each group, as `alike` or `microaggregated` tells them.
    num_directions
        See `PatientGroups`.

    Raises
    ------
    CohortError
        If there are too few patients for the directions.
    """
    patients = len(readings.evidence)
    if patients - len(groups) < num_directions:
        raise CohortError(
            f"{patients} patients in {len(groups)} clusters differ in fewer than {num_directions} "
            "directions",
            f"choose at most {patients - len(groups)} directions",
        )

    def centres(values: Tensor) -> Tensor:
        return torch.stack([values[rows].mean(0) for rows in groups])

    latents, evidence = readings.latents, centres(readings.evidence)
    return PatientGroups(
        centres=evidence,
        patients=torch.tensor([len(rows) for rows in groups]),
        means=centres(latents),
        directions=principal_directions(
            torch.cat([latents[rows] - latents[rows].mean(0) for rows in groups]),
            freedom=patients - len(groups),
            count=num_directions,
        ),
        findings=finding_states(evidence),
        identity=(centres(readings.identity) @ prototypes.float().mT).argmax(-1),
        age=centres(readings.age).argmax(-1),
        sex=(centres(readings.sex) > 0).long(),
    )


def alike(evidence: Tensor, num_groups: int, k: int) -> list[np.ndarray]:
    """Partition patients by where their evidence points (k-means on the sphere).

    Source: Dhillon, Modha, Concept Decompositions for Large Sparse Text Data Using Clustering,
    Machine Learning 42, 2001.

    Parameters
    ----------
    evidence
        Shape (patients, 15).
    num_groups
        At most; fewer where a group would have fewer than k patients.
    k
        Least number of patients of a group.

    Returns
    -------
    list of ndarray
        Rows of each group.

    Raises
    ------
    CohortError
        If there are fewer than k patients.
    """
    _require(len(evidence), k)
    directions = functional.normalize(evidence.double(), dim=1).numpy()
    for count in range(min(num_groups, len(evidence) // k), 0, -1):
        labels = KMeans(count, n_init=10, random_state=0).fit_predict(directions)
        groups = [np.flatnonzero(labels == group) for group in range(count)]
        if min(map(len, groups)) >= k:
            break
    return groups


def principal_directions(residuals: Tensor, freedom: int, count: int) -> Tensor:
    """Return the `count` strongest directions of residuals (n, ...) times their deviations.

    Parameters
    ----------
    residuals
        Differences to the means of their groups.
    freedom
        Degrees of freedom, n less the number of groups.
    count
        At most `freedom`.
    """
    _, deviations, vectors = torch.linalg.svd(residuals.flatten(1).double(), full_matrices=False)
    scaled = vectors * deviations[:, None] / max(freedom, 1) ** 0.5
    return scaled[:count].reshape(count, *residuals.shape[1:]).float()


def microaggregated(values: np.ndarray, k: int) -> list[np.ndarray]:
    """Partition rows into groups of k to 2k - 1 similar ones (MDAV); fewer than k are an error.

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
    _require(len(values), k)
    values = values.astype(np.float64)
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


def _require(patients: int, k: int) -> None:
    if patients < k:
        raise CohortError(f"{patients} patients make no cluster of {k}", "choose a smaller k")


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
