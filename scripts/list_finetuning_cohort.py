"""Writes the manifest of the timed fine-tuning: 300 NIH images, always the same, patients whole.

They are of fold 3, on which no bundle was trained. The fifth of its patients that judges networks
measures in the end, and the tenth that is kept for choosing judges: the verifier of
training/evaluators was trained on the others. Run from the root of a checkout:

    python scripts/list_finetuning_cohort.py build/nih-300.csv
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from privdiff_training.cohort import (
    CohortImage,
    is_judging_patient,
    is_select_patient,
    read_manifest,
)
from privdiff_training.command_options import NIH, SHARED
from privdiff_training.finetuning.roles import Role
from privdiff_training.finetuning.sources import write_used

IMAGES = 300
FOLD = "3"


def main(manifest: Path) -> None:
    """Choose the patients by a hash and write their rows."""
    cohort = read_manifest(SHARED).where(lambda row: row.dataset == NIH and row.fold == FOLD)
    kept: set[str] = set()
    room = IMAGES
    for unit in sorted({row.unit for row in cohort}, key=_order):
        images = sum(row.unit == unit for row in cohort)
        if images <= room:
            kept.add(unit)
            room -= images
    chosen = cohort.where(lambda row: row.unit in kept)
    roles = [_role(row) for row in chosen]
    manifest.parent.mkdir(parents=True, exist_ok=True)
    write_used(chosen, [role.value for role in roles], manifest)
    print(f"{len(chosen)} images of {len(kept)} patients, {roles.count(Role.TEST)} to measure on")


def _role(row: CohortImage) -> Role:
    if is_judging_patient(row):
        return Role.TEST
    return Role.JUDGE if is_select_patient(row) else Role.TRAIN


def _order(unit: str) -> str:
    return hashlib.sha256(f"finetune-nih-v1:{unit}".encode()).hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
