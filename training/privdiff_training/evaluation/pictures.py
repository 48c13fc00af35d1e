"""Pictures of results: grids of redrawn images and curves over training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.vocabulary import Profile
from privdiff_training.sampling import generator_for


@torch.no_grad()
def redrawn_grid(
    bundle: Path, images: Tensor, profile: Profile, strengths: Sequence[float], seed: int
) -> Image.Image:
    """Return one line per image: itself, its reconstruction, and redrawn at each strength.

    Parameters
    ----------
    bundle
        Folder.
    images
        Shape (n, 1, s, s), float32 in [0, 1].
    profile
        Way of sampling.
    strengths
        One column each.
    seed
        Of all noise.
    """
    pipeline = PrivDiffPipeline.from_pretrained(bundle)
    columns = [images, pipeline.autoencoder.decode(pipeline.autoencoder.encode(images))]
    for strength in strengths:
        generators = [generator_for(seed, "grid", row) for row in range(len(images))]
        columns.append(
            pipeline(images, profile=profile, strength=strength, generators=generators).images
        )
    lines = torch.cat([torch.cat(list(column[:, 0]), dim=0) for column in columns], dim=1)
    return Image.fromarray((lines.clamp(0, 1) * 255).round().byte().numpy())


def copies_grid(copies: Tensor, columns: int = 4) -> Image.Image:
    """Return copies side by side, without their originals.

    Parameters
    ----------
    copies
        Shape (n, 1, s, s), uint8; what fills no whole line is left out.
    columns
        Of the grid; fewer where there are fewer copies.
    """
    columns = min(columns, len(copies))
    whole = copies[: len(copies) - len(copies) % columns, 0]
    lines = [torch.cat(list(line), dim=1) for line in whole.split(columns)]
    return Image.fromarray(torch.cat(lines).numpy())


def progress_plot(figures: dict[int, Path], output: Path) -> None:
    """Plot the kernel distance over the samples that a denoiser has seen.

    Parameters
    ----------
    figures
        JSON files of `privdiff measure drawing`, by number of samples.
    output
        PNG or SVG file.
    """
    records = {samples: json.loads(path.read_text()) for samples, path in sorted(figures.items())}
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for strength in next(iter(records.values()))["kernel_distance"]:
        axes.plot(
            list(records),
            [1000 * record["kernel_distance"][strength] for record in records.values()],
            marker="o",
            label=f"strength {strength}",
        )
    axes.axhline(1000 * next(iter(records.values()))["floor"], color="grey", linestyle=":")
    axes.set_xlabel("samples seen")
    axes.set_ylabel("KID x 1000, own classifier's features")
    axes.legend()
    figure.savefig(output)
