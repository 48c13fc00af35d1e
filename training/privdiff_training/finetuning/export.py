"""From what was trained to a bundle with its model card, its hashes and its evidence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from privdiff_infer.model.bundle import (
    EVIDENCE,
    BundleInfo,
    FineTuning,
    GateThresholds,
    read_bundle,
)
from privdiff_infer.release import json_bytes
from privdiff_training.assemble import assemble_bundle, write_metadata
from privdiff_training.cohort import Cohort
from privdiff_training.finetuning.config import FinetuneConfig
from privdiff_training.finetuning.critics import Refit
from privdiff_training.finetuning.evidence import evaluation_page, side_by_side
from privdiff_training.finetuning.folder import RunFolder
from privdiff_training.finetuning.legs import Leg
from privdiff_training.finetuning.method import Method
from privdiff_training.finetuning.roles import patients
from privdiff_training.finetuning.settings import (
    MODEL_CARD,
    add_components_of_base,
    card_with_base,
    tuned_bundle_config,
)
from privdiff_training.whole_folder import whole_folder

UNTESTED = (
    "Weights that were trained on patients are personal data until the memorization test has "
    "passed: do not let them out of the folder of the run."
)


def assemble_candidate(
    base: BundleInfo,
    config: FinetuneConfig,
    training: Cohort,
    gates: GateThresholds,
    folder: RunFolder,
) -> BundleInfo:
    """Write the bundle into the private folder of the run, where it is tested."""
    if not folder.candidate.is_dir():
        add_components_of_base(base, folder.components)
        card = folder.root / MODEL_CARD
        card.write_text(f"# {config.name} {config.version}\n\n{UNTESTED}\n", encoding="utf-8")
        settings = tuned_bundle_config(
            base,
            name=config.name,
            version=config.version,
            origin=f"Fine-tuned from {base.name} {base.version} (SHA-256 {base.sha256})",
            data=f"{len(training)} images of {patients(training)} patients of a cohort of its own",
            card=card,
            gates=gates,
        )
        assemble_bundle(folder.components, settings, folder.candidate)
    return read_bundle(folder.candidate)


def export_bundle(
    base: BundleInfo,
    candidate: BundleInfo,
    record: dict[str, Any],
    facts: FineTuning,
    output: Path,
) -> BundleInfo:
    """Write the tested bundle with its evidence: model card, evaluation and metadata."""
    with whole_folder(output) as partial:
        shutil.copytree(candidate.path, partial, dirs_exist_ok=True)
        json_name, page_name = EVIDENCE
        (partial / json_name).write_bytes(json_bytes(record))
        (partial / page_name).write_text(evaluation_page(record), encoding="utf-8")
        card = model_card(candidate, facts, record)
        (partial / MODEL_CARD).write_text(card_with_base(base, card), encoding="utf-8")
        fields = candidate.metadata.model_dump(exclude={"files", "fine_tuning"})
        write_metadata(partial, {**fields, "fine_tuning": facts})
    return read_bundle(output)


def facts_of(
    base: BundleInfo,
    method: Method,
    training: Cohort,
    refits: Sequence[Refit],
    legs: Sequence[Leg],
    record: dict[str, Any],
) -> FineTuning:
    """Return what the metadata of the bundle say of its making."""
    private = next((leg for leg in legs if leg.epsilon is not None), None)
    memory = record["memorization"]
    return FineTuning(
        base=base.name,
        base_version=base.version,
        base_sha256=base.sha256,
        method=method.value,
        images=len(training),
        patients=patients(training),
        kept_steps={leg.name: leg.kept for leg in legs},
        refitted=tuple(refit.critic for refit in refits if refit.kept),
        epsilon=private.epsilon if private else None,
        delta=private.delta if private else None,
        drawn=memory["new"]["drawn"],
        copies=memory["new"]["copies"],
        copies_of_base=memory["copies_of_base"],
        test_images=record["images"],
        test_patients=record["patients"],
        evaluation=side_by_side(record),
    )


def model_card(bundle: BundleInfo, facts: FineTuning, record: dict[str, Any]) -> str:
    """Return the card of a fine-tuned bundle in Markdown."""
    privacy = (
        f"Differentially private training: epsilon {facts.epsilon:.2f} at delta {facts.delta:.1e}, "
        "per patient."
        if facts.epsilon is not None
        else "Training was not differentially private."
    )
    lines = [
        f"# {bundle.name} {bundle.version}",
        "",
        f"{record['verdict']} Tuned from {facts.base} {facts.base_version} by the method "
        f"{facts.method}, on {facts.images} images of {facts.patients} patients. Steps kept: "
        f"{json.dumps(facts.kept_steps)}. Critics replaced: {', '.join(facts.refitted) or 'none'}.",
        "",
        f"Memorization test: passed. {facts.copies} of {facts.drawn} images that it draws count as "
        f"copies of training images, {facts.copies_of_base} of those of the base, by chance. "
        f"{privacy} A test that passed is no proof: weights leave a hospital only if it agrees.",
        "",
        f"Measured on {facts.test_images} images of {facts.test_patients} other patients of the "
        "cohort, with 95 % intervals; the whole table is in `evaluation.html`.",
        "",
        "| figure | old | new |",
        "|---|---|---|",
        *(
            f"| {name.replace('_', ' ')} | {_cell(figure.old)} | {_cell(figure.new)} |"
            for name, figure in facts.evaluation.items()
        ),
        "",
        *(f"- {remark}" for remark in record["remarks"]),
    ]
    return "\n".join(lines)


def _cell(interval: tuple[float, float, float] | None) -> str:
    if interval is None:
        return "cannot be measured here"
    value, low, high = interval
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
