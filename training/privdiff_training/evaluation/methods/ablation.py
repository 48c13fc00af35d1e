"""Ablations: plain diffusion with SAS, SPG and erasers, one by one and together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.model.erasers import Erasers, FeatureEraser, TokenEraser
from privdiff_infer.model.guidance import Guidance
from privdiff_infer.model.sas import SASMode, SASSettings
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.profiles import PROFILES, ProfileSettings
from privdiff_infer.vocabulary import Profile
from privdiff_training.cohort import Cohort
from privdiff_training.erasers import (
    SubspaceSettings,
    fit_context_eraser,
    fit_feature_erasers,
    patients_with_several,
    rows_with_attributes,
)
from privdiff_training.evaluation.methods.bundle import sampling_fingerprint
from privdiff_training.evaluation.methods.method import Starts, hash_of, itself
from privdiff_training.evaluation.methods.reference import Reference
from privdiff_training.evaluation.redraw import redraw_with, weights_hash

BATCH = 32
FURTHER_STRENGTHS = (0.4, 0.6)
"""Beside the operating point: plain diffusion from the image keeps all of the person at the first,
and a part of both person and findings at the second, where a part can show what it does."""

PLAIN = PROFILES[Profile.VANILLA]
ABLATIONS: Mapping[str, ProfileSettings] = {
    "SAS paper": replace(PLAIN, sas=SASSettings(mode=SASMode.PAPER)),
    "SAS centered": replace(PLAIN, sas=SASSettings(mode=SASMode.CENTERED)),
    "SAS value": replace(PLAIN, sas=SASSettings(mode=SASMode.VALUE)),
    "SAS context (LEACE)": replace(PLAIN, sas=SASSettings(mode=SASMode.CONTEXT)),
    "SAS combined": replace(PLAIN, sas=SASSettings(mode=SASMode.COMBINED)),
    "SPG": replace(PLAIN, guidance=Guidance()),
    "SAS centered + SPG": replace(PLAIN, sas=SASSettings(), guidance=Guidance()),
}
"""Base weights and one sampler throughout, so that nothing else differs from plain diffusion."""

WITH_SUBSPACE: Mapping[str, ProfileSettings] = {
    "subspace erasure": PLAIN,
    "SAS combined + SPG + subspace erasure": replace(
        PLAIN, sas=SASSettings(mode=SASMode.COMBINED), guidance=Guidance()
    ),
}
"""The same, sampled with erased features."""


@dataclass(frozen=True)
class FittedErasers:
    """Erasers of a bundle, fitted to reference images when they are first needed.

    Attributes
    ----------
    bundle
        Folder.
    reference
        Images that the bundle was trained on.
    subspace
        How features are erased.
    """

    bundle: Path
    reference: Reference
    subspace: SubspaceSettings

    @cached_property
    def fingerprint(self) -> str:
        """Of weights, reference images and settings."""
        weights = weights_hash(read_bundle(self.bundle))
        return hash_of(weights, self.reference.fingerprint, self.subspace)

    @cached_property
    def context(self) -> TokenEraser:
        """LEACE of age and sex, for the findings that the bundle reads."""
        pipeline, rows = self._pipeline, torch.arange(len(self.reference.cohort))
        findings = [
            pipeline.read_findings(self.reference.images(part)) for part in rows.split(BATCH)
        ]
        return fit_context_eraser(
            pipeline.denoiser.embeddings, torch.cat(findings), self.reference.cohort
        )

    @cached_property
    def features(self) -> Mapping[str, FeatureEraser]:
        """Of the subspaces in which patients differ."""
        units = [row.unit for row in self.reference.cohort]
        return fit_feature_erasers(self._pipeline, self.reference.pixels, units, self.subspace)

    @property
    def _pipeline(self) -> PrivDiffPipeline:
        return PrivDiffPipeline.from_pretrained(self.bundle)


@dataclass(frozen=True)
class Ablation:
    """Redraws with the base weights of a bundle and settings that are no profile.

    Attributes
    ----------
    fitted
        Erasers; names the bundle.
    family
        Which parts are on.
    settings, strength
        How to sample.
    erases_features
        Whether the features of the UNet are erased.
    """

    fitted: FittedErasers
    family: str
    settings: ProfileSettings
    strength: float
    erases_features: bool = False
    told = "nothing"
    shows_groups = False

    @property
    def name(self) -> str:
        """Family and strength."""
        return f"{self.family} {self.setting}"

    @property
    def setting(self) -> str:
        """The strength."""
        return f"{self.strength:g}"

    @cached_property
    def fingerprint(self) -> str:
        """Of weights, settings, strength, and of erasers where there are any."""
        erasing: tuple[object, ...] = (self.told,)
        if self.settings.sas.mode.erases_context or self.erases_features:
            erasing = (self.told, self.fitted.fingerprint, self.erases_features)
        return sampling_fingerprint(self.fitted.bundle, self.settings, self.strength, *erasing)

    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Redraw every original; see `Method`."""
        pipeline = PrivDiffPipeline.from_pretrained(self.fitted.bundle)
        pipeline.erasers = Erasers(
            self.fitted.context if self.settings.sas.mode.erases_context else None,
            self.fitted.features if self.erases_features else {},
            pipeline.scheduler.config.num_train_timesteps,
        )
        return redraw_with(pipeline, originals, self.settings, self.strength, seed)

    def starts(self, originals: Tensor) -> Starts:
        """Return the originals; see `Method`."""
        return itself(originals)


def ablations(bundle: Path, reference: Reference, operating_strength: float) -> Iterator[Ablation]:
    """Yield what can be made, at the operating point and at `FURTHER_STRENGTHS`.

    Parameters
    ----------
    bundle
        Folder.
    reference
        What erasers are fitted to. Without age and sex of any image there is no LEACE, and without
        more patients with several images than directions no subspace: they are left out.
    operating_strength
        Of the bundle.
    """
    fitted = FittedErasers(bundle, reference, SubspaceSettings())
    left_out = dict(ablations_without_data(reference.cohort))
    families = [(family, settings, False) for family, settings in ABLATIONS.items()]
    families += [(family, settings, True) for family, settings in WITH_SUBSPACE.items()]
    for family, settings, erases_features in families:
        if family in left_out:
            continue
        for strength in sorted({operating_strength, *FURTHER_STRENGTHS}):
            yield Ablation(fitted, family, settings, strength, erases_features)


def ablations_without_data(reference: Cohort) -> Iterator[tuple[str, str]]:
    """Yield the families that a reference cohort cannot give, with the reason."""
    several = patients_with_several([row.unit for row in reference])
    rank = SubspaceSettings().rank
    for family, settings in {**ABLATIONS, **WITH_SUBSPACE}.items():
        if settings.sas.mode.erases_context and not rows_with_attributes(reference):
            yield family, "no reference image has age and sex"
        elif family in WITH_SUBSPACE and len(several) <= rank:
            yield family, f"{rank} or fewer reference patients have several images"
