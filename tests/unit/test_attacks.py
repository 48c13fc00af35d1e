"""The ladder on toy people: no cheat passes, and every rung does what it says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from privdiff_training.evaluation import statistics
from privdiff_training.evaluation.attack_record import AttackFigures, Rung
from privdiff_training.evaluation.attacks.attack import Copies, Known, Originals, Scores
from privdiff_training.evaluation.attacks.averaging import AveragedScores, Averaging, Space
from privdiff_training.evaluation.attacks.config import (
    InverterConfig,
    MetricConfig,
    SiameseConfig,
)
from privdiff_training.evaluation.attacks.embedding import FixedVerifier
from privdiff_training.evaluation.attacks.group_reading import GroupReading
from privdiff_training.evaluation.attacks.inversion import Inversion
from privdiff_training.evaluation.attacks.ladder import ladder
from privdiff_training.evaluation.attacks.metadata import Fact, MetadataAttack, floors
from privdiff_training.evaluation.attacks.metric_learning import MetricLearning
from privdiff_training.evaluation.attacks.readings import ByReadings
from privdiff_training.evaluation.attacks.redrawn_gallery import RedrawnGallery
from privdiff_training.evaluation.attacks.shape import ShapeAttack
from privdiff_training.evaluation.attacks.siamese import Partner, SiameseAttack
from privdiff_training.evaluation.attacks.starting_points import StartingPoints
from privdiff_training.evaluation.attacks.together import Together
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.linkage_figures import linkage_figures
from privdiff_training.evaluation.methods.method import Starts
from privdiff_training.evaluation.record import MethodFigures
from privdiff_training.evaluation.statistics import NOTHING
from privdiff_training.evaluation.utility import measure_utility
from privdiff_training.evaluation.verification_metrics import seed_auc
from privdiff_training.sampling import generator_for
from privdiff_training.stages.backbones import BackboneConfig
from torch import Tensor
from torch.nn import functional

from privdiff_infer.errors import CohortError
from privdiff_infer.model.critics import IdentityEmbedder, RadiographReader
from tests.unit.chest import chest
from tests.unit.tiny import tiny_pipeline
from tests.unit.toy_people import BACKBONE, SIDE, copies_of, known, people, taught_verifier

SIAMESE = SiameseConfig(
    image_size=SIDE,
    augmentation="none",
    backbone=BackboneConfig(**BACKBONE),
    features=32,
    steps=90,
    learning_rate=3e-3,
    judge_every=15,
)
METRIC = MetricConfig(
    image_size=SIDE, augmentation="none", steps=40, batch_size=24, learning_rate=2e-3
)
INVERTER = InverterConfig(
    image_size=SIDE, channels=(8, 16), steps=150, learning_rate=1e-2, judge_every=30
)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "DRAWS", 100)


@pytest.fixture(scope="module")
def verifier() -> IdentityEmbedder:
    return taught_verifier()


@pytest.fixture(scope="module")
def fixed(verifier, tmp_path_factory: pytest.TempPathFactory) -> FixedVerifier:
    folder = tmp_path_factory.mktemp("verifier") / "identity"
    verifier.save_pretrained(folder)
    return FixedVerifier(folder)


@pytest.fixture(scope="module")
def test() -> Originals:
    return people(40, 7)


def attackers(fixed: FixedVerifier) -> tuple:
    return fixed, SiameseAttack(Partner.ORIGINAL, SIAMESE), MetricLearning(fixed, METRIC)


def figures(attack, given: Known, test: Originals, copies: Copies) -> AttackFigures:
    scores = attack.train(given, 0)(copies, test)
    return AttackFigures(
        rung=attack.rung,
        name=attack.name,
        trained_on=attack.trained_on(given),
        seeds=({kind: seed_auc(test.cohort, scores, kind) for kind in Linkage},),
        linkage={kind: linkage_figures(test.cohort, [scores], kind, 0) for kind in Linkage},
        on_originals={},
        learned_from_copies=attack.learns_from_copies,
        above_floor=NOTHING,
        control_above_floor=NOTHING,
        training=None,
    )


def nothing_done(images: Tensor, seed: int) -> Tensor:
    return images


def constant(images: Tensor, seed: int) -> Tensor:
    return torch.full_like(images, 0.5)


def noisy(images: Tensor, seed: int) -> Tensor:
    noise = torch.randn(images.shape, generator=generator_for(seed, "noise"))
    return (images + 0.5 * noise).clamp(0, 1)


class TestCheats:
    def test_constant_image_links_nobody_and_keeps_no_findings(self, fixed, test):
        copies = copies_of(constant, test)
        for attack in attackers(fixed):
            found = figures(attack, known(constant), test, copies).linkage
            for kind in Linkage:
                assert found[kind].auc.value == pytest.approx(0.5)
                assert found[kind].retrieval[-1].rank_1.low <= found[kind].retrieval[-1].chance

        torch.manual_seed(0)
        select, reader = people(20, 8), RadiographReader(BACKBONE, SIDE).eval()
        utility = measure_utility(
            test.cohort,
            test.pixels.float() / 255,
            copies.pixels[0].float() / 255,
            reader,
            0,
            select=select.cohort,
            select_originals=select.pixels.float() / 255,
            trained="not run",
        )
        assert utility.macro.value == 0.5

    def test_doing_nothing_is_full_linkage(self, fixed, test):
        copies = copies_of(nothing_done, test)
        for attack in attackers(fixed):
            found = figures(attack, known(nothing_done), test, copies)
            assert found.linkage[Linkage.SAME_IMAGE].auc.low > 0.97
            assert found.linkage[Linkage.FOLLOW_UP].auc.low > 0.85
        assert found.linkage[Linkage.SAME_IMAGE].retrieval[-1].rank_1.value > 0.9

    def test_noise_that_fools_the_fixed_verifier_alone_is_caught(self, verifier, fixed, test):
        def fooling(images: Tensor, seed: int) -> Tensor:
            return _fooling(verifier, images, seed)

        copies = copies_of(fooling, test)
        changed = (copies.pixels[0].float() - test.pixels.float()).abs().max()
        found = [figures(attack, known(fooling), test, copies) for attack in attackers(fixed)]

        assert changed <= 27  # of 255
        fooled, matched, strong = (each.linkage[Linkage.SAME_IMAGE].auc.value for each in found)
        assert fooled < 0.75
        assert matched > 0.95
        assert strong > 0.95
        method = MethodFigures(
            method="noise",
            family="noise",
            setting="",
            told="nothing",
            attacks=tuple(found),
            not_run={},
            utility=None,
            quality=None,
            attributes=None,
            subgroups=(),
            exposure=None,
        )
        assert method.worst(Linkage.SAME_IMAGE).rung is not Rung.FIXED


class TestRungs:
    def test_published_retraining_sees_copies_alone(self, fixed, test):
        attack = SiameseAttack(Partner.COPY, SIAMESE)
        found = figures(attack, known(nothing_done), test, copies_of(nothing_done, test))
        assert attack.rung is Rung.PUBLISHED_RETRAINING
        assert found.linkage[Linkage.SAME_IMAGE].auc.value > 0.9
        assert "100 images of 50 patients, 2 copies each" in found.trained_on

    def test_seeds_decide_what_is_learned(self, test):
        attack = SiameseAttack(Partner.ORIGINAL, SIAMESE.model_copy(update={"steps": 2}))
        given, copies = known(nothing_done), copies_of(nothing_done, test)
        first, again, other = (attack.train(given, seed)(copies, test) for seed in (0, 0, 1))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize("space", list(Space))
    def test_averaging_takes_the_noise_away(self, fixed, test, space):
        given = known(noisy)
        one = figures(fixed, given, test, copies_of(noisy, test))
        many = figures(Averaging(fixed, space), given, test, copies_of(noisy, test, 8))
        kind = Linkage.SAME_IMAGE
        assert many.linkage[kind].auc.value > one.linkage[kind].auc.value

    def test_what_is_found_in_several_copies_is_averaged(self, fixed, test, tmp_path):
        def very_noisy(images: Tensor, seed: int) -> Tensor:
            return noisy(noisy(noisy(images, seed), seed + 100), seed + 200)

        tiny_pipeline().autoencoder.save_pretrained(tmp_path)
        given, then = known(very_noisy), StartingPoints(tmp_path)
        one = figures(then, given, test, copies_of(very_noisy, test))
        many = figures(AveragedScores(then), given, test, copies_of(very_noisy, test, 8))
        single = figures(AveragedScores(then), given, test, copies_of(very_noisy, test))
        kind = Linkage.SAME_IMAGE
        assert many.linkage[kind].auc.value > one.linkage[kind].auc.value
        assert single.linkage[kind].auc == one.linkage[kind].auc
        assert many.rung is Rung.AVERAGING

    def test_inversion_undoes_what_can_be_undone(self, fixed, test):
        def negative(images: Tensor, seed: int) -> Tensor:
            return 1 - images

        given, copies = known(negative), copies_of(negative, test)
        kind = Linkage.SAME_IMAGE
        before = figures(fixed, given, test, copies).linkage[kind].auc.value
        after = figures(Inversion(fixed, INVERTER), given, test, copies).linkage[kind].auc.value
        assert before < 0.7
        assert after > 0.9

    def test_shape_is_enough_where_the_outline_is_kept(self):
        shifts = (-8, -4, 0, 4, 8, 12)
        drawn = [chest(128, shift=shift) for shift in shifts]
        pixels = (torch.tensor(np.array(drawn)).unsqueeze(1) * 255).round().byte()
        originals = Originals(people(len(shifts), 1, images=1).cohort, pixels)
        smooth = functional.avg_pool2d(pixels.float(), 3, stride=1, padding=1).round().byte()
        linker = ShapeAttack().train(known(nothing_done), 0)

        scores = linker(Copies(originals.cohort, smooth[None]), originals)
        of_nothing = linker(Copies(originals.cohort, torch.zeros_like(smooth)[None]), originals)

        assert (scores.argmax(1) == np.arange(len(shifts))).all()
        assert (of_nothing == 0).all()

    def test_every_rung_of_images_is_in_the_ladder(self):
        from privdiff_training.evaluation.attacks.config import AttackersConfig, EncoderConfig

        encoder = EncoderConfig(kind="transformers", path=Path("dinov2"))
        config = AttackersConfig(encoders=(encoder,))
        attacks = ladder(Path("evaluators"), Path("bundle"), config)
        assert {attack.rung for attack in attacks} == set(Rung) - {Rung.METADATA}
        assert len({(attack.rung, attack.name) for attack in attacks}) == len(attacks)
        assert all(attack.learns_from_copies for attack in attacks if attack.is_learned)


class TestOwnersOfTheTool:
    @pytest.fixture(scope="class")
    def reader(self, tmp_path_factory: pytest.TempPathFactory) -> ByReadings:
        torch.manual_seed(1)
        folder = tmp_path_factory.mktemp("reader") / "reader"
        RadiographReader(BACKBONE, SIDE).save_pretrained(folder)
        return ByReadings(folder, "a reader")

    def test_findings_that_are_kept_in_their_strength_link(self, reader, test):
        def dark(images: Tensor, seed: int) -> Tensor:
            noise = torch.randn(images.shape, generator=generator_for(seed, "noise"))
            return (0.5 * images + 0.01 * noise).clamp(0, 1)

        given, kind = known(dark), Linkage.SAME_IMAGE
        found = figures(reader, given, test, copies_of(dark, test)).linkage[kind].auc
        nothing = figures(reader, known(constant), test, copies_of(constant, test)).linkage[kind]

        assert reader.train(given, 0).curve == ()
        assert found.low > 0.55
        assert nothing.auc.value == pytest.approx(0.5)

    def test_a_tool_that_does_nothing_is_full_linkage_by_readings(self, reader, test):
        copies = copies_of(nothing_done, test)
        for attack in (reader, RedrawnGallery(reader)):
            found = figures(attack, known(nothing_done), test, copies)
            assert found.linkage[Linkage.SAME_IMAGE].auc.low > 0.97

    def test_what_only_copies_tell_is_found_by_redrawing_the_gallery(self, fixed, test):
        pictures = people(40, 55, images=1).pixels.float() / 255

        def another_person(images: Tensor, seed: int) -> Tensor:
            """Draw what a source is mapped to, which no original shows."""
            chosen = (images.flatten(1) * 255).sum(1).round().long() % len(pictures)
            return noise_of(pictures[chosen], seed)

        def noise_of(images: Tensor, seed: int) -> Tensor:
            noise = torch.randn(images.shape, generator=generator_for(seed, "noise"))
            return (images + 0.05 * noise).clamp(0, 1)

        given, copies = known(another_person), copies_of(another_person, test)
        kind = Linkage.SAME_IMAGE
        without = figures(fixed, given, test, copies).linkage[kind].auc
        redrawn = figures(RedrawnGallery(fixed), given, test, copies).linkage[kind].auc

        assert without.high < 0.75
        assert redrawn.low > 0.95

    def test_readings_of_a_redrawn_gallery_link(self, reader, test):
        def slightly_noisy(images: Tensor, seed: int) -> Tensor:
            noise = torch.randn(images.shape, generator=generator_for(seed, "noise"))
            return (images + 0.01 * noise).clamp(0, 1)

        given, kind = known(slightly_noisy), Linkage.SAME_IMAGE
        attack = RedrawnGallery(reader)
        found = figures(attack, given, test, copies_of(slightly_noisy, test)).linkage[kind].auc
        assert found.low > 0.8
        assert attack.learns_from_copies and attack.redraws_gallery

    def test_a_redrawn_gallery_of_constant_images_links_nobody(self, fixed, test):
        copies = copies_of(constant, test)
        found = figures(RedrawnGallery(fixed), known(constant), test, copies)
        assert found.linkage[Linkage.SAME_IMAGE].auc.value == pytest.approx(0.5)

    def test_who_was_trained_is_not_trained_again(self, fixed):
        given, strong = known(noisy), MetricLearning(fixed, METRIC.model_copy(update={"steps": 2}))
        first = strong.train(given, 0)
        assert strong.train(given, 0) is first
        assert strong.train(given, 1) is not first
        assert [step for step, _ in first.curve] == [0, 2]
        undone = Inversion(strong, INVERTER.model_copy(update={"steps": 2}))
        undone.train(given, 0)
        first_two = {(strong.fingerprint, 0), (strong.fingerprint, 1)}
        assert first_two < set(given.memory) and len(given.memory) == 3  # the inverter is the third


class TestOwnerOfTheWeights:
    """A tool that shows one of three fixed images, by how bright the original is at the bottom."""

    @pytest.fixture(scope="class")
    def starting_points(self, tmp_path_factory: pytest.TempPathFactory) -> StartingPoints:
        folder = tmp_path_factory.mktemp("bundle")
        tiny_pipeline().autoencoder.save_pretrained(folder / "autoencoder")
        return StartingPoints(folder / "autoencoder")

    @staticmethod
    def group_of(images: Tensor) -> Tensor:
        return (images[:, 0, -8:].mean((1, 2)) * 6).long().clamp(1, 3) - 1

    @staticmethod
    def exemplars() -> Tensor:
        return torch.rand(6, 1, 64, 64, generator=torch.Generator().manual_seed(5))

    def tool(self, images: Tensor, seed: int) -> Tensor:
        drawn = torch.Generator().manual_seed(seed)
        picked = 2 * self.group_of(images) + torch.randint(2, (len(images),), generator=drawn)
        noise = 0.1 * torch.rand(len(images), 1, 64, 64, generator=drawn)
        return (0.9 * self.exemplars()[picked] + noise).clamp(0, 1)

    def owned(self) -> Known:
        def starts(originals: Originals) -> Starts:
            groups = self.group_of(originals.pixels.float() / 255)
            return Starts(self.exemplars(), groups[:, None] == torch.arange(3).repeat_interleave(2))

        return replace(known(self.tool), starts=starts)

    def test_a_choice_is_found_that_no_likeness_shows(self, fixed, starting_points, test):
        given, queries = self.owned(), copies_of(self.tool, test)
        groups = self.group_of(test.pixels.float() / 255)
        same = groups[:, None] == groups
        # who knows the group of every copy: a rare one tells more
        told = seed_auc(test.cohort, (same / same.sum(1)).double().numpy(), Linkage.SAME_IMAGE)
        found = seed_auc(
            test.cohort, starting_points.train(given, 0)(queries, test), Linkage.SAME_IMAGE
        )
        like = seed_auc(test.cohort, fixed.train(given, 0)(queries, test), Linkage.SAME_IMAGE)

        assert found == pytest.approx(told, abs=0.01)
        assert found > like + 0.1

    def test_where_the_start_is_the_original_they_are_compared(self, starting_points, test):
        given, queries = known(nothing_done), copies_of(nothing_done, test)
        scores = starting_points.train(given, 0)(queries, test)
        assert (scores.argmax(1) == np.arange(len(test))).all()

    def test_copies_teach_which_group_they_show(self, fixed, starting_points, test):
        """The starts themselves are hidden: the tool shows the negative of each."""

        def hidden(images: Tensor, seed: int) -> Tensor:
            return 1 - self.tool(images, seed)

        given = replace(known(hidden), starts=self.owned().starts)
        queries = copies_of(hidden, test)
        learned = GroupReading(fixed, starting_points)
        groups = self.group_of(test.pixels.float() / 255)
        same = groups[:, None] == groups
        told = seed_auc(test.cohort, (same / same.sum(1)).double().numpy(), Linkage.SAME_IMAGE)

        scores = learned.train(given, 0)(queries, test)
        looked = starting_points.train(given, 0)(queries, test)

        found = seed_auc(test.cohort, scores, Linkage.SAME_IMAGE)
        assert found == pytest.approx(told, abs=0.03)
        assert found > seed_auc(test.cohort, looked, Linkage.SAME_IMAGE) + 0.1
        assert "copies whose groups it knows" in learned.trained_on(given)

    def test_a_tool_without_groups_teaches_none(self, fixed, starting_points):
        with pytest.raises(CohortError, match="no groups to tell"):
            GroupReading(fixed, starting_points).train(known(nothing_done), 0)

    def test_together_they_are_no_weaker_than_the_best(self, fixed, starting_points, test):
        given, queries = self.owned(), copies_of(self.tool, test)
        every = Together((fixed, starting_points))

        scores = every.train(given, 0)(queries, test)

        best = starting_points.train(given, 0)(queries, test)
        assert seed_auc(test.cohort, scores, Linkage.SAME_IMAGE) > (
            seed_auc(test.cohort, best, Linkage.SAME_IMAGE) - 0.02
        )
        assert "pairs of 200 copies and 100 originals, fold by fold" in every.trained_on(given)
        assert every.name == "A0, A13 together"

    def test_a_part_is_not_weighed_by_what_it_was_fitted_to(self, starting_points, test):
        """One part knows by heart whom it was fitted to, and guesses otherwise."""

        class ByHeart:
            rung, is_learned, fingerprint = Rung.READINGS, False, "by heart"

            def train(self, given: Known, seed: int) -> Scores:
                fitted = given.fitted_rows or range(len(given.train))
                known_by_heart = {given.train.cohort.rows[row] for row in fitted}

                def link(queries: Copies, gallery: Originals) -> np.ndarray:
                    guesses = np.random.default_rng(seed).random(
                        (len(queries.cohort), len(gallery))
                    )
                    for i, query in enumerate(queries.cohort):
                        for j, candidate in enumerate(gallery.cohort):
                            if query == candidate and query in known_by_heart:
                                guesses[i, j] = 10.0
                    return guesses

                return Scores(link)

        given, queries = self.owned(), copies_of(self.tool, test)
        scores = Together((ByHeart(), starting_points)).train(given, 0)(queries, test)
        best = starting_points.train(given, 0)(queries, test)

        assert seed_auc(test.cohort, scores, Linkage.SAME_IMAGE) == pytest.approx(
            seed_auc(test.cohort, best, Linkage.SAME_IMAGE), abs=0.02
        )

    def test_another_image_is_looked_for_by_weights_of_its_own(self, test):
        """One part knows the very image, the other the person; both guess otherwise."""

        @dataclass(frozen=True)
        class Knows:
            what: str
            rung = Rung.READINGS

            def train(self, given: Known, seed: int) -> Scores:
                def link(queries: Copies, gallery: Originals) -> np.ndarray:
                    shape = len(queries.cohort), len(gallery)
                    rng = np.random.default_rng([len(self.what), *shape])
                    asked, held = (list(part.cohort) for part in (queries, gallery))
                    if self.what == "person":
                        asked, held = ([row.unit for row in rows] for rows in (asked, held))
                    known = np.array([[one == other for other in held] for one in asked])
                    return np.asarray(known + rng.normal(0, 0.5, shape))

                return Scores(link)

        given, queries = known(nothing_done), copies_of(nothing_done, test)
        found = {}
        for kind in Linkage:
            every = Together((Knows("image"), Knows("person")), kind)
            scores = every.train(given, 0)(queries, test)
            found[kind] = seed_auc(test.cohort, scores, Linkage.FOLLOW_UP)

        assert every.name == "A12 together, for another image"
        assert found[Linkage.FOLLOW_UP] > found[Linkage.SAME_IMAGE] + 0.02

    def test_who_has_one_image_cannot_be_looked_for_by_another(self, fixed):
        single = people(20, 3, images=1)
        given = replace(known(nothing_done), train=single)
        with pytest.raises(CohortError, match="no patient has two images"):
            Together((fixed,), Linkage.FOLLOW_UP).train(given, 0)

    @pytest.mark.parametrize("patients", [1, 3, 4])
    def test_few_patients_are_told_and_no_error(self, fixed, starting_points, test, patients):
        given = replace(known(nothing_done), train=people(patients, 3))
        every = Together((fixed, starting_points))
        if patients < 4:
            with pytest.raises(CohortError, match="fewer than 4 patients"):
                every.train(given, 0)
        else:
            scores = every.train(given, 0)(copies_of(nothing_done, test), test)
            assert scores.shape == (len(test), len(test))


class TestFloors:
    def test_facts_link_as_far_as_they_go(self, test):
        given = known(nothing_done)
        found = {}
        for attack in floors():
            scores = attack.train(given, 0)(Copies(test.cohort, test.pixels[None]), test)
            found[attack.name] = seed_auc(test.cohort, scores, Linkage.FOLLOW_UP)
        # every second stranger is of the same sex, every sixth of the same age
        assert found["sex"] == pytest.approx(0.5 + 0.5 * 20 / 39, abs=0.01)
        assert found["age"] > 0.85
        assert found["labels"] == pytest.approx(0.5 + 0.5 * 20 / 39, abs=0.02)
        assert found["all"] > max(found["sex"], found["labels"])

    def test_what_is_unknown_tells_nothing(self, test):
        rows = tuple(replace(row, sex=None) for row in test.cohort)
        nameless = replace(test, cohort=replace(test.cohort, rows=rows))
        linker = MetadataAttack((Fact.SEX,)).train(known(nothing_done), 0)
        scores = linker(Copies(nameless.cohort, nameless.pixels[None]), nameless)
        assert len(np.unique(scores)) == 1

    def test_nobody_to_learn_from(self):
        single = people(10, 3, images=1)
        given = Known(single, people(10, 4, images=1), single, *[lambda _: None] * 3)
        with pytest.raises(CohortError, match="no patient has two images"):
            MetadataAttack((Fact.AGE,)).train(given, 0)


def _fooling(verifier: IdentityEmbedder, images: Tensor, seed: int) -> Tensor:
    """Return images whose embedding was pushed to that of a random person, a tenth at most."""
    target = torch.randn(len(images), 16, generator=generator_for(seed, "fool"))
    noise = torch.zeros_like(images, requires_grad=True)
    for _ in range(20):
        near = (verifier((images + noise).clamp(0, 1)) * functional.normalize(target, dim=-1)).sum()
        (slope,) = torch.autograd.grad(near, noise)
        noise = (noise + 0.015 * slope.sign()).clamp(-0.1, 0.1).detach().requires_grad_(True)
    return (images + noise).clamp(0, 1).detach()
