"""Which patients train, which judge while others train, and which measure in the end."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from enum import Enum

from privdiff_training.cohort import Cohort, CohortImage, is_select_patient
from privdiff_training.finetuning.config import SplitConfig


class Role(str, Enum):
    """What the images of a patient are for; the value is the split in the run's manifest."""

    TRAIN = "train"
    JUDGE = "judge"
    TEST = "test"


def assign_roles(cohort: Cohort, config: SplitConfig) -> list[Role]:
    """Return the role of every row; all rows of a patient have one.

    Test patients are those of the test splits, or a share of all by a fixed hash where the cohort
    has no such split. Of the others those of `is_select_patient` judge, on whom no stage trains,
    and with them those of the judging splits, or further ones by a fixed hash up to a share.
    """
    rows = cohort.rows
    test = {row.unit for row in rows if row.fold in config.test_folds}
    if not test:
        test = _drawn([row for row in rows if not is_select_patient(row)], rows, config.test_share)
    rest = [row for row in rows if row.unit not in test]
    judge = {row.unit for row in rest if is_select_patient(row)}
    wanted = math.ceil(config.judge_share * len({row.unit for row in rest})) - len(judge)
    judge |= set(
        _ordered([row for row in rest if row.unit not in judge], "judge")[: max(0, wanted)]
    )
    return [
        Role.TEST if row.unit in test else Role.JUDGE if row.unit in judge else Role.TRAIN
        for row in rows
    ]


def of_role(cohort: Cohort, role: Role) -> Cohort:
    """Return the rows of the run's manifest that have a role."""
    return cohort.where(lambda row: row.fold == role.value)


def patients(cohort: Cohort) -> int:
    """Return the number of patients."""
    return len({row.unit for row in cohort})


def largest_dataset(cohort: Cohort) -> Cohort:
    """Return the rows of the data set that has most patients: linkage is measured within one."""
    parts = cohort.by_dataset().values()
    return max(parts, key=patients, default=cohort)


def _drawn(among: Sequence[CohortImage], rows: Sequence[CohortImage], share: float) -> set[str]:
    count = math.ceil(share * len({row.unit for row in rows}))
    return set(_ordered(among, "test")[:count])


def _ordered(rows: Sequence[CohortImage], label: str) -> list[str]:
    """Return the patients in the order of a fixed hash."""

    def key(unit: str) -> str:
        return hashlib.sha256(f"finetune-{label}-v1:{unit}".encode()).hexdigest()

    return sorted({row.unit for row in rows}, key=key)
