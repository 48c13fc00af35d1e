"""The way of one image: gates, model grid, pipeline, gates, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from privdiff_infer.burned_in_text import (
    LARGEST_SCALE,
    SEARCH_SIDE,
    UNAVAILABLE,
    RapidTextDetector,
    TextDetector,
    TextState,
    TextStep,
    draw_markers,
    remove_text,
)
from privdiff_infer.device import pick_device
from privdiff_infer.errors import ImageHeld, OptionError, TextDetectorError
from privdiff_infer.gallery import Gallery
from privdiff_infer.gates import (
    MAX_ATTEMPTS,
    Failure,
    ResultChecks,
    check_frontal,
    check_patient,
    failures,
    grain,
    next_strength,
)
from privdiff_infer.model.bundle import BundleInfo, read_bundle
from privdiff_infer.model.critics import Reading
from privdiff_infer.model_grid import GridGeometry, to_model_grid
from privdiff_infer.pipeline import PrivDiffPipeline, check_strength
from privdiff_infer.radiograph import HeaderFacts, Radiograph
from privdiff_infer.vocabulary import FINDINGS, OutputSize, Precision, Profile, SideMarkers, age_bin


@dataclass(frozen=True)
class AnonymizerOptions:
    """What a user chooses; None means the bundle's operating point.

    `threads` is the number of CPU threads of one process. It decides the last bits of sums, so
    equal bytes need equal threads; the default depends neither on the machine nor on the workers.
    `accept_unchecked_text` lets images pass where the text detector does not load. `gallery` holds
    other people, among whom a result must not lead to its source.
    """

    profile: Profile = Profile.STANDARD
    strength: float | None = None
    num_inference_steps: int | None = None
    device: str = "auto"
    precision: Precision = Precision.FLOAT32
    output_size: OutputSize = OutputSize.MODEL
    threads: int = 1
    side_markers: SideMarkers = SideMarkers.REDRAW
    accept_unchecked_text: bool = False
    gallery: Gallery | None = None


@dataclass(frozen=True)
class AnonymizedImage:
    """One redrawn radiograph.

    Attributes
    ----------
    pixels
        Shape (rows, columns), float32 in [0, 1], 0 = black = air.
    spacing_mm
        (row, column) distance of pixel centres, or None if the source has none.
    checks
        What the output gates looked at.
    findings_before, findings_after
        Probability of each finding on source and result, by the bundle's own reader.
    strength
        Of the attempt that was kept.
    attempts
        Number of attempts.
    text
        What was done about the text in the source.
    failures
        The output gates that it did not pass; none if it may leave.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float] | None
    checks: ResultChecks
    findings_before: dict[str, float]
    findings_after: dict[str, float]
    strength: float
    attempts: int
    text: TextStep
    failures: tuple[Failure, ...]

    @property
    def identity_similarity(self) -> float:
        """Cosine of source and result under the bundle's identity network."""
        return self.checks.identity_similarity

    @property
    def held_reason(self) -> str | None:
        """Why the result did not pass the output gates, or None if it did; private."""
        return "; ".join(failure.reason for failure in self.failures) or None


