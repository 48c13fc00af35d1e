"""Which profile and strength to ship: several drawings of images that choices may be made on.

The NIH images of the select set and of fold 3 are redrawn by the embedded bundle, each several
times. Findings and likeness are of all of them. Linkage is of the worst attacker out of those in
whom no network is trained (A0, A8, A12, A13, A14): they learn from the copies of four fifths of the
patients of fold 3 and look for the others, in one copy of an image and in all that there are.
Figures are means over drawings; patients and drawings are drawn anew for the intervals, equal ones
for every row. What is redrawn is kept in the cache, so a run that was stopped goes on. Run from the
repository:

    PYTHONPATH=.:training python scripts/measure_strengths.py -o docs/results/strengths.json
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from privdiff_training.cohort import Cohort, is_judging_patient, read_manifest
from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.attacks.attack import Attack, Copies, Known, Originals
from privdiff_training.evaluation.attacks.config import AttackersConfig
from privdiff_training.evaluation.attacks.kept import Kept
from privdiff_training.evaluation.attacks.ladder import ladder
from privdiff_training.evaluation.compare import CACHE_DIR, EVALUATORS
from privdiff_training.evaluation.findings import FindingsTrial
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.methods.bundle import BundleMethod
from privdiff_training.evaluation.methods.method import Starts
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.evaluation.record import for_json
from privdiff_training.evaluation.redraw import redraw, weights_hash
from privdiff_training.evaluation.roles import ATTACKER_FOLD, choosing_rows
from privdiff_training.evaluation.statistics import Estimate, bootstrap_draws, summarize
from privdiff_training.evaluation.verification_metrics import verification
from privdiff_training.images import load_images
from torch import Tensor

from privdiff_infer.model.bundle import find_bundle, read_bundle
from privdiff_infer.release import write_json
from privdiff_infer.vocabulary import DEFAULT_BUNDLE, Profile

MANIFEST = Path("../shared/data/metadata.csv")
DATASET = "nih-chestxray14"
WAYS = (
    (Profile.STANDARD, 0.4),
    (Profile.STANDARD, 0.8),
    (Profile.FAST, 0.6),
    (Profile.FAST, 0.8),
    (Profile.FAST, 1.0),
    (Profile.VANILLA, 0.8),
)
"""What a choice is between; the first is what is shipped, which the others are compared with."""
LOOKING = frozenset(
    {Rung.FIXED, Rung.AVERAGING, Rung.READINGS, Rung.STARTING_POINTS, Rung.TOGETHER}
)
SEED = 0


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--drawings", type=int, default=2, help="of every image")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    trial = Trial(arguments.drawings)
    write_json(arguments.output, for_json(trial.record()))
    print(trial.table())


@dataclass(frozen=True)
class Linked:
    """What one attacker finds: AUC for the very image and for another one of the person."""

    attacker: str
    same_image: Estimate
    follow_up: Estimate


class Trial:
    """The images, and every way of redrawing them.

    Parameters
    ----------
    drawings
        Of every image.
    """

    def __init__(self, drawings: int) -> None:
        self.drawings = drawings
        self.bundle = read_bundle(find_bundle(DEFAULT_BUNDLE))
        cohort = read_manifest(MANIFEST).where(lambda row: row.dataset == DATASET)
        self.cohort = choosing_rows(cohort)
        size = self.bundle.metadata.image_size
        self.pixels = load_images(self.cohort, size, CACHE_DIR).unsqueeze(1)
        self.originals = self.pixels.float() / 255
        learns = [row.fold == ATTACKER_FOLD and not is_judging_patient(row) for row in self.cohort]
        self.learned, self.sought = np.flatnonzero(learns), np.flatnonzero(~np.array(learns))
        self.evaluators = Evaluators.load(EVALUATORS)
        self.findings = FindingsTrial(self.cohort)
        self.logits = self.evaluators.findings(self.originals).numpy()
        self.attacks = [
            attack
            for attack in ladder(EVALUATORS, self.bundle.path, AttackersConfig())
            if attack.rung in LOOKING and not attack.is_learned
        ]
        drawn = {way: self._drawn(*way) for way in WAYS}
        left = {way: self._left(drawn[way]) for way in WAYS}
        self.rows = [self._row(*way, drawn[way], left[way], left[WAYS[0]]) for way in WAYS]

    def _drawn(self, profile: Profile, strength: float) -> list[Tensor]:
        return [
            redraw(
                self.bundle.path, self.cohort, self.originals, profile, strength, seed, CACHE_DIR
            )
            for seed in range(self.drawings)
        ]

    def _row(
        self,
        profile: Profile,
        strength: float,
        drawn: Sequence[Tensor],
        left: tuple[float, np.ndarray],
        of_default: tuple[float, np.ndarray],
    ) -> dict:
        found = list(self._found(BundleMethod(self.bundle.path, profile, strength), drawn))
        several = [linked for averages, linked in found if averages]
        one = [linked for averages, linked in found if not averages]
        distances = [
            self.evaluators.kernel_distance(self.originals, images, SEED) for images in drawn
        ]
        (auc, draws), (default_auc, default_draws) = left, of_default
        patients = self.findings.patients
        return {
            "profile": profile.value,
            "strength": strength,
            "findings": asdict(summarize(auc, draws, patients)),
            "findings_minus_default": asdict(
                summarize(auc - default_auc, draws - default_draws, patients)
            ),
            "one_copy": asdict(max(one, key=lambda linked: linked.same_image.value)),
            "all_copies": asdict(max(several, key=lambda linked: linked.same_image.value)),
            "another_image": asdict(max(one + several, key=lambda each: each.follow_up.value)),
            "kernel_distance": float(np.mean(distances)),
        }

    def _left(self, drawn: Sequence[Tensor]) -> tuple[float, np.ndarray]:
        """Return the macro findings AUC, mean over drawings, and that of resamples."""
        logits = [self.evaluators.findings(images).numpy() for images in drawn]

        def left(patients: Sequence[int], rng: np.random.Generator) -> float:
            drawings = rng.integers(len(logits), size=len(logits))
            return float(np.mean([self.findings.auc(logits[each], patients) for each in drawings]))

        everybody = range(self.findings.patients)
        whole = float(np.mean([self.findings.auc(each, everybody) for each in logits]))
        return whole, bootstrap_draws(left, self.findings.patients, SEED)

    def _found(
        self, method: BundleMethod, drawn: Sequence[Tensor]
    ) -> Iterator[tuple[bool, Linked]]:
        """Yield what every attacker finds, and whether in all copies of an image together."""
        copies = (torch.stack(list(drawn)) * 255).round().byte()
        learned, sought = self._originals(self.learned), self._originals(self.sought)
        kept: Kept[Starts] = Kept()
        known = Known(
            learned,
            learned,
            learned,
            copy=lambda _: Copies(learned.cohort, copies[:, self.learned]),
            copy_anew=_nobody_redraws,
            starts=lambda originals: kept(
                originals.pixels, lambda pixels: method.starts(pixels.float() / 255)
            ),
        )
        queries = copies[:, self.sought]
        for attack in self.attacks:
            if attack.needs_groups and not method.shows_groups:
                continue
            averages = attack.rung is Rung.AVERAGING
            linker = attack.train(known, SEED)
            seen = [queries] if averages else [version[None] for version in queries]
            scores = [linker(Copies(sought.cohort, each), sought) for each in seen]
            yield averages, _linked(attack, sought.cohort, scores)

    def _originals(self, rows: np.ndarray) -> Originals:
        chosen = tuple(self.cohort.rows[row] for row in rows)
        return Originals(replace(self.cohort, rows=chosen), self.pixels[rows])

    def record(self) -> dict:
        """Return everything for JSON."""
        everybody = range(self.findings.patients)
        return {
            "bundle": f"{self.bundle.name} {self.bundle.version}",
            "weights_sha256": weights_hash(self.bundle),
            "images": len(self.cohort),
            "patients": self.findings.patients,
            "images_sought": len(self.sought),
            "drawings": self.drawings,
            "findings_counted": self.findings.counted,
            "findings_auc_of_originals": self.findings.auc(self.logits, everybody),
            "rows": self.rows,
        }

    def table(self) -> str:
        """Return the rows for people."""
        lines = [
            f"| profile | strength | same-image linkage, one copy | {self.drawings} copies "
            "| follow-up linkage | findings AUC | less or more than the first | KID x 1000 |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            one, several, another = row["one_copy"], row["all_copies"], row["another_image"]
            lines.append(
                f"| `{row['profile']}` | {row['strength']:g} "
                f"| {_cell(one, 'same_image')} | {_cell(several, 'same_image')} "
                f"| {_cell(another, 'follow_up')} | {Estimate(**row['findings'])} "
                f"| {Estimate(**row['findings_minus_default'])} "
                f"| {1000 * row['kernel_distance']:.0f} |"
            )
        return "\n".join(lines)


def _linked(attack: Attack, cohort: Cohort, scores: Sequence[np.ndarray]) -> Linked:
    return Linked(
        f"{attack.rung.value} {attack.name}",
        verification(cohort, scores, Linkage.SAME_IMAGE, SEED).auc,
        verification(cohort, scores, Linkage.FOLLOW_UP, SEED).auc,
    )


def _cell(linked: dict, kind: str) -> str:
    return f"{Estimate(**linked[kind])} {linked['attacker'].split()[0]}"


def _nobody_redraws(originals: Originals) -> Copies:
    raise AssertionError("nobody who looks redraws a gallery")


if __name__ == "__main__":
    main()
