"""A bundle at one of its profiles: what is under test, and plain diffusion as its control."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.pipeline import ADAPTERS, PrivDiffPipeline
from privdiff_infer.profiles import PROFILES, ProfileSettings
from privdiff_infer.vocabulary import Profile
from privdiff_training.cohort import Cohort
from privdiff_training.evaluation.methods.method import Starts, hash_of, itself
from privdiff_training.evaluation.redraw import (
    SAMPLING,
    Told,
    conditions_of,
    redraw_with,
    weights_hash,
)

BATCH = 32
LABELS_TO_IMAGE = "labels to image"


@dataclass(frozen=True)
class BundleMethod:
    """Redraws with a bundle, without gates and repeated attempts.

    Profile `vanilla` is plain diffusion (SDEdit) with the same network: the control of SAS and SPG
    at equal strength. At strength 1 it starts from noise alone and is conditioned on the findings
    that the bundle reads, so it is labels to image, the control of every start from a latent.

    Attributes
    ----------
    bundle
        Folder.
    profile, strength
        How to sample.
    told_what
        What the bundle is told beside the pixels.
    """

    bundle: Path
    profile: Profile
    strength: float
    told_what: Told = Told.NOTHING

    @property
    def name(self) -> str:
        """Profile and strength; that of a control where it is one."""
        if self.profile is Profile.VANILLA and self.strength == 1:
            return LABELS_TO_IMAGE + self._addition
        return f"{self.profile.value} {self.setting}{self._addition}"

    @property
    def family(self) -> str:
        """The profile, and what it is told."""
        return f"{self.profile.value}{self._addition}"

    @property
    def setting(self) -> str:
        """The strength."""
        return f"{self.strength:g}"

    @property
    def told(self) -> str:
        """What it is told, in one word."""
        return self.told_what.value

    @cached_property
    def fingerprint(self) -> str:
        """Of weights, settings, strength and what is told."""
        settings = PROFILES[self.profile]
        return sampling_fingerprint(self.bundle, settings, self.strength, self.told)

    @property
    def shows_groups(self) -> bool:
        """Whether the profile starts from exemplars of a group."""
        pipeline = PrivDiffPipeline.from_pretrained(self.bundle)
        return pipeline.starts_from_cluster(self.profile)

    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Redraw every original; see `Method`."""
        pipeline = PrivDiffPipeline.from_pretrained(self.bundle)
        told = conditions_of(cohort, self.told_what)
        return redraw_with(pipeline, originals, self.profile, self.strength, seed, **told)

    @torch.no_grad()
    def starts(self, originals: Tensor) -> Starts:
        """Return the exemplars of the group of each original, or itself; see `Method`."""
        if not self.shows_groups:
            return itself(originals)
        pipeline = PrivDiffPipeline.from_pretrained(self.bundle)
        exemplars = pipeline.clusters.exemplars  # (groups, m, channels, h, w)
        parts = exemplars.flatten(0, 1).split(BATCH)
        pixels = torch.cat([pipeline.autoencoder.decode(part) for part in parts]).clamp(0, 1)
        groups = torch.cat([pipeline.group_of(part) for part in originals.split(BATCH)])
        whose = torch.arange(len(exemplars)).repeat_interleave(exemplars.shape[1])
        return Starts(pixels, groups[:, None] == whose)

    @property
    def _addition(self) -> str:
        return "" if self.told_what is Told.NOTHING else f", told the {self.told}"


def sampling_fingerprint(
    bundle: Path, settings: ProfileSettings, strength: float, *further: object
) -> str:
    """Return a hash of what decides redrawn images; equal ways of sampling give equal ones.

    Parameters
    ----------
    bundle
        Folder.
    settings, strength
        How to sample. An adapter that the bundle does not have is none.
    further
        Whatever else decides.
    """
    if not (bundle / ADAPTERS / str(settings.adapter)).is_dir():
        settings = replace(settings, adapter=None)
    weights = weights_hash(read_bundle(bundle))
    return hash_of(SAMPLING[settings.start], weights, settings, strength, *further)
