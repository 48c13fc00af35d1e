"""The page of a cohort before anything is trained on it. It shows originals and is private."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from privdiff_infer.release import write_private
from privdiff_infer.vocabulary import AGE_BIN_EDGES, FINDING_TOKENS, FindingState, age_bin
from privdiff_training.cohort import Cohort
from privdiff_training.finetuning.checks import CheckedCohort
from privdiff_training.finetuning.folder import RunFolder, write_record
from privdiff_training.finetuning.problems import Effect, Problem
from privdiff_training.finetuning.roles import Role, patients
from privdiff_training.pages import page_environment

SHOWN = 12
"""Pictures of each problem, and of the cohort, at most."""

SIDE = 160
ROLE_WORDS = {
    Role.TRAIN: "train",
    Role.JUDGE: "judge while others train",
    Role.TEST: "measure old and new in the end",
}


def write_cohort_report(checked: CheckedCohort, folder: RunFolder) -> None:
    """Write the page and, last, the record of the checks; both readable by their owner alone."""
    page = page_environment().get_template("cohort.html").render(
        effects=Effect,
        refused=checked.is_refused,
        roles=list(_roles(checked)),
        findings=list(_findings(checked)),
        labels=_labels(checked.cohort),
        problems=[(problem, _pictures(problem, checked)) for problem in checked.problems],
        sample=_sample(checked),
    )  # fmt: skip
    write_private(folder.report, page.encode())
    write_record(folder.checks, checks_record(checked))


def checks_record(checked: CheckedCohort) -> dict[str, Any]:
    """Return numbers and problems for JSON, without a name of a file or patient."""
    return {
        "images": len(checked.cohort),
        "patients": patients(checked.cohort),
        "roles": {
            role.value: {"images": len(part), "patients": patients(part)}
            for role in Role
            for part in [checked.part(role)]
        },
        "problems": [
            {"title": p.title, "effect": p.effect.value, "images": len(p.images)}
            for p in checked.problems
        ],
    }


def _roles(checked: CheckedCohort) -> Iterator[tuple[str, int, int, int]]:
    for role in Role:
        part = checked.part(role)
        several = Counter(row.unit for row in part)
        yield ROLE_WORDS[role], len(part), patients(part), sum(n > 1 for n in several.values())


def _findings(checked: CheckedCohort) -> Iterator[tuple[str, list[int]]]:
    parts = [checked.part(role) for role in Role]
    for index, token in enumerate(FINDING_TOKENS):
        counts = [sum(r.findings[index] is FindingState.PRESENT for r in part) for part in parts]
        if any(counts):
            yield token.replace("_", " "), counts


def _labels(cohort: Cohort) -> dict[str, Counter[str]]:
    edges = (0, *AGE_BIN_EDGES)
    return {
        "view": Counter(row.view or "not given" for row in cohort),
        "sex": Counter(row.sex.name if row.sex is not None else "not given" for row in cohort),
        "age": Counter(
            "not given" if row.age_years is None else f"from {edges[age_bin(row.age_years)]}"
            for row in cohort
        ),
    }


def _pictures(problem: Problem, checked: CheckedCohort) -> list[tuple[str, str]]:
    names = [name for name in dict.fromkeys(problem.images) if name in checked.shown]
    return [(name, _png(checked.shown[name])) for name in names[:SHOWN]]


def _sample(checked: CheckedCohort) -> list[tuple[str, str]]:
    """Return pictures spread evenly over what is used."""
    count = min(SHOWN, len(checked.cohort))
    if not count:
        return []
    rows = torch.linspace(0, len(checked.cohort) - 1, count).long().unique().tolist()
    return [
        (str(checked.cohort.rows[row].image), _png(checked.pixels[row, 0].numpy())) for row in rows
    ]


def _png(pixels: np.ndarray) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
