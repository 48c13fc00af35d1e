"""People of a few pixels, and a verifier who knows them, for tests of attacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from privdiff_training.cohort import Cohort, CohortImage
from privdiff_training.evaluation.attacks.attack import Copies, Known, Originals
from privdiff_training.evaluation.methods.method import Starts
from privdiff_training.sampling import generator_for
from privdiff_training.stages.identity import supervised_contrastive
from torch.nn import functional

from privdiff_infer.model.critics import IdentityEmbedder
from privdiff_infer.vocabulary import FINDING_TOKENS, FINDINGS, FindingState, Sex

SIDE = 32
BACKBONE = {"kind": "resnet", "layers": (1, 1, 1, 1), "widths": (8, 16, 16, 32)}
EFFUSION = FINDINGS.index("Effusion")


def people(count: int, seed: int, images: int = 2) -> Originals:
    """Return images of people: each has a smooth pattern, images of one differ by noise.

    Women and men alternate; men are brighter, the old darker at the top, and who has an effusion
    is bright at the bottom.
    """
    rng = np.random.default_rng(seed)
    rows, pixels = [], []
    for person in range(count):
        pattern = rng.random((4, 4))
        age = 20.0 + 10 * (person % 6)
        effusion = person % 4 < 2
        for number in range(images):
            coarse = pattern + 0.15 * rng.random((4, 4)) + 0.3 * (person % 2)
            coarse[0] -= (age - 20) / 100
            coarse[3] += 0.4 * effusion
            rows.append(_row(f"{seed}-{person}", number, person, age, effusion))
            pixels.append(coarse)
    coarse_images = torch.tensor(np.array(pixels)).unsqueeze(1).float() / 1.9
    smooth = functional.interpolate(coarse_images, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return Originals(Cohort(Path(), tuple(rows)), (smooth * 255).round().byte())


def known(copy, seed: int = 10, versions: int = 2) -> Known:
    """Return what attackers may use of a tool that maps images in [0, 1] and a seed to copies."""

    def copies(originals: Originals) -> Copies:
        return copies_of(copy, originals, versions)

    def anew(originals: Originals) -> Copies:
        return copies_of(copy, originals, versions, first=1000)

    def starts(originals: Originals) -> Starts:
        return Starts(originals.pixels.float() / 255, torch.eye(len(originals), dtype=torch.bool))

    roles = (people(20, seed), people(50, seed + 1), people(25, seed + 2))
    return Known(*roles, copies, anew, starts)


def copies_of(copy, originals: Originals, versions: int = 1, first: int = 0) -> Copies:
    """Return copies by a tool; `first` is the seed of the first version."""
    images = originals.pixels.float() / 255
    made = [(copy(images, first + number) * 255).round().byte() for number in range(versions)]
    return Copies(originals.cohort, torch.stack(made))


def taught_verifier(steps: int = 120) -> IdentityEmbedder:
    """Return a verifier that was trained on originals of other people."""
    torch.manual_seed(0)
    network = IdentityEmbedder(BACKBONE, SIDE, 16, 2)
    seen = people(120, 99)
    units = [row.unit for row in seen.cohort]
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for step in range(steps):
        rows = torch.randperm(120, generator=generator_for(0, step))[:32]
        both = torch.cat((2 * rows, 2 * rows + 1))
        noise = 0.03 * torch.randn(len(both), 1, SIDE, SIDE)
        images = seen.pixels[both].float() / 255 + noise
        loss = supervised_contrastive(network(images), [units[row] for row in both], 0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


def _row(unit: str, number: int, person: int, age: float, effusion: bool) -> CohortImage:
    states = [FindingState.ABSENT] * len(FINDING_TOKENS)
    if effusion:
        states[EFFUSION] = FindingState.PRESENT
    return CohortImage(
        Path(f"{unit}-{number}.png"),
        "toy",
        unit,
        unit,
        tuple(states),
        Sex(person % 2),
        age,
        "PA",
        "0",
    )
