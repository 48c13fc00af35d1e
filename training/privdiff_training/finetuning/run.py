"""The order of a fine-tuning. Each step finds out from the folder of the run what is done.

With several processes all of them train; the first one does everything else, and the others wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from privdiff_infer.errors import CohortError
from privdiff_infer.model.bundle import BundleInfo, read_bundle
from privdiff_infer.model.critics import RadiographReader
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.config import DataConfig
from privdiff_training.evaluation.attacks.attack import Originals
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.finetuning.checks import check_cohort
from privdiff_training.finetuning.cohort_report import write_cohort_report
from privdiff_training.finetuning.config import FinetuneConfig
from privdiff_training.finetuning.critics import Fitting, Refit, moved_gates, refit_critics
from privdiff_training.finetuning.evidence import evaluate_side_by_side, verdict
from privdiff_training.finetuning.export import (
    UNTESTED,
    assemble_candidate,
    export_bundle,
    facts_of,
)
from privdiff_training.finetuning.folder import RunFolder, read_record, write_record
from privdiff_training.finetuning.legs import Leg, LegSetting, adapt_denoiser, tune_adapter
from privdiff_training.finetuning.memorization import memorization_test, refuse_export
from privdiff_training.finetuning.method import Method
from privdiff_training.finetuning.problems import Effect
from privdiff_training.finetuning.roles import Role, largest_dataset, of_role, patients
from privdiff_training.finetuning.settings import data_keys
from privdiff_training.finetuning.sources import write_used
from privdiff_training.images import load_images
from privdiff_training.run_record import RunRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinetuneOptions:
    """What is adapted to what.

    Attributes
    ----------
    source
        What the user named, for the record.
    cohort
        Reads it, into the folder of the run where it has to be fetched.
    output
        Folder of the new bundle.
    folder
        Of the run. Private.
    base
        Folder of the bundle that is adapted.
    method
        LoRA weights, or the whole denoiser.
    config
        Everything else.
    evaluators
        Folder of verifier and classifier.
    """

    source: str
    cohort: Callable[[RunFolder], Cohort]
    output: Path
    folder: RunFolder
    base: Path
    method: Method
    config: FinetuneConfig
    evaluators: Path


def finetune(options: FinetuneOptions) -> BundleInfo:
    """Check, train, test and export; a run that was interrupted continues.

    Raises
    ------
    CohortError
        If the cohort has a problem that must be solved first; the report names it.
    ConfigError
        If the folder holds a run that was started otherwise.
    ExportRefused
        If the memorization test fails.
    """
    return _Run(options).run()


class _Run:
    def __init__(self, options: FinetuneOptions) -> None:
        self.options, self.folder, self.config = options, options.folder, options.config
        self.state = PartialState()
        self.base = read_bundle(options.base)
        self.evaluators = Evaluators.load(options.evaluators)

    def run(self) -> BundleInfo:
        self._first(self._begin)
        self._first(self._check)
        cohort = read_manifest(self.folder.manifest)
        self.training = of_role(cohort, Role.TRAIN)
        judges = self._originals(largest_dataset(of_role(cohort, Role.JUDGE)))
        data = DataConfig(
            **data_keys(
                self.folder.manifest,
                self.training,
                self.base,
                self.folder.cache,
                [Role.TRAIN.value],
            )
        )
        fitting = Fitting(
            self.base,
            data,
            judges,
            self.config.critics,
            self.folder,
            self.config.mixed_precision,
            self.config.seed,
        )
        refits = refit_critics(fitting)
        setting = LegSetting(
            self.base,
            self.config,
            self.options.method,
            data,
            judges,
            self.evaluators,
            self.folder,
        )
        legs = [leg for leg in (adapt_denoiser(setting), tune_adapter(setting)) if leg]
        self._first(lambda: self._export(cohort, fitting, refits, legs))
        return read_bundle(self.options.output)

    def _first(self, step: Callable[[], None]) -> None:
        """Let the first process do a step while the others wait."""
        if self.state.is_main_process:
            step()
        self.state.wait_for_everyone()

    def _begin(self) -> None:
        """Refuse the folder of another run."""
        self.folder.create()
        settings = RunRecord.of(self.config, self.base.sha256).settings
        record = RunRecord(
            {**settings, "source": self.options.source, "--method": self.options.method.value}
        )
        record.refuse_another(self.folder.root)
        record.write(self.folder.root)
        logger.warning(UNTESTED)

    def _check(self) -> None:
        """Look at the cohort, write its report, and list what is used."""
        if self.folder.manifest.exists():
            return
        metadata = self.base.metadata
        checked = check_cohort(
            self.options.cohort(self.folder),
            self.config.split,
            RadiographReader.from_pretrained(self.base.path / "reader").eval(),
            metadata.gates.frontal_logit,
            metadata.image_size,
        )
        write_cohort_report(checked, self.folder)
        logger.info("cohort report: %s", self.folder.report)
        if checked.is_refused:
            self.folder.found.unlink(missing_ok=True)  # so that a corrected cohort is read anew
            refused = [p for p in checked.problems if p.effect is Effect.REFUSED]
            raise CohortError(
                f"the cohort cannot be used: {'; '.join(p.title for p in refused)}",
                f"{refused[0].remedy}; {self.folder.report} shows all that was found",
            )
        write_used(checked.cohort, [role.value for role in checked.roles], self.folder.manifest)

    def _export(
        self, cohort: Cohort, fitting: Fitting, refits: tuple[Refit, ...], legs: list[Leg]
    ) -> None:
        kept = [refit.critic for refit in refits if refit.kept]
        candidate = assemble_candidate(
            self.base, self.config, self.training, moved_gates(fitting, kept), self.folder
        )
        test = self._originals(largest_dataset(of_role(cohort, Role.TEST)))
        self._test_memory(candidate, fitting.judges, test)
        refuse_export(read_record(self.folder.memorization), self.folder.root)
        record = self._evaluated(candidate, test, refits, legs)
        facts = facts_of(self.base, self.options.method, self.training, refits, legs, record)
        export_bundle(self.base, candidate, record, facts, self.options.output)

    def _test_memory(self, candidate: BundleInfo, judges: Originals, test: Originals) -> None:
        if self.folder.memorization.exists():
            return
        found = memorization_test(
            self.base.path,
            candidate.path,
            self._originals(self.training),
            judges.joined(test),
            self.evaluators.verifier,
            self.config.gate,
            self.config.seed,
        )
        write_record(self.folder.memorization, asdict(found))

    def _evaluated(
        self, candidate: BundleInfo, test: Originals, refits: tuple[Refit, ...], legs: list[Leg]
    ) -> dict[str, Any]:
        if not self.folder.evaluation.exists():
            measured = evaluate_side_by_side(
                self.base, candidate, test, self.evaluators, self.folder, self.config.seed
            )
            checks = read_record(self.folder.checks)
            changed = any(leg.kept for leg in legs) or any(refit.kept for refit in refits)
            about = {
                "bundle": candidate.name,
                "version": candidate.version,
                "base": self.base.name,
                "base_version": self.base.version,
                "verdict": verdict(measured, changed),
                "remarks": [
                    f"{p['title']}." for p in checks["problems"] if p["effect"] == Effect.WARNING
                ],
                "cohort": checks,
                "critics": [asdict(refit) for refit in refits],
                "legs": [asdict(leg) for leg in legs],
                "memorization": read_record(self.folder.memorization),
                "training_patients": patients(self.training),
            }
            write_record(self.folder.evaluation, measured | about)
        record: dict[str, Any] = read_record(self.folder.evaluation)
        return record

    def _originals(self, cohort: Cohort) -> Originals:
        size = self.base.metadata.image_size
        return Originals(cohort, load_images(cohort, size, self.folder.cache).unsqueeze(1))
