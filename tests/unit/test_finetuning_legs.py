"""Which step is kept, which critic, and what a small cohort cannot decide."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from privdiff_training.cohort import Cohort, read_manifest
from privdiff_training.evaluation.attacks.attack import Originals
from privdiff_training.evaluation.networks import Evaluators
from privdiff_training.finetuning.config import FinetuneConfig, JudgeConfig
from privdiff_training.finetuning.critics import findings_auc, follow_up_auc, moved_threshold
from privdiff_training.finetuning.evidence import verdict
from privdiff_training.finetuning.judging import (
    Look,
    PrivacyUtilityJudge,
    best_of,
    judged_pipeline,
)
from privdiff_training.finetuning.legs import read_missing_findings, spread
from privdiff_training.images import load_images
from privdiff_training.loop import train
from pydantic import ValidationError

from privdiff_infer.errors import CohortError
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from privdiff_infer.model.denoiser import PrivDiffDenoiser
from privdiff_infer.vocabulary import FindingState
from tests.unit.tiny import SIZE, TINY_RESNET, tiny_pipeline
from tests.unit.workshop import Workshop, weights

JUDGE = JudgeConfig(every=2, patience=2, inference_steps=2)


def look(step: int, linkage: float = 0.8, agreement: float = 0.9, unlike: float = 0.1) -> Look:
    return Look(step, linkage, agreement, kernel_distance=unlike)


def kept(*seen: Look) -> int:
    return best_of({each.step: each for each in seen}, JUDGE).step


def test_the_base_is_kept_unless_a_step_is_better():
    assert kept(look(0), look(2)) == 0
    assert kept(look(0), look(2, linkage=0.7)) == 2
    assert kept(look(0), look(2, agreement=0.95)) == 2
    assert kept(look(0), look(2, unlike=0.05)) == 2


@pytest.mark.parametrize(
    "bought",
    [
        look(2, linkage=0.5, agreement=0.8),
        look(2, linkage=0.5, unlike=0.2),
        look(2, linkage=0.9, agreement=0.999),
        look(2, linkage=0.9, unlike=0.0),
    ],
    ids=["with findings", "with pictures", "findings with privacy", "pictures with privacy"],
)
def test_no_figure_buys_another(bought):
    assert kept(look(0), bought) == 0


def test_linkage_below_chance_and_distance_below_zero_are_no_gain():
    assert kept(look(0, linkage=0.5), look(2, linkage=0.3)) == 0
    assert kept(look(0, unlike=0.0), look(2, unlike=-0.1)) == 0


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    shop = Workshop(tmp_path)
    pipeline = tiny_pipeline()
    for name, component in pipeline.components.items():
        if component is not None:
            component.save_pretrained(shop.bundle / name)
    return shop


def evaluators() -> Evaluators:
    torch.manual_seed(7)
    return Evaluators(
        IdentityEmbedder(TINY_RESNET, 32, 8, 4).eval(), RadiographReader(TINY_RESNET, 32).eval()
    )


def originals(workshop: Workshop) -> Originals:
    cohort = read_manifest(workshop.manifest)
    return Originals(cohort, load_images(cohort, SIZE, workshop.root / "cache").unsqueeze(1))


def judge_of(workshop: Workshop, stage, config: JudgeConfig = JUDGE) -> PrivacyUtilityJudge:
    pipeline = tiny_pipeline()
    drawing = judged_pipeline(stage, pipeline.identity, pipeline.reader)
    folder = workshop.root / "leg"
    folder.mkdir(exist_ok=True)
    return PrivacyUtilityJudge(
        stage, drawing, 0.3, originals(workshop), evaluators(), config, folder, seed=0
    )


@pytest.mark.parametrize("rank", [2, None])
def test_a_training_that_gains_nothing_exports_what_it_started_from(workshop, rank):
    stage = workshop.stage("diffusion", workshop.bundle, rank=rank, steps=4, learning_rate=1e-2)
    stubborn = JUDGE.model_copy(update={"least_gain": 10.0})
    judge = judge_of(workshop, stage, stubborn)
    train(stage, workshop.root / "run", workshop.root / "out", judge=judge)

    assert sorted(judge.looks) == [0, 2, 4]
    before = weights(workshop.bundle / "denoiser")
    after = weights(workshop.root / "out" / "denoiser")
    assert before.keys() == after.keys()
    assert all(torch.allclose(after[name], weight, atol=1e-6) for name, weight in before.items())


def test_the_weights_of_the_best_step_are_exported(workshop):
    stage = workshop.stage("diffusion", workshop.bundle, rank=2, steps=4, learning_rate=1e-2)
    eager = JUDGE.model_copy(update={"least_gain": 0.0, "tolerance": 1.0})
    judge = judge_of(workshop, stage, eager)
    train(stage, workshop.root / "run", workshop.root / "out", judge=judge)
    best = best_of(judge.looks, eager)

    assert [path.name for path in judge._folder.glob("kept-*")] == [f"kept-{best.step}.safetensors"]
    exported = PrivDiffDenoiser.from_pretrained(workshop.root / "out" / "denoiser").eval()
    stage.denoiser = exported
    pipeline = tiny_pipeline()
    again = PrivacyUtilityJudge(
        stage,
        judged_pipeline(stage, pipeline.identity, pipeline.reader),
        0.3,
        originals(workshop),
        evaluators(),
        eager,
        workshop.root / "again",
        seed=0,
    )
    seen = again._seen(best.step)
    assert seen.linkage == pytest.approx(best.linkage, abs=1e-6)
    assert seen.agreement == pytest.approx(best.agreement, abs=1e-5)
    assert seen.kernel_distance == pytest.approx(best.kernel_distance, abs=1e-5)


def test_training_ends_when_nothing_gets_better(workshop):
    stage = workshop.stage("diffusion", workshop.bundle, rank=2, steps=50)
    judge = judge_of(workshop, stage, JUDGE.model_copy(update={"least_gain": 10.0}))
    train(stage, workshop.root / "run", workshop.root / "out", judge=judge)
    assert max(judge.looks) == JUDGE.every * JUDGE.patience


def test_judges_of_one_patient_decide_nothing(workshop):
    stage = workshop.stage("diffusion", workshop.bundle, rank=2)
    images = originals(workshop)
    alone = Originals(Cohort(images.cohort.root, images.cohort.rows[:2]), images.pixels[:2])
    pipeline = tiny_pipeline()
    with pytest.raises(CohortError, match="0 judging patients"):
        PrivacyUtilityJudge(
            stage,
            judged_pipeline(stage, pipeline.identity, pipeline.reader),
            0.3,
            alone,
            evaluators(),
            JUDGE,
            workshop.root,
            seed=0,
        )


def test_judging_images_are_of_as_many_patients_as_there_are(workshop):
    images = originals(workshop)
    few = spread(images, 6)
    assert len({row.unit for row in few.cohort}) == len(few) == 6
    names = [row.image.name for row in spread(images, 8).cohort]
    assert names[:5] == ["p0_0.png", "p0_1.png", "p1_0.png", "p1_1.png", "p2_0.png"]
    assert torch.equal(spread(images, 99).pixels, images.pixels)


def test_images_without_findings_get_those_that_the_reader_sees(workshop):
    stage = workshop.stage("diffusion", workshop.bundle)
    labelled = stage.data.labels.findings[1:].clone()
    stage.data.labels.findings[0] = FindingState.UNKNOWN
    pipeline = tiny_pipeline()
    read_missing_findings(stage.data, judged_pipeline(stage, pipeline.identity, pipeline.reader))

    expected = pipeline.read_findings(stage.images.images(torch.tensor([0])))
    assert torch.equal(stage.data.labels.findings[0], expected[0])
    assert torch.equal(stage.data.labels.findings[1:], labelled)


def test_critics_are_judged_only_where_they_can_be(workshop):
    images = originals(workshop)
    verifier, reader = evaluators().verifier, evaluators().classifier
    assert 0 <= findings_auc(reader, images) <= 1
    assert 0 <= follow_up_auc(verifier, images) <= 1
    names = [row.image.name for row in images.cohort]
    firsts = [row for row, name in enumerate(names) if name.endswith("_0.png")]
    single = Originals(
        Cohort(images.cohort.root, tuple(images.cohort.rows[row] for row in firsts)),
        images.pixels[firsts],
    )
    assert follow_up_auc(verifier, single) is None
    one_label = Originals(
        images.cohort.where(lambda row: row.fold == "0"),
        images.pixels[[row.fold == "0" for row in images.cohort]],
    )
    assert findings_auc(reader, one_label) is None


def test_a_threshold_keeps_its_place_among_the_scores():
    scores = torch.randn(100, generator=torch.Generator().manual_seed(0))
    moved = moved_threshold(scores, 3 * scores - 1, 0.7)
    assert moved == pytest.approx(3 * 0.7 - 1, abs=1e-4)
    assert ((3 * scores - 1) < moved).sum() == (scores < 0.7).sum()


def test_private_training_refuses_legs_without_noise():
    legs = {"diffusion": {"steps": 1}, "private_training": {}}
    FinetuneConfig.model_validate(legs)
    for other in ({"suppression": {"steps": 1}}, {"critics": {"reader": {"steps": 1}}}):
        with pytest.raises(ValidationError, match="protects the leg `diffusion` alone"):
            FinetuneConfig.model_validate(legs | other)
    with pytest.raises(ValidationError, match="needs the leg `diffusion`"):
        FinetuneConfig.model_validate({"private_training": {}})


def test_the_verdict_says_what_the_intervals_say():
    def figure(low, high):
        return {"difference": {"value": (low + high) / 2, "low": low, "high": high}}

    record = {
        "figures": {
            "same_image": figure(-0.2, -0.1),
            "agreement": figure(-0.2, -0.1),
            "follow_up": figure(-0.1, 0.1),
            "findings": {"difference": {"value": None, "low": None, "high": None}},
            "similarity": {"old": {"value": 1.0}, "new": {"value": 0.5}},
        }
    }
    text = verdict(record, changed=True)
    assert "Better beyond chance: linkage to the very original, AUC." in text
    assert "Worse beyond chance: agreement with what is read in the originals." in text
    assert "gained nothing" in verdict(record, changed=False)
