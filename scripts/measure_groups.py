"""What findings cost: how far images are linked by whoever knows the group of each, and what the
group still tells of the findings.

The training patients of the embedded bundle are put into 1 to 65 groups, and every image of the
select set and of fold 3, on which nothing of the bundle was trained, into the nearest one. No image
is redrawn: these are the ends that no redrawing from groups goes beyond, in either direction. Run
from the repository:

    PYTHONPATH=.:training python scripts/measure_groups.py -o docs/results/groups.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from privdiff_training.clusters import ClustersConfig, PatientReadings, alike
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.config import load_config
from privdiff_training.evaluation.findings import FindingsTrial
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.roles import choosing_rows
from privdiff_training.evaluation.verification_metrics import seed_auc
from privdiff_training.images import load_images
from privdiff_training.stages.data import TrainingImages
from rich.progress import track
from torch.nn.functional import cosine_similarity

from privdiff_infer.model.bundle import find_bundle, read_bundle
from privdiff_infer.model.clusters import nearest_centre
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.release import write_json
from privdiff_infer.vocabulary import DEFAULT_BUNDLE

CONFIG = Path("training/configs/cxr-256-small/clusters.yaml")
NUMBERS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 65)
BATCH = 32


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    output = parser.parse_args().output
    torch.set_grad_enabled(False)
    config = load_config(CONFIG, ClustersConfig)
    bundle = read_bundle(find_bundle(DEFAULT_BUNDLE))
    pipeline = PrivDiffPipeline.from_pretrained(bundle.path)
    images = TrainingImages.load(config.data)
    units = [row.unit for row in images.cohort]
    readings = PatientReadings.read(pipeline, images.batches(), units)
    source = config.data.sources[0]
    cohort = read_manifest(config.data.manifest).where(lambda row: row.dataset == source.dataset)
    tested = choosing_rows(cohort)
    pixels = load_images(tested, bundle.metadata.image_size, config.data.cache_dir).unsqueeze(1)
    parts = [part.float() / 255 for part in pixels.split(BATCH)]
    evidence = torch.cat([pipeline.reader.evidence(pipeline.reader(part)) for part in parts])
    trial = FindingsTrial(tested)
    everybody = range(trial.patients)
    rows = []
    for number in track(NUMBERS, "Groups"):
        groups = alike(readings.evidence, number, k=1)
        centres = torch.stack([readings.evidence[members].mean(0) for members in groups])
        chosen = nearest_centre(evidence, centres)
        rows.append(
            {
                "groups": number,
                "linkage_auc": _linkage(tested, chosen),
                "rank_one_bound": min(1.0, number / len({row.unit for row in tested})),
                "findings_auc": trial.auc(centres[chosen].numpy(), everybody),
                "agreeing": float(
                    (
                        cosine_similarity(evidence, centres[chosen])
                        >= bundle.metadata.gates.findings_agreement
                    )
                    .double()
                    .mean()
                ),
            }
        )
    record = {
        "bundle": f"{bundle.name} {bundle.version}",
        "images": len(tested),
        "patients": trial.patients,
        "findings": trial.counted,
        "findings_auc_of_originals": trial.auc(evidence.numpy(), everybody),
        "rows": rows,
    }
    write_json(output, record)
    print(_table(record))


def _linkage(cohort: Cohort, chosen: torch.Tensor) -> float:
    """Return the same-image AUC of who knows every group; a rare one tells more."""
    same = chosen[:, None] == chosen
    scores = (same / same.sum(1)).double().numpy()
    return seed_auc(cohort, np.asarray(scores), Linkage.SAME_IMAGE)


def _table(record: dict) -> str:
    lines = [
        "| groups | linkage of who knows the group | rank 1 at most | findings AUC | agreeing |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['groups']} | {row['linkage_auc']:.3f} | {row['rank_one_bound']:.3f} "
        f"| {row['findings_auc']:.3f} | {row['agreeing']:.0%} |"
        for row in record["rows"]
    ]
    lines.append(f"| originals | 1 | 1 | {record['findings_auc_of_originals']:.3f} | 100% |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
