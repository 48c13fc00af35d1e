"""One run of `privdiff anonymize`: its folder, its options, its images, its reports."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from privdiff_infer import __version__
from privdiff_infer.anonymizer import Anonymizer, AnonymizerOptions, operating_strength
from privdiff_infer.batch import AnonymizerFactory, Batch, run_batch
from privdiff_infer.device import pick_device
from privdiff_infer.dicom.derived import Derivation
from privdiff_infer.dicom.output import DicomOutput
from privdiff_infer.dicom.profile_table import Option
from privdiff_infer.dicom.pseudonyms import Pseudonyms
from privdiff_infer.errors import OptionError, OutputError
from privdiff_infer.file_formats import OutputFormat
from privdiff_infer.journal import Outcome
from privdiff_infer.model.bundle import verify_bundle
from privdiff_infer.out_probe import OutProbe, RemoteWorkers
from privdiff_infer.profiles import PROFILES
from privdiff_infer.release import OutputFolders, reporting_disk_errors
from privdiff_infer.run_folder import HeldRun
from privdiff_infer.sources import Source


@dataclass(frozen=True)
class RunOptions:
    """What a user asks of one run.

    Attributes
    ----------
    out
        Folder of the run.
    bundle
        Folder of the model bundle.
    anonymizer
        How images are redrawn.
    output_format
        File format of results.
    seed
        Seed of the run, or None for one from the operating system.
    workers
        Number of processes on this machine.
    scheduler
        Address of a dask scheduler whose workers do it instead; empty: none.
    resume
        Whether to continue an earlier run in `out`.
    retain
        Options of the confidentiality profile, for DICOM results.
    demo
        Whether this is the demonstration, whose folder the next one may replace.
    """

    out: Path
    bundle: Path
    anonymizer: AnonymizerOptions = field(default_factory=AnonymizerOptions)
    output_format: OutputFormat = OutputFormat.AUTO
    seed: int | None = None
    workers: int = 1
    scheduler: str = ""
    resume: bool = False
    retain: frozenset[Option] = frozenset()
    demo: bool = False


class Run(HeldRun):
    """A run whose options are checked and whose folders exist.

    It is a context manager, which no other command can work beside in the same folder.

    Parameters
    ----------
    options
        What the user asks.

    Raises
    ------
    BundleError
        If the bundle is missing, damaged or only a base for training.
    OptionError
        If an option is out of range, or differs from those of the run that is continued.
    OutputError
        If the folder is in use or cannot be written.
    AuditError
        If the audit log of the run that is continued was changed.
    SecretError
        If there is no audit key, or DICOM may be written and there is no usable key for it.
    """

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.bundle = verify_bundle(options.bundle)
        self.strength = operating_strength(self.bundle, options.anonymizer)
        pick_device(options.anonymizer.device)
        dicom = self._dicom_output()
        self.key_fingerprint = Pseudonyms.load().fingerprint if dicom else None
        super().__init__(options.out, self._decisions(), options.seed, resume=options.resume)
        self.batch = Batch(options.out.absolute(), self.seed, options.output_format, dicom)

    def outcomes(
        self,
        sources: Sequence[Source],
        step_progress: Callable[[int, int], None] | None = None,
        factory: AnonymizerFactory | None = None,
    ) -> Generator[Outcome, None, None]:
        """Yield one outcome per source; see `batch.run_batch`.

        The factory is for who redraws somewhere else, by the same bundle and the same options.
        """
        bundle = self.options.bundle.absolute()  # workers may have other working folders
        here = partial(Anonymizer.from_bundle, bundle, self.options.anonymizer)
        return run_batch(
            sources,
            self.batch,
            self.journal,
            factory or here,
            self.options.workers,
            step_progress,
            self._remote(),
        )

    def _remote(self) -> RemoteWorkers | None:
        if not self.options.scheduler:
            return None
        probe = OutProbe.of(self.folders, self.key_fingerprint, self.bundle)
        return RemoteWorkers(self.options.scheduler, probe)

    def _dicom_output(self) -> DicomOutput | None:
        if not self.options.output_format.may_be_dicom:
            if self.options.retain:
                raise OptionError(
                    f"{self.options.output_format.value} files have no header to keep anything in",
                    "choose the format dicom, or leave --retain and --clean out",
                )
            return None
        chosen, bundle = self.options.anonymizer, self.bundle
        steps = chosen.num_inference_steps or PROFILES[chosen.profile].num_inference_steps
        derivation = Derivation(
            bundle.name, bundle.version, bundle.sha256, chosen.profile, self.strength, steps
        )
        return DicomOutput(derivation, self.options.retain)

    def _decisions(self) -> dict[str, Any]:
        """Return what a continued run has in common with its first start, but for the seed."""
        options = asdict(self.options.anonymizer)
        options.pop("device")
        options["gallery"] = (
            gallery.digest if (gallery := self.options.anonymizer.gallery) else None
        )
        return {
            "demo": self.options.demo,  # first: the clearest reason to refuse
            **{name: _plain(value) for name, value in options.items()},
            "strength": self.strength,
            "output_format": self.options.output_format.value,
            "retain": sorted(option.value for option in self.options.retain),
            "key_fingerprint": self.key_fingerprint,
            "model": self.bundle.name,
            "model_version": self.bundle.version,
            "model_sha256": self.bundle.sha256,
            "software": _software(),
        }


def discard_demo(out: Path) -> None:
    """Delete an earlier demo, and nothing else.

    Raises
    ------
    OutputError
        If the folder holds anything but a demo.
    """
    with reporting_disk_errors():
        if not out.exists() or not any(out.iterdir()):
            return
        folders = OutputFolders(out)
        ours = {folders.release, folders.private}
        if set(out.iterdir()) - ours or not _is_demo(folders.run):
            raise OutputError(
                f"{out} holds something else than an earlier demo", "name another folder with -o"
            )
        shutil.rmtree(out)


def _is_demo(run: Path) -> bool:
    try:
        recorded = json.loads(run.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(recorded, dict) and recorded.get("demo") is True


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    return value.value if isinstance(value, Enum) else value


def _software() -> str:
    """Return versions that decide the bytes of a result."""
    detector = ("rapidocr", "onnxruntime", "opencv-python-headless")
    versions = [f"{name} {_version(name)}" for name in detector]
    ours = (f"privdiff {__version__}", f"torch {torch.__version__}")
    return ", ".join((*ours, *versions, platform.machine()))


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "missing"