class Anonymizer:
    """A loaded bundle with the options of one run.

    Parameters
    ----------
    pipeline
        Loaded, on its device.
    bundle
        Metadata of the bundle.
    options
        What the user chose.
    text_detector
        None if it does not load; images are then held unless the options accept that.
    """

    def __init__(
        self,
        pipeline: PrivDiffPipeline,
        bundle: BundleInfo,
        options: AnonymizerOptions,
        text_detector: TextDetector | None,
    ) -> None:
        self.pipeline = pipeline
        self.bundle = bundle
        self.options = options
        self.text_detector = text_detector
        self.strength = operating_strength(bundle, options)

    @classmethod
    def from_bundle(cls, path: Path, options: AnonymizerOptions) -> Anonymizer:
        """Load a bundle for anonymizing.

        Raises
        ------
        BundleError
            If the folder is no bundle, is damaged, or is only a base for training.
        OptionError
            If the device does not exist or an option is out of range.
        """
        torch.set_num_threads(options.threads)
        bundle = read_bundle(path)
        pipeline = PrivDiffPipeline.from_pretrained(path)
        pipeline.to(pick_device(options.device), getattr(torch, options.precision.value))
        return cls(pipeline, bundle, options, _text_detector(options, bundle))

    def anonymize(
        self,
        radiograph: Radiograph,
        image_seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> AnonymizedImage:
        """Redraw one radiograph.

        Parameters
        ----------
        radiograph
            The source.
        image_seed
            Seed of all noise of this image.
        progress
            Called with (steps done, steps in all) of the attempt in work.

        Returns
        -------
        AnonymizedImage
            With `failures` if no attempt passed the output gates.

        Raises
        ------
        ImageHeld
            If the image must not be redrawn: a child, no upright frontal chest radiograph, or text
            that cannot be looked for or removed.
        """
        metadata = self.bundle.metadata
        check_patient(radiograph.header, evaluated_under_18=metadata.evaluated_under_18)
        seen, _ = self._on_grid(radiograph.pixels, radiograph)
        check_frontal(float(self._read(seen).frontal), metadata.gates)
        cleaned, text = self._without_text(radiograph.pixels)
        source, geometry = self._on_grid(cleaned, radiograph)
        before = self._read(source)
        told = self._told(radiograph.header)

        strength = self.strength
        for attempt in range(1, MAX_ATTEMPTS + 1):
            redrawn = self.pipeline(
                source,
                profile=self.options.profile,
                strength=strength,
                num_inference_steps=self.options.num_inference_steps,
                generators=[_generator(image_seed, attempt)],
                **told,
                callback=progress,
            ).images.cpu()
            after = self._read(redrawn)
            checks = self._checks(source, redrawn, before, after)
            failed = failures(checks, metadata.gates)
            if not failed or attempt == MAX_ATTEMPTS:
                break
            strength = next_strength(strength, failed)

        pixels, spacing_mm = geometry.restore(redrawn[0, 0].numpy(), self.options.output_size)
        markers = text.markers if self.options.side_markers is SideMarkers.REDRAW else ()
        pixels = draw_markers(pixels, markers, geometry.source_shape)
        return AnonymizedImage(
            pixels=pixels,
            spacing_mm=spacing_mm,
            checks=checks,
            findings_before=_probabilities(before),
            findings_after=_probabilities(after),
            strength=strength,
            attempts=attempt,
            text=replace(text, redrawn=len(markers)),
            failures=failed,
        )

    def _on_grid(self, pixels: np.ndarray, radiograph: Radiograph) -> tuple[Tensor, GridGeometry]:
        size = self.bundle.metadata.image_size
        grid, geometry = to_model_grid(pixels, radiograph.spacing_mm, size)
        return torch.from_numpy(np.ascontiguousarray(grid))[None, None], geometry

    def _without_text(self, pixels: np.ndarray) -> tuple[np.ndarray, TextStep]:
        if self.text_detector is not None:
            cleaned, boxes = remove_text(pixels, self.text_detector)
            return cleaned, TextStep(TextState.CHECKED, boxes)
        if self.options.accept_unchecked_text:
            return pixels, TextStep(TextState.UNCHECKED)
        raise ImageHeld(*UNAVAILABLE)

    def _checks(
        self, source: Tensor, redrawn: Tensor, before: Reading, after: Reading
    ) -> ResultChecks:
        """Look at a result (1, 1, s, s) as the gates do."""
        first, second = self._identities(source, redrawn)
        similarity, gallery = float((first * second).sum()), self.options.gallery
        evidence = self.pipeline.reader.evidence
        pixels = redrawn[0, 0].numpy()
        return ResultChecks(
            identity_similarity=similarity,
            findings_agreement=float(cosine_similarity(evidence(before), evidence(after))),
            frontal_logit=float(after.frontal),
            grain=grain(pixels),
            contrast=float(pixels.std()),
            has_text=self._has_text(pixels),
            gallery_rank=gallery.rank(second.numpy(), similarity) if gallery else None,
        )

    def _has_text(self, pixels: np.ndarray) -> bool:
        if self.text_detector is None:
            return False
        return any(box.is_legible for box in self.text_detector.find(pixels))

    def _told(self, header: HeaderFacts) -> dict[str, Any]:
        """Return age bin and sex where the header gives them; the model reads the rest itself.

        Guidance away from an attribute works best with its true value. A result that starts from a
        group of patients has the attributes of the group, and must not learn those of the patient.
        """
        if self.pipeline.starts_from_cluster(self.options.profile):
            return {}
        told = {}
        if header.age_years is not None:
            told["age"] = torch.tensor([age_bin(header.age_years)])
        if header.sex is not None:
            told["sex"] = torch.tensor([int(header.sex)])
        return told

    @torch.no_grad()
    def _read(self, image: Tensor) -> Reading:
        return cast(Reading, self.pipeline.reader(self._placed(image)))

    @torch.no_grad()
    def _identities(self, source: Tensor, redrawn: Tensor) -> Tensor:
        """Return the embeddings of both, shape (2, embedding), float32."""
        embeddings: Tensor = self.pipeline.identity(self._placed(torch.cat((source, redrawn))))
        return embeddings.float().cpu()

    def _placed(self, image: Tensor) -> Tensor:
        return image.to(self.pipeline.device, self.pipeline.dtype)


def _probabilities(reading: Reading) -> dict[str, float]:
    probabilities = reading.findings.sigmoid()[0].tolist()
    return dict(zip(FINDINGS, probabilities[: len(FINDINGS)], strict=True))


def _text_detector(options: AnonymizerOptions, bundle: BundleInfo) -> TextDetector | None:
    # What is too small to be found at this size is too small to be read on the model's grid.
    side = max(SEARCH_SIDE, round(LARGEST_SCALE * bundle.metadata.image_size))
    try:
        return RapidTextDetector(options.threads, search_side=side)
    except TextDetectorError:
        return None  # every image is held then, with the reason


def operating_strength(bundle: BundleInfo, options: AnonymizerOptions) -> float:
    """Return the strength that the user or else the bundle's operating point gives.

    Raises
    ------
    OptionError
        If the strength is out of range, or neither names one for the profile.
    """
    if options.strength is not None:
        return check_strength(options.strength)
    point = bundle.metadata.operating_points.get(options.profile)
    if point is None:
        raise OptionError(
            f"bundle {bundle.name} has no operating point for {options.profile.value}",
            "name a strength",
        )
    return point.strength


def _generator(image_seed: int, attempt: int) -> torch.Generator:
    digest = hashlib.sha256(f"{image_seed}:{attempt}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
