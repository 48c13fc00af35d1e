"""Groups of the cohort's own patients, for a reader that was fitted to them.

Groups are told apart by the evidence of a reader. A fitted one sees the findings on another scale,
so groups of the base would no longer be those whose findings are nearest.
"""

from __future__ import annotations

from pathlib import Path

from privdiff_infer.model.bundle import BundleInfo
from privdiff_infer.model.critics import RadiographReader
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_training.clusters import (
    ClustersConfig,
    ExemplarsConfig,
    PatientReadings,
    alike,
    group_patients,
)
from privdiff_training.config import DataConfig
from privdiff_training.exemplars import CLUSTERS, NearCopies, with_exemplars
from privdiff_training.stages.data import TrainingImages
from privdiff_training.whole_folder import whole_folder

LEAST_PATIENTS = 50
"""With fewer, the groups say more of who they are than of their findings."""
CANDIDATES = 2
"""For each exemplar: a quarter of what the embedded bundle chose from, in a quarter of the time."""


def lacks_patients_for_groups(base: BundleInfo, data: DataConfig) -> str | None:
    """Return why a cohort cannot have groups of its own, or None if it can or needs none.

    Parameters
    ----------
    base
        The bundle that is adapted.
    data
        The images that train.
    """
    if not (base.path / CLUSTERS).is_dir():
        return None
    patients = len({row.unit for source in data.read_sources() for row in source})
    if patients >= LEAST_PATIENTS:
        return None
    return (
        f"groups for a reader of its own need {LEAST_PATIENTS} training patients, {patients} are "
        "there"
    )


def regroup(base: BundleInfo, reader: Path, data: DataConfig, components: Path, seed: int) -> None:
    """Put groups of the cohort among the components of the bundle, if the base starts from groups.

    Parameters
    ----------
    base
        The bundle that is adapted.
    reader
        Folder of the fitted reader.
    data
        The images that train.
    components
        Folder of the new bundle's components.
    seed
        Of drawing the exemplars of the groups.
    """
    if not (base.path / CLUSTERS).is_dir():
        return
    images = TrainingImages.load(data)
    pipeline = PrivDiffPipeline.from_pretrained(base.path)
    pipeline.register_modules(reader=RadiographReader.from_pretrained(reader))
    units = [row.unit for row in images.cohort]
    readings = PatientReadings.read(pipeline.to(images.device), images.batches(), units)
    usual = ClustersConfig()
    rows = alike(readings.evidence, len(pipeline.clusters.patients), usual.k)
    groups = group_patients(
        readings,
        pipeline.identity.prototypes.cpu(),
        rows,
        min(usual.num_directions, len(set(units)) - len(rows)),
    )
    count = pipeline.clusters.exemplars.shape[1]
    exemplars = ExemplarsConfig(count=count, candidates=CANDIDATES * count, seed=seed)
    is_copy = NearCopies.of(images, pipeline.identity)
    clusters = with_exemplars(pipeline, groups, exemplars, is_copy, data.cache_dir)
    with whole_folder(components / CLUSTERS) as partial:
        clusters.save_pretrained(partial)
