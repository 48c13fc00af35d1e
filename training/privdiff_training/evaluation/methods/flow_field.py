"""A deformation that is trained to fool a verifier of identity.

Written from the description of PriCheXy-Net (Packhaeuser et al., Deep Learning-Based Anonymization
of Chest Radiographs: A Utility-Preserving Measure for Patient Privacy, arXiv 2209.11531): a UNet
predicts a flow field, bounded by mu and smoothed by a Gaussian, that is added to the identity grid;
it is trained against a verification loss and for an unchanged classification. Verifier and
classifier here are the identity network and the reader of a bundle, which judge nothing in an
evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from monai.networks.layers.convutils import gaussian_1d
from monai.networks.layers.simplelayers import separable_filtering
from monai.networks.nets.unet import UNet
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from privdiff_infer.model.bundle import read_bundle
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_infer.model.strict_model import StrictModel
from privdiff_training.cohort import Cohort
from privdiff_training.config import StageConfig
from privdiff_training.evaluation.methods.method import Starts, hash_of, itself
from privdiff_training.evaluation.methods.reference import Reference
from privdiff_training.evaluation.redraw import weights_hash
from privdiff_training.loop import Player, Stage, train
from privdiff_training.sampling import Share, Step
from privdiff_training.stages.data import TrainingImages, process_device
from privdiff_training.whole_folder import whole_folder

BATCH = 32
NETWORK = "flow_field"
BOUNDS = (0.01, 0.03, 0.1)
"""The first is that of the published method."""


class FlowFieldConfig(StageConfig):
    """Keys of the training; `data` has no effect, for the images are those of the reference."""

    stage: Literal["flow_field"] = "flow_field"
    steps: int = Field(600, ge=1)
    batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    ema_decay: float = Field(0.99, ge=0, lt=1)
    checkpoint_every: int = Field(50, ge=1)
    bound: float = Field(0.01, gt=0, description="mu, in halves of the image's side.")
    smoothing: float = Field(2.0, gt=0, description="Deviation of the Gaussian, in grid points.")
    side: int = Field(128, ge=16, description="Side of the grid of displacements.")
    widths: tuple[int, ...] = Field((16, 32, 64, 128), description="Of the UNet, by level.")
    temperature: float = Field(0.1, gt=0, description="A cosine over it is the verifier's logit.")
    findings_weight: float = Field(1.0, ge=0, description="Of consistent findings.")


class FlowField(StrictModel, ConfigMixin):
    """Predicts displacements from an image and applies them.

    Parameters
    ----------
    bound
        mu: largest displacement along one axis, in halves of the side.
    smoothing
        Deviation of the Gaussian, in points of the grid.
    side
        Of the grid on which displacements are predicted.
    widths
        Channels of the UNet by level.
    """

    @register_to_config
    def __init__(
        self,
        bound: float,
        smoothing: float = 2.0,
        side: int = 128,
        widths: Sequence[int] = (16, 32, 64, 128),
    ) -> None:
        super().__init__()
        self.bound, self.side = bound, side
        self.unet = UNet(2, 1, 2, channels=tuple(widths), strides=(2,) * (len(widths) - 1))
        kernel = gaussian_1d(torch.tensor(float(smoothing)), normalize=True)
        self.kernel: Tensor
        self.register_buffer("kernel", kernel, persistent=False)

    def displacements(self, images: Tensor) -> Tensor:
        """Return displacements along columns and rows.

        Parameters
        ----------
        images
            Shape (n, 1, h, w), float32 in [0, 1].

        Returns
        -------
        Tensor
            Shape (n, 2, side, side), in [-bound, bound], in halves of the image's side.
        """
        small = functional.interpolate(images, (self.side, self.side), mode="area")
        raw = self.bound * torch.tanh(self.unet(small * 2 - 1))
        # The mean of bounded values is bounded, so smoothing comes last.
        smooth: Tensor = separable_filtering(raw, [self.kernel, self.kernel], mode="replicate")
        return smooth

    def forward(self, images: Tensor) -> Tensor:
        """Return deformed images, of the shape and in the range of `images` (n, 1, h, w)."""
        field = functional.interpolate(
            self.displacements(images), images.shape[-2:], mode="bilinear", align_corners=False
        )
        straight = torch.eye(2, 3, device=images.device).expand(len(images), 2, 3)
        grid = functional.affine_grid(straight, list(images.shape), align_corners=False)
        return functional.grid_sample(
            images, grid + field.movedim(1, -1), padding_mode="border", align_corners=False
        ).clamp(0, 1)


class FlowFieldStage(Stage[FlowFieldConfig]):
    """Away from the original for the verifier, without a change for the classifier.

    Both are frozen: a fixed opponent, as in the published method, so that an attacker who is
    trained anew can undo more than the training shows.
    """

    def __init__(
        self,
        config: FlowFieldConfig,
        images: TrainingImages,
        identity: IdentityEmbedder,
        reader: RadiographReader,
    ) -> None:
        self.config = config
        self.images = images
        self.identity = identity.eval().requires_grad_(False)
        self.reader = reader.eval().requires_grad_(False)
        torch.manual_seed(config.seed)
        self.flow_field = FlowField(config.bound, config.smoothing, config.side, config.widths)
        self.networks = {NETWORK: self.flow_field}

    def players(self) -> tuple[Player, ...]:
        return (Player(NETWORK, (NETWORK,), self.config.learning_rate),)

    def loss(self, player: str, step: Step) -> tuple[Tensor, Mapping[str, float]]:
        originals = self._small(step.local(step.rows))
        deformed = self.networks[NETWORK](originals)
        cosine = (self.identity(deformed) * self.identity(originals)).sum(-1)
        # -log(1 - sigmoid(logit)) of the verifier, for pairs of one person
        linked = functional.softplus(cosine / self.config.temperature).mean()
        findings = functional.binary_cross_entropy_with_logits(
            self.reader(deformed).findings, self.reader(originals).findings.sigmoid()
        )
        loss = linked + self.config.findings_weight * findings
        return loss, {"similarity": cosine.mean().item(), "findings": findings.item()}

    def export(self, folder: Path) -> None:
        with whole_folder(folder / NETWORK) as partial:
            self.flow_field.save_pretrained(partial)

    def _small(self, rows: Tensor) -> Tensor:
        size = (self.config.side, self.config.side)
        return functional.interpolate(self.images.images(rows), size, mode="area")


@dataclass(frozen=True)
class FlowFieldMethod:
    """Images deformed by a network that is trained when it is first needed.

    Nothing is random once it is trained: all seeds give one copy.

    Attributes
    ----------
    bundle
        Folder; its critics are what the network is trained against.
    reference
        What it is trained on.
    config
        Of the training.
    cache_dir
        Where it is kept, and where a training that was killed continues.
    """

    bundle: Path
    reference: Reference
    config: FlowFieldConfig
    cache_dir: Path
    family = "flow field"
    told = "nothing"
    shows_groups = False

    @property
    def name(self) -> str:
        """Family and bound."""
        return f"{self.family} {self.setting}"

    @property
    def setting(self) -> str:
        """The bound."""
        return f"{self.config.bound:g}"

    @cached_property
    def fingerprint(self) -> str:
        """Of the critics, the reference images and the configuration."""
        weights = weights_hash(read_bundle(self.bundle))
        deciding = self.config.model_dump(exclude={"data", "checkpoint_every", "log_every"})
        return hash_of(self.family, weights, self.reference.fingerprint, deciding)

    @cached_property
    def network(self) -> FlowField:
        """The trained network."""
        folder = self.cache_dir / f"flow-field-{self.fingerprint}"
        if not (folder / NETWORK).is_dir():
            with torch.enable_grad():  # whoever asks for copies may have switched it off
                train(self._stage(), folder / "run", folder)
        return FlowField.from_pretrained(folder / NETWORK).eval()

    @torch.no_grad()
    def anonymize(self, cohort: Cohort, originals: Tensor, seed: int) -> Tensor:
        """Deform every original; see `Method`."""
        return torch.cat([self.network(part) for part in originals.split(BATCH)])

    def starts(self, originals: Tensor) -> Starts:
        """Return the originals; see `Method`."""
        return itself(originals)

    def _stage(self) -> FlowFieldStage:
        rows = torch.arange(len(self.reference.cohort))
        images = TrainingImages(
            self.reference.cohort, self.reference.pixels, [Share(rows, 1.0)], process_device()
        )
        return FlowFieldStage(
            self.config,
            images,
            IdentityEmbedder.from_pretrained(self.bundle / "identity"),
            RadiographReader.from_pretrained(self.bundle / "reader"),
        )


def flow_fields(bundle: Path, reference: Reference, cache_dir: Path) -> Iterator[FlowFieldMethod]:
    """Yield one network for each bound."""
    for bound in BOUNDS:
        yield FlowFieldMethod(bundle, reference, FlowFieldConfig(bound=bound), cache_dir)
