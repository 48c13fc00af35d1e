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
from privdiff_infer.batch import Batch, run_batch
from privdiff_infer.device import pick_device
from privdiff_infer.errors import OptionError, OutputError
from privdiff_infer.image_files import OutputFormat
from privdiff_infer.journal import Journal, Outcome
from privdiff_infer.model.bundle import verify_bundle
from privdiff_infer.release import (
    OutputFolders,
    json_bytes,
    reporting_disk_errors,
    write_crosswalk,
    write_private,
)
from privdiff_infer.report import RunFacts, write_release_report, write_review
from privdiff_infer.seeds import run_seed


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
        Number of processes.
    resume
        Whether to continue an earlier run in `out`.
    demo
        Whether this is the demonstration, whose folder the next one may replace.
    """

    out: Path
    bundle: Path
    anonymizer: AnonymizerOptions = field(default_factory=AnonymizerOptions)
    output_format: OutputFormat = OutputFormat.AUTO
    seed: int | None = None
    workers: int = 1
    resume: bool = False
    demo: bool = False


class Run:
    """A run whose options are checked and whose folders exist.

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
    """

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.bundle = verify_bundle(options.bundle)
        self.strength = operating_strength(self.bundle, options.anonymizer)
        pick_device(options.anonymizer.device)
        self.folders = OutputFolders(options.out)
        seed = self._open()
        self.batch = Batch(options.out, seed, options.output_format)
        self.journal = Journal(self.folders)

    def outcomes(
        self, sources: Sequence[Path], step_progress: Callable[[int, int], None] | None = None
    ) -> Generator[Outcome, None, None]:
        """Yield one outcome per source; see `batch.run_batch`."""
        factory = partial(Anonymizer.from_bundle, self.options.bundle, self.options.anonymizer)
        return run_batch(
            sources, self.batch, self.journal, factory, self.options.workers, step_progress
        )

    def finish(self) -> None:
        """Write crosswalk and reports of everything in the journal.

        Raises
        ------
        OutputError
            If one cannot be written; the others are.
        """
        facts, outcomes = self._facts(), self.journal.outcomes
        writers = (
            partial(write_crosswalk, self.folders.crosswalk, [o.row for o in outcomes]),
            partial(write_release_report, self.folders, facts, outcomes),
            partial(write_review, self.folders, facts, outcomes),
        )
        failures = [failure for write in writers if (failure := _failure(write))]
        if failures:
            raise failures[0]

    def _open(self) -> str:
        """Create or reopen the folders; return the seed of the run."""
        if self.options.resume:
            return self._reopen()
        with reporting_disk_errors():
            if self.folders.root.exists() and any(self.folders.root.iterdir()):
                raise OutputError(
                    f"output folder {self.folders.root} is not empty",
                    "name another folder, or continue its run with --resume",
                )
        self.folders.create()
        seed = run_seed(self.options.seed)
        write_private(self.folders.run, json_bytes(self._decisions() | {"seed": seed}))
        return seed

    def _reopen(self) -> str:
        try:
            recorded = json.loads(self.folders.run.read_text(encoding="utf-8"))
            seed = str(recorded.pop("seed"))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise OutputError(
                f"{self.folders.root} holds no run that can be continued",
                "start it without --resume",
            ) from error
        wanted = self._decisions()
        if self.options.seed is not None and run_seed(self.options.seed) != seed:
            raise OptionError("--seed differs from that of the run", "leave it out with --resume")
        for name, value in wanted.items():
            if recorded.get(name) != value:
                raise OptionError(
                    f"{name} is {value!r} but the run was started with {recorded.get(name)!r}",
                    "repeat the options of the first start, or name another folder",
                )
        return seed

    def _decisions(self) -> dict[str, Any]:
        """Return what a continued run has in common with its first start, but for the seed."""
        options = asdict(self.options.anonymizer)
        options.pop("device")
        return {
            **{name: _plain(value) for name, value in options.items()},
            "strength": self.strength,
            "output_format": self.options.output_format.value,
            "demo": self.options.demo,
            "model": self.bundle.name,
            "model_sha256": self.bundle.sha256,
            "software": _software(),
        }

    def _facts(self) -> RunFacts:
        options = self.options.anonymizer
        return RunFacts(
            model=self.bundle.name,
            model_version=self.bundle.version,
            model_sha256=self.bundle.sha256,
            profile=options.profile.value,
            strength=self.strength,
            num_inference_steps=options.num_inference_steps,
            output_format=self.options.output_format.value,
            output_size=options.output_size.value,
            side_markers=options.side_markers.value,
            accept_unchecked_text=options.accept_unchecked_text,
            software=_software(),
        )


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


def _failure(write: Callable[[], None]) -> OutputError | None:
    try:
        write()
    except OutputError as error:
        return error
    return None


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
