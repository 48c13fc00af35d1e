"""What redrawings from groups show, over many drawings of every group instead of one an image.

What starts from a group owes to an image the choice of the group alone, so every exemplar is
redrawn a few times, and any of these may stand for an image of the group. Findings are read by
the fixed classifier in the NIH images of the select set and of fold 3, which choices may be made
on: the AUC that is expected over these drawings, and that of the mean of each group, which no way
of drawing from these groups exceeds unless it changes their order. Patients are drawn anew for the
intervals, the same for every row. What is redrawn is kept in the cache, so a run that was stopped
goes on. Run from the repository:

    PYTHONPATH=.:training python scripts/measure_exemplars.py -o docs/results/exemplars.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from privdiff_training.cohort import read_manifest
from privdiff_training.evaluation.compare import CACHE_DIR, EVALUATORS
from privdiff_training.evaluation.findings import FindingsTrial
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.evaluation.record import for_json
from privdiff_training.evaluation.redraw import weights_hash
from privdiff_training.evaluation.roles import choosing_rows
from privdiff_training.evaluation.statistics import Estimate, auc, bootstrap_draws, summarize
from privdiff_training.images import load_images
from privdiff_training.sampling import generator_for
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity

from privdiff_infer.model.bundle import BundleInfo, find_bundle, read_bundle
from privdiff_infer.model.clusters import PatientClusters
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.profiles import PROFILES
from privdiff_infer.release import write_json
from privdiff_infer.vocabulary import DEFAULT_BUNDLE, FindingState, Profile

MANIFEST = Path("../shared/data/metadata.csv")
DATASET = "nih-chestxray14"
WAYS = (
    (Profile.STANDARD, 0.4),
    (Profile.FAST, 0.6),
    (Profile.FAST, 0.8),
)
REDRAWINGS = 4
KERNEL_DRAWINGS = 4
"""Times that every image is given a drawing of its group, to compare distributions."""
BATCH = 8
SEED = 0


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    output = parser.parse_args().output
    torch.set_grad_enabled(False)
    bundle = read_bundle(find_bundle(DEFAULT_BUNDLE))
    images = ChoosingImages(bundle.metadata.image_size)
    exemplars = Exemplars(bundle, images.pixels)
    rows = [Row(images, exemplars, profile, strength) for profile, strength in WAYS]
    record = {
        "bundle": f"{bundle.name} {bundle.version}",
        "weights_sha256": exemplars.weights,
        "redrawings": REDRAWINGS,
        **images.record(),
        "rows": [row.record() | {"minus_first": asdict(row.beyond(rows[0]))} for row in rows],
    }
    write_json(output, for_json(record))
    print(table(rows))


class ChoosingImages:
    """The images whose findings are looked for, and networks that look.

    Parameters
    ----------
    size
        Edge of the images.
    """

    def __init__(self, size: int) -> None:
        cohort = read_manifest(MANIFEST).where(lambda row: row.dataset == DATASET)
        self.cohort = choosing_rows(cohort)
        self.pixels = load_images(self.cohort, size, CACHE_DIR).unsqueeze(1).float() / 255
        self.evaluators = Evaluators.load(EVALUATORS)
        self.trial = FindingsTrial(self.cohort)

    def record(self) -> dict:
        """Return what they are for JSON."""
        logits = self.evaluators.findings(self.pixels).numpy()
        return {
            "images": len(self.cohort),
            "patients": self.trial.patients,
            "findings_counted": self.trial.counted,
            "findings_auc_of_originals": self.trial.auc(logits, range(self.trial.patients)),
        }


class Exemplars:
    """What a bundle redraws from its groups.

    Parameters
    ----------
    bundle
        Which one.
    images
        Whose groups are wanted, shape (n, 1, s, s), in [0, 1].
    """

    def __init__(self, bundle: BundleInfo, images: Tensor) -> None:
        self.weights = weights_hash(bundle)
        self.pipeline = PrivDiffPipeline.from_pretrained(bundle.path)
        self.clusters = self.pipeline.clusters
        parts = [self.pipeline.group_of(part) for part in images.split(BATCH)]
        self.groups = torch.cat(parts).numpy()

    def redrawn(self, profile: Profile, strength: float) -> Tensor:
        """Return each of them redrawn a few times, shape (groups, n, 1, s, s), in [0, 1]."""
        what = f"{self.weights}:{PROFILES[profile]}:{strength}:{REDRAWINGS}:{SEED}"
        key = sha256(what.encode()).hexdigest()[:16]
        path = CACHE_DIR / f"exemplars-redrawn-{key}.safetensors"
        if not path.exists():
            groups = track(range(len(self.clusters.exemplars)), f"{profile.value} {strength:g}")
            drawn = torch.stack([self._of_group(group, profile, strength) for group in groups])
            partial = path.with_suffix(".partial")
            save_file({"images": (drawn * 255).round().byte()}, partial)
            partial.replace(path)
        return load_file(path)["images"].float() / 255

    def _of_group(self, group: int, profile: Profile, strength: float) -> Tensor:
        """Return the exemplars of one group redrawn, shape (n, 1, s, s)."""
        self.pipeline.register_modules(clusters=self._only(group))
        starts = self.clusters.exemplars[group].repeat(REDRAWINGS, 1, 1, 1)
        generators = [generator_for(SEED, "exemplar", group, row) for row in range(len(starts))]
        size = [edge * self.pipeline.autoencoder.downsampling for edge in starts.shape[2:]]
        parts = [
            self.pipeline(
                starts.new_zeros(len(rows), 1, *size),
                profile=profile,
                strength=strength,
                generators=[generators[row] for row in rows],
                start_latents=starts[rows],
            ).images
            for rows in torch.arange(len(starts)).split(BATCH)
        ]
        return torch.cat(parts)

    def _only(self, group: int) -> PatientClusters:
        """Return one group, which every image falls into."""
        exemplars, every = self.clusters.exemplars, self.clusters.state_dict()
        alone = PatientClusters(1, exemplars.shape[2:], exemplars.shape[1])
        alone.load_state_dict({name: rows[[group]] for name, rows in every.items()})
        return alone

    def agreement(self, drawn: Tensor) -> float:
        """Return the mean cosine of the evidence in redrawings and that of their groups."""
        reader = self.pipeline.reader
        seen = torch.stack([reader.evidence(reader(each)) for each in drawn])
        return float(cosine_similarity(seen, self.clusters.centres[:, None], dim=-1).mean())


class Row:
    """One way of redrawing.

    Parameters
    ----------
    images
        Whose findings are looked for.
    exemplars
        What is redrawn in place of them.
    profile, strength
        How.
    """

    def __init__(
        self, images: ChoosingImages, exemplars: Exemplars, profile: Profile, strength: float
    ) -> None:
        self.trial, self.groups = images.trial, exemplars.groups
        self.profile, self.strength = profile, strength
        drawn = exemplars.redrawn(profile, strength)
        logits = [images.evaluators.findings(each).numpy() for each in drawn]
        self.expected = self._draws(logits)
        self.of_means = self._draws([each.mean(0, keepdims=True) for each in logits])
        self.agreement = exemplars.agreement(drawn)
        self.kernel_distance = _kernel_distance(images, self.groups, drawn)

    def _draws(self, logits: Sequence[np.ndarray]) -> tuple[float, np.ndarray]:
        """Return the macro AUC of drawings of the group of every image, and that of resamples."""
        wins = {
            index: np.array(
                [[auc(one[:, index], other[:, index]) for other in logits] for one in logits]
            )
            for index in self.trial.indices
        }

        def macro(patients: Sequence[int], _: np.random.Generator) -> float:
            rows = self.trial.rows(patients)
            return float(np.nanmean([self._area(index, wins[index], rows) for index in wins]))

        everybody = range(self.trial.patients)
        whole = macro(everybody, np.random.default_rng(SEED))
        return whole, bootstrap_draws(macro, self.trial.patients, SEED)

    def _area(self, index: int, wins: np.ndarray, rows: np.ndarray) -> float:
        """Return the AUC of one finding; `wins` says how often one group shows more of it."""
        states = self.trial.states[rows, index]
        shares = []
        for state in (FindingState.PRESENT, FindingState.ABSENT):
            counts = np.bincount(self.groups[rows[states == state]], minlength=len(wins))
            shares.append(counts / counts.sum() if counts.any() else counts * np.nan)
        return float(shares[0] @ wins @ shares[1])

    def findings(self) -> Estimate:
        """Return the findings AUC."""
        return summarize(*self.expected, self.trial.patients)

    def beyond(self, other: Row) -> Estimate:
        """Return by how much the findings AUC is higher than that of another row."""
        (value, draws), (before, draws_before) = self.expected, other.expected
        return summarize(value - before, draws - draws_before, self.trial.patients)

    def record(self) -> dict:
        """Return everything for JSON."""
        return {
            "profile": self.profile.value,
            "strength": self.strength,
            "findings": asdict(self.findings()),
            "findings_of_group_means": asdict(summarize(*self.of_means, self.trial.patients)),
            "agreement": self.agreement,
            "kernel_distance": self.kernel_distance,
        }


def table(rows: Sequence[Row]) -> str:
    """Return the rows for people."""
    lines = [
        "| profile | strength | findings AUC | less or more than the first "
        "| of the mean of each group | agreement | KID x 1000 |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row.profile.value}` | {row.strength:g} | {row.findings()} | {row.beyond(rows[0])} "
        f"| {row.of_means[0]:.3f} | {row.agreement:.3f} | {1000 * row.kernel_distance:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def _kernel_distance(images: ChoosingImages, groups: np.ndarray, drawn: Tensor) -> float:
    """Return KID of one drawing of every image, mean over several."""
    rng = np.random.default_rng(SEED)
    distances = []
    for _ in range(KERNEL_DRAWINGS):
        picked = torch.from_numpy(rng.integers(drawn.shape[1], size=len(groups)))
        one = drawn[torch.from_numpy(groups), picked]
        distances.append(images.evaluators.kernel_distance(images.pixels, one, SEED))
    return float(np.mean(distances))


if __name__ == "__main__":
    main()
