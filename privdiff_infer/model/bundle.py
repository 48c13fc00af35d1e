"""Model bundles: where they are, what their metadata says, whether their files are intact.

This module does not import torch, so that bundles can be listed quickly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from privdiff_infer.errors import BundleError
from privdiff_infer.vocabulary import Profile

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
METADATA = "metadata.json"
MODEL_INDEX = "model_index.json"
FORMAT_VERSION = 1
EVIDENCE = ("evaluation.json", "evaluation.html")
"""What a fine-tuned bundle holds beside its weights: old and new side by side."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OperatingPoint(_Record):
    """How a profile is run unless the user says otherwise."""

    strength: float = Field(gt=0, le=1)


class Measured(_Record):
    """Measured risk and utility of one profile at one strength."""

    linkage_auc: float
    interval: tuple[float, float]
    findings_auc: float
    n: int


class Attacked(_Record):
    """The attacker who linked best, in one way of linking."""

    attacker: str = Field(description="Rung and name.")
    linkage_auc: float
    interval: tuple[float, float]
    rank_1: float | None = Field(
        None,
        description="Of the search that found most often, relative to chance, by any attacker.",
    )
    chance: float | None = Field(None, description="Of that search.")


class Evaluated(_Record):
    """What `privdiff evaluate` found at the operating point of `standard`, without gates."""

    method: str
    size: str
    dataset: str
    folds: tuple[str, ...]
    images: int
    patients: int
    attackers: tuple[str, ...] = Field(description="The rungs that were run.")
    same_image: Attacked | None
    follow_up: Attacked | None
    follow_up_of_labels: float | None = Field(description="AUC of who knows the labels alone.")
    findings_lost: tuple[float, float, float] | None = Field(
        description="Macro AUC of the originals less that of the copies, with its interval."
    )
    sex_auc: tuple[float, float, float] | None
    goals: dict[str, str] = Field(description="Verdict by goal, as the report has them.")


class GateThresholds(_Record):
    """Thresholds of the per-image gates, on scales of this bundle's own networks.

    The defaults of what concerns results are the ends of their scales: they let everything pass.
    """

    frontal_logit: float = Field(
        0.0, description="Below it an input is held, and an attempt to redraw fails."
    )
    linkage_similarity: float = Field(
        1.0, description="Above this cosine of source and result an attempt fails."
    )
    findings_agreement: float = Field(
        -1.0,
        description="Below this cosine of the evidence of findings in source and result an attempt "
        "fails.",
    )
    grain: tuple[float, float] = Field(
        (0.0, 8.0), description="Outside of these bounds (see `gates.grain`) an attempt fails."
    )
    contrast: float = Field(
        0.0, description="Below this standard deviation of the pixels an attempt fails."
    )


class SideBySide(_Record):
    """One figure of the base and of the bundle that was tuned from it, on test patients.

    Each is a value with its 95 % interval; None where the cohort does not suffice.
    """

    old: tuple[float, float, float] | None
    new: tuple[float, float, float] | None
    difference: tuple[float, float, float] | None = None


class FineTuning(_Record):
    """What a bundle was tuned from, on what, and what its tests found."""

    base: str
    base_version: str
    base_sha256: str
    method: str
    images: int = Field(description="That were trained on.")
    patients: int
    kept_steps: dict[str, int] = Field(description="Of every leg; 0: its start was best.")
    refitted: tuple[str, ...] = Field(description="Critics that were replaced.")
    epsilon: float | None = Field(None, description="Of differential privacy, per patient.")
    delta: float | None = None
    drawn: int = Field(description="Images that the memorization test drew.")
    copies: int = Field(description="Of them, near copies of training images.")
    copies_of_base: int = Field(description="The same of the base: chance.")
    test_images: int
    test_patients: int
    evaluation: dict[str, SideBySide]


class BundleMetadata(_Record):
    """Content of ``metadata.json``."""

    format_version: int = FORMAT_VERSION
    name: str
    version: str
    licence: str
    summary: str
    training_data: str
    trained_on: tuple[str, ...] = Field(
        (), description="Data sets, by their name in the manifest, of whose folds 0-2 it learned."
    )
    intended_use: str
    image_size: int
    operating_points: dict[Profile, OperatingPoint]
    gates: GateThresholds = GateThresholds()
    evaluated_under_18: bool = Field(
        False, description="Whether an evaluation on patients under 18 exists; else they are held."
    )
    measured: dict[Profile, dict[str, Measured]] = Field(default_factory=dict)
    evaluation: Evaluated | None = None
    fine_tuning: FineTuning | None = None
    files: dict[str, str] = Field(description="SHA-256 of every other file, by relative path.")


@dataclass(frozen=True)
class BundleInfo:
    """One bundle on disk; `sha256` is the hash of its metadata, which names all other hashes."""

    name: str
    version: str
    path: Path
    sha256: str
    licence: str
    size_bytes: int
    metadata: BundleMetadata


def find_bundle(name_or_dir: str) -> Path:
    """Return the folder of an embedded bundle by name, or the folder itself.

    Raises
    ------
    BundleError
        If there is neither.
    """
    for folder in (BUNDLES / name_or_dir, Path(name_or_dir)):
        if (folder / MODEL_INDEX).is_file():
            return folder
    known = ", ".join(sorted(path.name for path in BUNDLES.glob("*") if path.is_dir())) or "none"
    raise BundleError(
        f"there is no model bundle {name_or_dir!r}", f"name a bundle folder or one of: {known}"
    )


def read_bundle(path: Path) -> BundleInfo:
    """Read the metadata of one bundle.

    Raises
    ------
    BundleError
        If ``metadata.json`` is missing or not understood. A Stable-Diffusion-shaped folder has
        none: it is a base for training, without privacy tuning and without codebooks.
    """
    file = path / METADATA
    if not file.is_file():
        raise BundleError(
            f"{path.name} has no {METADATA}: it is a base for training, without privacy tuning and "
            "without codebooks, and cannot anonymize",
            "train a bundle from it or name one of `privdiff models`",
        )
    content = file.read_bytes()
    try:
        metadata = BundleMetadata.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise BundleError(
            f"{METADATA} of {path.name} is not understood: {first['loc']}: {first['msg']}",
            "install the bundle again",
        ) from error
    return BundleInfo(
        name=metadata.name,
        version=metadata.version,
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        licence=metadata.licence,
        size_bytes=sum(file.stat().st_size for file in bundle_files(path).values()),
        metadata=metadata,
    )


def list_bundles() -> list[BundleInfo]:
    """Return the embedded bundles, sorted by name."""
    return [read_bundle(index.parent) for index in sorted(BUNDLES.glob(f"*/{MODEL_INDEX}"))]


def verify_bundle(path: Path) -> BundleInfo:
    """Read a bundle and compare every file with its hash in the metadata.

    Raises
    ------
    BundleError
        If a file is missing, was added or was changed; the message names it.
    """
    info = read_bundle(path)
    present = {
        name: file_sha256(file) for name, file in bundle_files(path).items() if name != METADATA
    }
    for name in sorted(present.keys() | info.metadata.files.keys()):
        if present.get(name) != info.metadata.files.get(name):
            raise BundleError(
                f"file {name} of bundle {info.name} does not match its hash",
                "install the bundle again; do not use changed weights on patients' images",
            )
    return info


def bundle_files(path: Path) -> dict[str, Path]:
    """Return all files of a bundle by their relative name."""
    return {
        file.relative_to(path).as_posix(): file
        for file in sorted(path.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
