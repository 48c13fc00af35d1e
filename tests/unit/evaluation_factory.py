"""A whole record of an evaluation in made-up numbers, for tests of what is made from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from privdiff_training.evaluation.attack_record import (
    AttackFigures,
    Exposure,
    LinkageFigures,
    Retrieval,
    RocCurve,
    Rung,
    Training,
)
from privdiff_training.evaluation.linkage import Linkage, Negatives
from privdiff_training.evaluation.record import (
    Attributes,
    Evaluation,
    FindingFigures,
    Memorization,
    MethodFigures,
    Plan,
    Quality,
    Size,
    Subgroup,
    Utility,
)
from privdiff_training.evaluation.statistics import Estimate

NAN = float("nan")
LABELS = 0.61
"""The floor."""
UNKNOWN = Estimate(NAN, NAN, NAN, 0)
PATIENTS = {Linkage.SAME_IMAGE: 239, Linkage.FOLLOW_UP: 30}
FINDINGS = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Pleural_Thickening")


def near(value: float, reach: float = 0.03, patients: int = 239) -> Estimate:
    """Return an estimate with an interval that reaches as far on either side."""
    return Estimate(value, value - reach, value + reach, patients)


def part(value: float, reach: float = 0.03, patients: int = 239) -> Estimate:
    """Return an estimate of a part, whose interval stays within 0 and 1."""
    return Estimate(value, max(0.0, value - reach), min(1.0, value + reach), patients)


def linkage(value: float, kind: Linkage, reach: float | None = None) -> LinkageFigures:
    """Return figures of an attacker around one AUC."""
    patients = PATIENTS[kind]
    width = reach if reach is not None else 0.45 / patients**0.5
    rates = np.concatenate([[0.0], np.logspace(-4, 0, 49)])
    power = (1 - value) / value  # the area below rates**power is `value`
    return LinkageFigures(
        auc=part(value, width, patients),
        folded_auc=part(max(value, 1 - value), width, patients),
        folded_auc_of_strangers=0.5 + 0.4 / patients**0.5,
        tpr_at_fpr={"0.01": part(0.01**power, 0.02, patients)},
        equal_error_rate=part(1 - value, width, patients),
        auc_by_negatives={
            Negatives.ANY: part(value, width, patients),
            Negatives.SAME_SEX: part(0.5 + 0.8 * (value - 0.5), width, patients),
            Negatives.SAME_SEX_AND_AGE: part(0.5 + 0.6 * (value - 0.5), width, patients),
        },
        retrieval=tuple(
            Retrieval(size, part(3 * value / size, 0.01), part(9 * value / size, 0.02),
                      part(5 * value / size, 0.02), 1 / size)
            for size in (100, 309)
        ),
        roc=RocCurve(tuple(rates.tolist()), tuple((rates**power).tolist())),
    )  # fmt: skip


def attack(rung: Rung, same: float, follow: float, control: float = 0.9) -> AttackFigures:
    """Return an attacker with two seeds."""
    return AttackFigures(
        rung=rung,
        name="made-up network",
        trained_on="620 made-up images of 250 patients, 2 redrawn versions each, 400 steps",
        seeds=tuple(
            {Linkage.SAME_IMAGE: same + shift, Linkage.FOLLOW_UP: follow + shift}
            for shift in (-0.01, 0.01)
        ),
        linkage={
            Linkage.SAME_IMAGE: linkage(same, Linkage.SAME_IMAGE),
            Linkage.FOLLOW_UP: linkage(follow, Linkage.FOLLOW_UP),
        },
        on_originals={Linkage.SAME_IMAGE: 1.0, Linkage.FOLLOW_UP: control},
        learned_from_copies=rung is not Rung.FIXED,
        above_floor=near(follow - LABELS, 0.07, 30),
        control_above_floor=near(control - LABELS, 0.07, 30),
        training=None
        if rung is Rung.FIXED
        else Training(near(0.7, 0.08, 50), near(0.05, 0.06, 50), (((0, 4.1), (20, 3.9)),)),
    )


def utility(macro: float, originals: float = 0.74) -> Utility:
    """Return findings that fell from `originals` to `macro`."""
    fall = macro - originals
    figures = [
        FindingFigures(
            finding=name,
            positives=12 + 9 * number,
            originals=part(originals + 0.02 * (number - 2.5), 0.06),
            copies=part(macro + 0.02 * (number - 2.5), 0.07),
            difference=near(fall, 0.05),
            lost=part(0.08 * number + 0.02, 0.02) if number else Estimate(0.0, 0.0, 0.12, 28),
            gained=part(0.03 * number + 0.02, 0.01),
        )
        for number, name in enumerate(FINDINGS)
    ]
    return Utility(
        macro=part(macro, 0.035),
        difference=near(fall, 0.02),
        findings=tuple(figures),
        trained_on_copies=part(macro - 0.05, 0.05),
        trained_on_originals=part(originals - 0.04, 0.05),
        calibration_error=0.06,
        calibration_error_of_originals=0.04,
        trained_difference=near(fall - 0.01, 0.04),
        training="249 made-up images of 200 patients and the copy of each, 300 steps of 16 images",
    )


def method(
    name: str, family: str, setting: str, same: float, follow: float, macro: float, **parts: object
) -> MethodFigures:
    """Return a method under two attackers."""
    filled: dict[str, object] = {
        "told": "nothing",
        "attacks": (
            attack(Rung.FIXED, same - 0.05, follow - 0.04, 0.83),
            attack(Rung.METRIC_LEARNING, same, follow),
        ),
        "not_run": {"A4": "the weights of the encoder are not at hand"},
        "utility": utility(macro),
        "quality": None,
        "attributes": None,
        "subgroups": (),
        "exposure": None,
    }
    return MethodFigures(method=name, family=family, setting=setting, **(filled | parts))


def point(**parts: object) -> MethodFigures:
    """Return the operating point with all of its parts."""
    filled: dict[str, object] = {
        "quality": Quality({"the project's classifier": 0.035}, {}, 309, 0.41, 0.83, 290),
        "attributes": Attributes(
            near(0.71), near(0.97, 0.01), near(9.1, 0.8), near(6.4, 0.6), 12.9
        ),
        "subgroups": tuple(
            Subgroup(name, 120, near(0.64, 0.04, 90), near(0.70, 0.05, 90), 90, 4)
            for name in ("sex F", "sex M", "age 40 to 59", "view AP", "view PA")
        ),
        "exposure": Exposure(
            "A3 made-up network",
            239,
            2,
            100,
            0.01,
            {"0.5": 0.0, "0.75": 0.05, "0.9": 0.3, "0.95": 0.6, "1": 1.0},
            part(0.6),
            part(0.02),
            0.71,
            0.44,
            0.38,
        ),
    }
    return method("standard 0.7", "standard", "0.7", 0.66, 0.64, 0.70, **(filled | parts))


def evaluation(**changes: object) -> Evaluation:
    """Return a whole evaluation; `changes` replace parts of it."""
    originals = MethodFigures(
        "originals", "originals", "", "nothing",
        (attack(Rung.FIXED, 1.0, 0.83, 0.83), attack(Rung.METRIC_LEARNING, 1.0, 0.90)),
        {}, utility(0.74), None, None, (), None,
    )  # fmt: skip
    filled: dict[str, object] = {
        "size": Size.QUICK,
        "seed": 7,
        "bundle": "made-up-bundle",
        "version": "0.0",
        "weights_sha256": "0123456789abcdef" * 4,
        "operating_point": "standard 0.7",
        "dataset": "made-up",
        "folds": ("4",),
        "images": 309,
        "patients": 239,
        "patients_with_several": 30,
        "roles": {
            "reference": (780, 660),
            "attacker_train": (249, 200),
            "attacker_select": (62, 50),
            "test": (309, 239),
        },
        "floors": {
            Linkage.SAME_IMAGE: {
                "labels": near(0.93, 0.02),
                "sex": near(0.74, 0.02),
                "age": near(0.97, 0.01),
                "all": near(0.98, 0.01),
            },
            Linkage.FOLLOW_UP: {
                "labels": near(LABELS, 0.05, 30),
                "sex": near(0.74, 0.06, 30),
                "age": near(0.68, 0.07, 30),
                "all": near(0.80, 0.05, 30),
            },
        },
        "originals": originals,
        "methods": (
            point(),
            method("standard 0.4", "standard", "0.4", 0.92, 0.76, 0.725),
            method("standard 1", "standard", "1", 0.53, 0.55, 0.62),
            method("vanilla 0.7", "vanilla", "0.7", 0.70, 0.66, 0.69),
            method("vanilla 0.4", "vanilla", "0.4", 0.93, 0.77, 0.722),
            method("labels to image", "labels to image", "1", 0.52, 0.54, 0.60),
            method("blur 2", "blur", "2", 0.99, 0.80, 0.71),
            method("blur 4", "blur", "4", 0.97, 0.74, 0.64),
            method("blur 8", "blur", "8", 0.90, 0.65, 0.55),
            method("noise 0.1", "noise", "0.1", 0.995, 0.79, 0.69),
            method("noise 0.4", "noise", "0.4", 0.93, 0.70, 0.58),
            method("DP-Pix 8", "DP-Pix", "8", 0.61, 0.56, 0.53),
            method("standard 0.7, told the report", "standard, told the report", "0.7",
                   0.65, 0.63, 0.72, told="report"),
        ),
        "memorization": Memorization(0, 500, 0.0076, near(0.53, 0.02, 660)),
        "protocol": 2,
        "plan": Plan(
            rungs=frozenset({Rung.FIXED, Rung.METRIC_LEARNING, Rung.METADATA}),
            seeds=2,
            baseline_seeds=1,
            versions=2,
            test_versions=2,
            test_images=60,
            drawn=500,
            members=1000,
            attributes=True,
            reader_steps=300,
            gallery_versions=1,
        ),
        "methods_not_run": {"k-same 5": "not part of a run of size quick"},
        "not_measurable": {},
    }  # fmt: skip
    return Evaluation(**(filled | changes))


def write_record(folder: Path, record: Evaluation) -> Path:
    """Write report.json as the run does; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(record.to_record()), encoding="utf-8")
    return folder
