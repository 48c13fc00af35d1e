"""Which profile and strength to ship: several drawings of every image that nothing was chosen by.

The NIH images of the select set and of fold 3 are redrawn by the embedded bundle, each several
times. Findings and linkage are means over the drawings, with intervals in which both patients and
drawings are drawn anew. Linkage is that of who has the tool and its weights (A13), from one copy
of an image and from all of them, and of the verifier that knows no tool (A0). What is redrawn is
kept in the cache, so a run that was stopped goes on. Run from the repository:

    PYTHONPATH=.:training python scripts/measure_strengths.py -o docs/results/strengths.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from privdiff_training.cohort import Cohort, is_select_patient, read_manifest
from privdiff_training.evaluation.attacks.starting_points import StartingPoints
from privdiff_training.evaluation.compare import CACHE_DIR, EVALUATORS
from privdiff_training.evaluation.findings import FindingsTrial
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.methods.bundle import BundleMethod
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.evaluation.record import for_json
from privdiff_training.evaluation.redraw import redraw, weights_hash
from privdiff_training.evaluation.roles import ATTACKER_FOLD, GENERATOR_FOLDS
from privdiff_training.evaluation.statistics import Estimate, bootstrap_draws, summarize
from privdiff_training.evaluation.verification_metrics import verification
from privdiff_training.images import load_images

from privdiff_infer.model.bundle import find_bundle, read_bundle
from privdiff_infer.release import write_json
from privdiff_infer.vocabulary import DEFAULT_BUNDLE, Profile

MANIFEST = Path("../shared/data/metadata.csv")
DATASET = "nih-chestxray14"
WAYS = (
    *((Profile.STANDARD, strength) for strength in (0.4, 0.8, 1.0)),
    *((Profile.FAST, strength) for strength in (0.6, 0.8, 1.0)),
    (Profile.VANILLA, 0.8),
)
SEED = 0


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--drawings", type=int, default=3, help="of every image")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    trial = Trial(arguments.drawings)
    write_json(arguments.output, for_json(trial.record()))
    print(trial.table())


class Trial:
    """The images, and every way of redrawing them.

    Parameters
    ----------
    drawings
        Of every image.
    """

    def __init__(self, drawings: int) -> None:
        self.bundle = read_bundle(find_bundle(DEFAULT_BUNDLE))
        self.cohort = _tested()
        size = self.bundle.metadata.image_size
        self.originals = load_images(self.cohort, size, CACHE_DIR).unsqueeze(1).float() / 255
        self.evaluators = Evaluators.load(EVALUATORS)
        self.findings = FindingsTrial(self.cohort)
        self.gallery = self.evaluators.embeddings(self.originals)
        self.logits = self.evaluators.findings(self.originals).numpy()
        self.owner = StartingPoints(self.bundle.path / "autoencoder")
        self.drawings = drawings
        self.rows = [self._row(profile, strength) for profile, strength in WAYS]

    def _row(self, profile: Profile, strength: float) -> dict:
        drawn = [
            redraw(
                self.bundle.path, self.cohort, self.originals, profile, strength, seed, CACHE_DIR
            )
            for seed in range(self.drawings)
        ]
        logits = [self.evaluators.findings(images).numpy() for images in drawn]
        starts = BundleMethod(self.bundle.path, profile, strength).starts(self.originals)
        of_owner = [self.owner.scores(images, starts) for images in drawn]
        of_verifier = [
            (self.evaluators.embeddings(images) @ self.gallery.mT).numpy() for images in drawn
        ]
        distances = [
            self.evaluators.kernel_distance(self.originals, images, SEED) for images in drawn
        ]
        return {
            "profile": profile.value,
            "strength": strength,
            "findings_lost": asdict(self._lost(logits)),
            "findings_auc": [self._auc(each) for each in logits],
            "one_copy": asdict(self._linked(of_owner)),
            "all_copies": asdict(self._linked([np.mean(of_owner, axis=0)])),
            "verifier": asdict(self._linked(of_verifier)),
            "kernel_distance": float(np.mean(distances)),
        }

    def _auc(self, logits: np.ndarray) -> float:
        return self.findings.auc(logits, range(self.findings.patients))

    def _lost(self, logits: Sequence[np.ndarray]) -> Estimate:
        """Return how much macro AUC the drawings lose on average; both levels are resampled."""
        patients = self.findings.patients

        def lost(chosen: Sequence[int], rng: np.random.Generator) -> float:
            drawings = rng.integers(len(logits), size=len(logits))
            left = [self.findings.auc(logits[drawing], chosen) for drawing in drawings]
            return self.findings.auc(self.logits, chosen) - float(np.mean(left))

        whole = self._auc(self.logits) - float(np.mean([self._auc(each) for each in logits]))
        return summarize(whole, bootstrap_draws(lost, patients, SEED), patients)

    def _linked(self, scores: Sequence[np.ndarray]) -> Estimate:
        return verification(self.cohort, scores, Linkage.SAME_IMAGE, SEED).auc

    def record(self) -> dict:
        """Return everything for JSON."""
        return {
            "bundle": f"{self.bundle.name} {self.bundle.version}",
            "weights_sha256": weights_hash(self.bundle),
            "images": len(self.cohort),
            "patients": self.findings.patients,
            "drawings": self.drawings,
            "findings_counted": self.findings.counted,
            "findings_auc_of_originals": self._auc(self.logits),
            "rows": self.rows,
        }

    def table(self) -> str:
        """Return the rows for people."""
        lines = [
            "| profile | strength | linked from one copy (A13) "
            f"| from {self.drawings} copies | verifier (A0) | findings lost | KID x 1000 |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            estimates = [
                str(Estimate(**row[name]))
                for name in ("one_copy", "all_copies", "verifier", "findings_lost")
            ]
            lines.append(
                f"| `{row['profile']}` | {row['strength']:g} | {' | '.join(estimates)} "
                f"| {1000 * row['kernel_distance']:.0f} |"
            )
        return "\n".join(lines)


def _tested() -> Cohort:
    """Return the NIH images of the select set and of fold 3."""
    cohort = read_manifest(MANIFEST).where(lambda row: row.dataset == DATASET)
    return cohort.where(
        lambda row: (
            row.fold == ATTACKER_FOLD or (row.fold in GENERATOR_FOLDS and is_select_patient(row))
        )
    )


if __name__ == "__main__":
    main()
