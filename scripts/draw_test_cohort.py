"""Draws tests/data: a small cohort of nobody, with the mistakes that cohorts have.

Each patient is drawn from noise by the embedded model, and discarded if it lies too close to a
training image. Further images of the patient are light redrawings of the first one, moved and
exposed a little differently. Needs ../shared, to compare with; run from the root of a checkout:

    python scripts/draw_test_cohort.py tests/data
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from privdiff_training.augmentation import Augmentation
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.config import load_config
from privdiff_training.evaluation.redraw import redraw_with
from privdiff_training.evaluation.sample import DRAWN_FINDINGS, draw_sample, drawn_images
from privdiff_training.stages.diffusion import DiffusionConfig

from privdiff_infer.model.bundle import find_bundle
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.vocabulary import DEFAULT_BUNDLE, Profile

PATIENTS = 26
SPARE = 14
LIGHT = 0.3
SEED = 2026
COLUMNS = ("image", "patient_id", "findings", "sex", "age", "view")
STAGE = Path("training/configs/cxr-256-small/diffusion-5.yaml")


def main(folder: Path) -> None:
    """Draw the images and write them with their manifest."""
    (folder / "cohort").mkdir(parents=True, exist_ok=True)
    pipeline = PrivDiffPipeline.from_pretrained(find_bundle(DEFAULT_BUNDLE))
    first = _draw_patients(Path("build/drawn"))
    findings = _findings(pipeline, first)
    second = _further_images(pipeline, first)
    rows = []
    for patient in range(PATIENTS):
        images = (first, second)[: 1 if patient % 13 == 12 else 2]
        for number, drawn in enumerate(images):
            name = f"cohort/nobody-{patient:02}-{number}.jpg"
            _write(folder / name, drawn[patient, 0])
            rows.append(_row(name, patient, findings))
    rows += _mistakes(folder, first, findings)
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])


def _draw_patients(folder: Path) -> torch.Tensor:
    """Return images (patients, 1, s, s) that are no copies of training images."""
    data = load_config(STAGE, DiffusionConfig).data
    parts = data.read_sources()
    training = Cohort(parts[0].root, tuple(row for part in parts for row in part))
    strangers = read_manifest(data.manifest).where(
        lambda row: row.fold == "3" and row.dataset in {source.dataset for source in data.sources}
    )
    draw_sample(
        find_bundle(DEFAULT_BUNDLE),
        training,
        strangers.without_units_of(training),
        folder,
        keep=PATIENTS,
        check=SPARE,
        cache_dir=Path("build/cache"),
        seed=SEED,
    )
    files = [folder / f"drawn-{number}.png" for number in range(1, PATIENTS + 1)]
    return torch.stack([_read(file) for file in files])


def _findings(pipeline: PrivDiffPipeline, images: torch.Tensor) -> list[str]:
    """Return what each image was drawn with: some drawings in between were discarded."""
    drawn = drawn_images(pipeline, PATIENTS + SPARE, images.shape[-1], SEED)
    rows = torch.cdist(images.flatten(1), drawn.flatten(1)).argmin(dim=1).tolist()
    return [DRAWN_FINDINGS[row % len(DRAWN_FINDINGS)] for row in rows]


def _further_images(pipeline: PrivDiffPipeline, images: torch.Tensor) -> torch.Tensor:
    redrawn = redraw_with(pipeline, images, Profile.VANILLA, LIGHT, SEED)
    return Augmentation(strong=False)(redrawn, torch.arange(len(redrawn)) + SEED).clamp(0, 1)


def _mistakes(folder: Path, images: torch.Tensor, findings: Sequence[str]) -> list[tuple[str, ...]]:
    """Write images that a check of the cohort has to find; returns their rows."""
    made = {
        "near-duplicate.png": (images[1, 0] * 0.8 + 0.05, 1, "PA"),
        "inverted.png": (1 - images[25, 0], 25, "PA"),
        "lateral.jpg": (images[2, 0].flip(-1), 2, "LATERAL"),
        "unlabelled.jpg": ((images[24, 0] ** 1.3).roll(9, -1), 24, "PA"),
    }
    rows = [
        _row(f"cohort/nobody-{name}", number, findings) for name, (_, number, _) in made.items()
    ]
    for row, (image, _, _) in zip(rows, made.values(), strict=True):
        _write(folder / row[0], image)
    shutil.copy(folder / "cohort/nobody-00-0.jpg", folder / "cohort/nobody-duplicate.jpg")
    rows = [(*row[:5], view) for row, (_, _, view) in zip(rows, made.values(), strict=True)]
    rows[-1] = (*rows[-1][:2], "", *rows[-1][3:])
    return [*rows, _row("cohort/nobody-duplicate.jpg", 0, findings)]


def _row(name: str, patient: int, findings: Sequence[str]) -> tuple[str, ...]:
    sex, age = "FM"[patient % 2], str(25 + 2 * patient)
    return (name, f"nobody-{patient:02}", findings[patient], sex, age, "PA")


def _read(file: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(file).convert("L"), np.float32) / 255)[None]


def _write(file: Path, image: torch.Tensor) -> None:
    picture = Image.fromarray((image.clamp(0, 1) * 255).round().byte().numpy())
    options = {"quality": 88} if file.suffix == ".jpg" else {"optimize": True}
    picture.save(file, **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
