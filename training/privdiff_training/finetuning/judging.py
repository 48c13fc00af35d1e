"""When training stops and which step is kept: by privacy and utility, not by the loss.

Every n steps images of judging patients, on whom nothing trains, are redrawn with the averaged
weights. A verifier that is no critic says how well they can be linked to their originals, a
classifier that is none how far what it reads has moved, and its features how far the redrawn images
lie from those of the site. Step 0 is what was there before: it is kept unless another step is
better, so a training that gains nothing changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from privdiff_infer.errors import CohortError
from privdiff_infer.model.clusters import PatientClusters
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_infer.pipeline import PrivDiffPipeline
from privdiff_infer.vocabulary import FINDINGS, Profile
from privdiff_training.evaluation.attacks.attack import Originals
from privdiff_training.evaluation.linkage import Linkage, LinkageTrial
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.evaluation.redraw import redraw_with
from privdiff_training.finetuning.config import JudgeConfig
from privdiff_training.finetuning.folder import read_record, write_record
from privdiff_training.stages.diffusion import DiffusionStage
from privdiff_training.stages.suppression import SuppressionStage

PAIRINGS = 20
"""Draws of one image per patient that a linkage is the mean of."""


@dataclass(frozen=True)
class Look:
    """What was seen after one step.

    Attributes
    ----------
    step
        Steps done.
    linkage
        AUC of the verifier between redrawn images and their originals; 0.5 is chance.
    agreement
        1 minus the mean distance of the classifier's probabilities on redrawn images and originals.
    kernel_distance
        KID of redrawn images to originals in the classifier's features; about 0 for images that
        look like those of the site.
    """

    step: int
    linkage: float
    agreement: float
    kernel_distance: float

    @property
    def score(self) -> float:
        """What is highest for images of the site that keep findings and lead to nobody."""
        linked, unlike = max(self.linkage - 0.5, 0.0), max(self.kernel_distance, 0.0)
        return self.agreement - linked - unlike


def best_of(looks: Mapping[int, Look], config: JudgeConfig) -> Look:
    """Return the look whose step is kept.

    A step may only be better if neither linkage nor the kernel distance rose, nor agreement fell,
    against step 0 by more than the tolerance: none of the three is bought with another.
    """
    best = base = looks[0]
    for _, look in sorted(looks.items()):
        is_worse = (
            look.linkage > base.linkage + config.tolerance
            or look.agreement < base.agreement - config.tolerance
            or look.kernel_distance > base.kernel_distance + config.tolerance
        )
        if not is_worse and look.score > best.score + config.least_gain:
            best = look
    return best


class PrivacyUtilityJudge:
    """Chooses a step of one leg; a `loop.Judge`.

    Parameters
    ----------
    stage
        Whose denoiser is looked at.
    pipeline
        That redraws with it.
    strength
        Of redrawing.
    images
        Of judging patients of one data set.
    evaluators
        Verifier and classifier.
    config
        How often, and what counts.
    folder
        Of the leg: looks and the weights of the best step.
    seed
        Of sampling; all looks draw the same noise.
    """

    def __init__(
        self,
        stage: DiffusionStage | SuppressionStage,
        pipeline: PrivDiffPipeline,
        strength: float,
        images: Originals,
        evaluators: Evaluators,
        config: JudgeConfig,
        folder: Path,
        seed: int,
    ) -> None:
        self._stage, self._pipeline, self._strength = stage, pipeline, strength
        self._config, self._folder, self._seed = config, folder, seed
        self._evaluators = evaluators
        self._originals = images.pixels.float() / 255
        self._trial = LinkageTrial(images.cohort, Linkage.SAME_IMAGE)
        if self._trial.patients < 2:
            raise CohortError(
                f"{self._trial.patients} judging patients can be told from others of their view",
                "list more patients, or raise split.judge_share",
            )
        self._gallery = evaluators.embeddings(self._originals)
        self._read = evaluators.findings(self._originals)[:, : len(FINDINGS)].sigmoid()

    @property
    def looks(self) -> dict[int, Look]:
        """What was seen so far, by step."""
        path = self._folder / "looks.json"
        return {look["step"]: Look(**look) for look in read_record(path)} if path.exists() else {}

    def is_due(self, step: int) -> bool:
        """Tell whether it looks after this step."""
        return step % self._config.every == 0 or step == self._stage.config.steps

    def look(self, step: int) -> bool:
        """Redraw, remember what was seen, keep the weights if they are the best so far."""
        looks = self.looks
        if step not in looks:
            looks[step] = self._seen(step)
            if best_of(looks, self._config).step == step:
                self._keep(step)
            write_record(self._folder / "looks.json", [asdict(look) for look in looks.values()])
            self._drop_all_but(best_of(looks, self._config).step)
        best = best_of({s: look for s, look in looks.items() if s <= step}, self._config)
        return step - best.step >= self._config.patience * self._config.every

    def choose(self) -> None:
        """Put the weights of the best step into the denoiser."""
        weights = load_file(self._weights_of(best_of(self.looks, self._config).step))
        own = dict(self._trained())
        with torch.no_grad():
            for name, weight in weights.items():
                own[name].copy_(weight)

    def _seen(self, step: int) -> Look:
        redrawn = redraw_with(
            self._pipeline.to(self._stage.images.device),
            self._originals,
            Profile.STANDARD,
            self._strength,
            self._seed,
            num_inference_steps=self._config.inference_steps,
        ).cpu()
        scores = (self._evaluators.embeddings(redrawn) @ self._gallery.mT).numpy()
        rng = np.random.default_rng(self._seed)
        everybody = range(self._trial.patients)
        areas = [self._trial.auc(scores, everybody, rng) for _ in range(PAIRINGS)]
        read = self._evaluators.findings(redrawn)[:, : len(FINDINGS)].sigmoid()
        return Look(
            step,
            linkage=float(np.mean(areas)),
            agreement=1 - float((read - self._read).abs().mean()),
            kernel_distance=self._evaluators.kernel_distance(self._originals, redrawn, self._seed),
        )

    def _keep(self, step: int) -> None:
        """Write the weights, before the look that names them."""
        partial = self._folder / "kept.partial"
        save_file({name: weight.detach().cpu() for name, weight in self._trained()}, partial)
        partial.replace(self._weights_of(step))

    def _drop_all_but(self, step: int) -> None:
        for path in self._folder.glob("kept-*.safetensors"):
            if path != self._weights_of(step):
                path.unlink()

    def _weights_of(self, step: int) -> Path:
        return self._folder / f"kept-{step}.safetensors"

    def _trained(self) -> list[tuple[str, Tensor]]:
        return [
            (name, weight)
            for name, weight in self._stage.denoiser.named_parameters()
            if weight.requires_grad
        ]


def judged_pipeline(
    stage: DiffusionStage | SuppressionStage,
    identity: IdentityEmbedder,
    reader: RadiographReader,
    clusters: PatientClusters | None = None,
) -> PrivDiffPipeline:
    """Return a pipeline that draws with the weights of a stage as they are now.

    Without adapters of its own it does not merge any.
    """
    return PrivDiffPipeline(
        stage.autoencoder, stage.denoiser, stage.scheduler, identity, reader, clusters
    )
