"""Small cohorts of synthetic radiographs on disk, for tests of training and evaluation."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = ("image", "dataset", "patient_id", "findings", "sex", "age", "view", "split")


def write_cohort(
    folder: Path, patients: int = 6, images_per_patient: int = 2, size: int = 64
) -> Path:
    """Write PNG files and their manifest; return the manifest's path.

    Every patient has a smooth pattern of its own, and images of one patient differ by noise.
    """
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(patients):
        pattern = rng.random((4, 4))
        for number in range(images_per_patient):
            coarse = pattern + 0.1 * rng.random((4, 4))
            image = Image.fromarray((coarse * 220).clip(0, 255).astype(np.uint8))
            name = f"p{patient}_{number}.png"
            image.resize((size, size), Image.Resampling.BICUBIC).save(folder / name)
            rows.append(
                (
                    name,
                    "cohort",
                    f"p{patient}",
                    "Effusion" if patient % 2 else "No Finding",
                    "FM"[patient % 2],
                    20 + 10 * (patient % 6),
                    "PA",
                    patient % 2,
                )
            )
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return manifest
