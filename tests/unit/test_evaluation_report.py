"""The page of an evaluation: complete, escaped, honest, and fit for a record with holes."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from privdiff_training.evaluation.attack_record import Rung
from privdiff_training.evaluation.linkage import Linkage
from privdiff_training.evaluation.quote import quoted
from privdiff_training.evaluation.record import Evaluation, MethodFigures
from privdiff_training.evaluation.report import write_report
from privdiff_training.evaluation.report.goals import Goal, Verdict, judge
from privdiff_training.evaluation.report.judgement import (
    LeftOut,
    doubt,
    labels_carry_the_utility,
    not_run,
)
from privdiff_training.evaluation.report.reading import read_evaluation
from privdiff_training.evaluation.report.words import attack_notes, plain_words

from privdiff_infer.errors import BundleError, OptionError
from tests.unit.evaluation_factory import (
    UNKNOWN,
    attack,
    evaluation,
    linkage,
    method,
    near,
    point,
    utility,
    write_record,
)

SECTIONS = (
    "headline", "words", "goals", "plane", "attacks", "retrieval", "exposure", "negatives",
    "findings", "attributes", "subgroups", "memorization", "quality", "not-run", "law", "protocol",
    "again", "limits", "citation",
)  # fmt: skip
FORBIDDEN = (
    "anonymous", "impossible", "compliant", "near-random", "differentially private",
    "diagnostic quality", "better than random", "guarantee",
)  # fmt: skip
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Text, open elements and addresses of a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.images += [attributes] if tag == "img" else []
        self.headings += [tag] if re.fullmatch("h[1-6]", tag) else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag != "span":
            self.words.append(" ")

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def html_of(folder: Path, record: Evaluation) -> str:
    return write_report(write_record(folder, record)).read_text(encoding="utf-8")


def text_of(folder: Path, record: Evaluation) -> str:
    return Page(html_of(folder, record)).text


def goals_of(record: Evaluation) -> dict[str, Goal]:
    return {goal.goal.split(":")[0]: goal for goal in judge(record)}


def with_point(**parts: object) -> Evaluation:
    record = evaluation()
    return replace(record, methods=(point(**parts), *record.methods[1:]))


def bare(name: str) -> MethodFigures:
    return MethodFigures(name, name, "", "nothing", (), {}, None, None, None, (), None)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the whole made-up record."""
    return html_of(tmp_path_factory.mktemp("whole"), evaluation())


@pytest.fixture(scope="module")
def page(content: str) -> Page:
    return Page(content)


class TestRecord:
    def test_is_read_as_it_was_written(self, tmp_path):
        record = evaluation()
        assert read_evaluation(write_record(tmp_path, record) / "report.json") == record

    def test_of_an_older_version_without_optional_parts_is_read(self, tmp_path):
        path = write_record(tmp_path, evaluation()) / "report.json"
        path.write_text(re.sub(r', "roc": \{[^}]*\}', "", path.read_text()))
        figures = read_evaluation(path).methods[0].attacks[0].linkage[Linkage.SAME_IMAGE]
        assert figures.roc is None

    def test_that_is_none_is_refused(self, tmp_path):
        (tmp_path / "report.json").write_text("{}")
        with pytest.raises(OptionError, match="size: Field required"):
            write_report(tmp_path)
        (tmp_path / "report.json").write_text("no JSON")
        with pytest.raises(OptionError, match="cannot be read"):
            write_report(tmp_path)
        with pytest.raises(OptionError, match="cannot be read"):
            write_report(tmp_path / "nowhere")


class TestPage:
    def test_is_well_formed_complete_and_needs_no_other_file(self, page):
        assert page.open == []
        assert [name for name in page.ids if name != "caption"] == list(SECTIONS)
        assert {link for link in page.links if link.startswith("#")} == {f"#{s}" for s in SECTIONS}
        assert [link for link in page.links if not link.startswith("#")] == [
            "https://proceedings.mlr.press/v317/akhter26a.html"
        ]
        charts = [image for image in page.images if image.get("src")]
        assert len(charts) == 3
        for image in charts:
            assert image["src"].startswith("data:image/svg+xml;base64,")
            assert len(image["alt"]) > 40

    def test_can_be_walked_through_by_its_headings_and_tables(self, page, content):
        assert page.headings.count("h1") == 1
        assert page.headings[0] == "h1"
        assert '<html lang="en">' in content
        assert content.count("<table") == content.count("<caption>") > 10
        assert "<th>" not in content

    def test_says_nothing_that_is_forbidden(self, page):
        text = page.text.lower()
        for words in FORBIDDEN:
            assert words not in text
        assert "measured, not proven" in text
        assert "remain personal data unless your own assessment says otherwise" in text
        assert "not for diagnosis" in text

    def test_names_no_path(self, content):
        assert not re.search(r"/(home|tmp|work|Users|root)/", content)

    def test_is_the_same_for_the_same_record(self, content, tmp_path):
        assert html_of(tmp_path, evaluation()) == content

    def test_escapes_what_a_record_says(self, tmp_path):
        evil = "<script>alert('x')</script>"
        record = replace(
            evaluation(methods=(point(not_run={evil: evil}, told=evil), bare(evil))),
            dataset=evil,
            bundle=evil,
            command=evil,
        )
        content = html_of(tmp_path, record)
        assert evil not in content
        assert "&lt;script&gt;" in content

    def test_holds_the_pictures_of_the_folder(self, tmp_path):
        folder = write_record(tmp_path, evaluation(methods=(bare("standard 0.7"),)))
        (folder / "pictures").mkdir()
        Image.new("L", (8, 4)).save(folder / "pictures" / "redrawn-images.png")
        images = Page(write_report(folder).read_text()).images
        (picture,) = [each for each in images if "image/png" in (each.get("src") or "")]
        assert picture["alt"] == "redrawn images"


class TestHeadline:
    def test_is_the_worst_attacker_with_all_that_belongs_to_it(self, page):
        text = page.text
        headline = text[text.index("Headline: the worst") : text.index("Size of the run")]
        for words in (
            "AUC 0.660",
            "95 % interval 0.631 to 0.689; 239 patients",
            "30 patients, a small sample",
            "A3 Metric learning (made-up network)",
            "620 made-up images of 250 patients",
            "mean of 2: 0.650, 0.670",
            "0.610 [0.560, 0.660], an attacker who is told the labels",
            "1.000 same image, 0.900 follow-up",
        ):
            assert words in headline

    def test_says_what_the_run_left_out(self, page):
        text = page.text
        assert "Size of the run: quick" in text
        assert "Left out: A1 published retraining, A2 matched retraining, A4 frozen" in text
        assert "the weights of the encoder are not at hand" in text

    def test_distrusts_an_attacker_that_is_no_better_than_the_floor(self, tmp_path):
        weak = attack(Rung.FIXED, 0.40, 0.39, control=0.63)
        text = text_of(tmp_path, evaluation(methods=(point(attacks=(weak,)),)))
        assert "Too weak to certify anything" in text
        assert "This attacker is too weak to certify anything" in text
        assert "Same image AUC clearly below 0.5" in text

    def test_does_not_sell_an_auc_below_a_half(self):
        notes = list(attack_notes(attack(Rung.FIXED, 0.40, 0.45)))
        assert notes == [
            "same image AUC clearly below 0.5: to be explained, not better than guessing"
        ]

    def test_claims_a_reduction_only_if_there_is_one(self):
        claim = "reduces measured linkage risk under the attacks listed (same image and follow-up)"
        same = with_point(attacks=(attack(Rung.METRIC_LEARNING, 0.99, 0.90),))
        assert claim in " ".join(plain_words(evaluation()))
        assert "No reduction of linkage risk was shown." in " ".join(plain_words(same))
        assert "reduces" not in " ".join(plain_words(same))


class TestHoles:
    def test_nothing_but_an_operating_point(self, tmp_path):
        record = evaluation(
            methods=(bare("standard 0.7"),),
            originals=bare("originals"),
            floors={},
            memorization=None,
            roles={},
        )
        page = Page(html_of(tmp_path, record))
        assert page.text.count("Not measured") >= 5
        assert "No attacker was run against the operating point." in page.text
        assert "no such attacker was run" in page.text
        assert "there is nothing to draw" in page.text
        assert [name for name in page.ids if name != "caption"] == list(SECTIONS)

    def test_no_operating_point(self, tmp_path):
        text = text_of(tmp_path, evaluation(operating_point="another"))
        assert "The operating point of the bundle was not measured." in text

    def test_figures_that_are_not_numbers(self, tmp_path):
        nan = float("nan")
        figures = replace(
            linkage(0.6, Linkage.SAME_IMAGE),
            auc=UNKNOWN,
            folded_auc=UNKNOWN,
            equal_error_rate=UNKNOWN,
            folded_auc_of_strangers=nan,
            auc_by_negatives={},
            retrieval=(),
            roc=None,
        )
        unknown = replace(
            attack(Rung.FIXED, 0.6, 0.6),
            linkage=dict.fromkeys(Linkage, figures),
            on_originals=dict.fromkeys(Linkage, nan),
            seeds=(dict.fromkeys(Linkage, nan),),
        )
        lost = replace(
            utility(0.7),
            macro=UNKNOWN,
            difference=UNKNOWN,
            calibration_error=nan,
            trained_on_copies=None,
            trained_on_originals=None,
            trained_difference=None,
            findings=tuple(replace(f, lost=UNKNOWN, copies=UNKNOWN) for f in utility(0.7).findings),
        )
        record = with_point(attacks=(unknown,), utility=lost)
        record = replace(record, floors={kind: {"labels": UNKNOWN} for kind in Linkage})
        page = Page(html_of(tmp_path, record))

        assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)
        assert "No curves were kept." in page.text
        assert goals_of(record)["The findings stay"].verdict is Verdict.NOT_MEASURED


class TestGoals:
    def test_point_value_and_interval_within(self):
        strong = attack(Rung.METRIC_LEARNING, 0.55, 0.50)
        record = with_point(attacks=(strong,), utility=utility(0.745))
        goals = goals_of(record)
        assert goals["An image cannot be linked to its own original"].verdict is Verdict.MET
        assert goals["The findings stay"].verdict is Verdict.MET

    def test_interval_that_reaches_beyond_leaves_a_goal_open(self):
        close = attack(Rung.METRIC_LEARNING, 0.59, 0.64)
        goals = goals_of(with_point(attacks=(close,)))
        goal = goals["An image cannot be linked to its own original"]
        assert goal.verdict is Verdict.OPEN
        assert "reaches beyond" in goal.remark

    def test_point_value_beyond_is_not_met_though_the_interval_reaches_the_goal(self):
        goals = goals_of(with_point(attacks=(attack(Rung.METRIC_LEARNING, 0.61, 0.7),)))
        goal = goals["An image cannot be linked to its own original"]
        assert goal.verdict is Verdict.NOT_MET
        reaches, of_labels = goal.remark.split("; ")
        assert reaches == "its interval reaches the goal"
        assert of_labels == "who is told the labels and sees no image has 0.930 [0.910, 0.950]"

    @pytest.mark.parametrize(
        ("rung", "control", "verdict"),
        [
            (Rung.FIXED, 0.90, Verdict.OPEN),  # learned from originals alone
            (Rung.METRIC_LEARNING, 0.66, Verdict.OPEN),  # would know nobody on originals
            (Rung.METRIC_LEARNING, 0.90, Verdict.MET),
        ],
    )
    def test_a_goal_is_met_only_if_an_attacker_learned_from_copies(self, rung, control, verdict):
        goals = goals_of(with_point(attacks=(attack(rung, 0.52, 0.50, control),)))
        goal = goals["An image cannot be linked to its own original"]
        assert goal.verdict is verdict
        assert ("certifies nothing" in goal.remark) is (verdict is Verdict.OPEN)

    def test_an_attacker_that_learned_nothing_stands_for_no_goal(self):
        strong = attack(Rung.METRIC_LEARNING, 0.52, 0.50)
        idle = replace(strong.training, beyond_fixed=near(0.0, 0.02))
        goals = goals_of(with_point(attacks=(replace(strong, training=idle),)))
        assert goals["An image cannot be linked to its own original"].verdict is Verdict.OPEN
        assert "learned nothing beyond the fixed verifier on its selection patients" in list(
            attack_notes(replace(strong, training=idle))
        )

    def test_a_goal_that_a_cohort_cannot_show_tells_why(self):
        poor = evaluation(not_measurable={"follow-up linkage": "nobody has two images"})
        alone = replace(
            attack(Rung.METRIC_LEARNING, 0.52, 0.5),
            linkage={Linkage.SAME_IMAGE: linkage(0.52, Linkage.SAME_IMAGE)},
            above_floor=UNKNOWN,
        )
        goals = judge(replace(poor, methods=(point(attacks=(alone,)),)))
        reasons = [goal.remark for goal in goals if goal.verdict is Verdict.NOT_MEASURED]
        assert reasons.count("nobody has two images") == 3

    @pytest.mark.parametrize(
        ("above", "verdict"),
        [
            (near(0.00, 0.04), Verdict.MET),
            (near(0.03, 0.06), Verdict.OPEN),  # the floor is uncertain too
            (near(0.06, 0.06), Verdict.NOT_MET),
            (UNKNOWN, Verdict.NOT_MEASURED),
        ],
    )
    def test_follow_up_is_judged_by_its_distance_to_the_floor(self, above, verdict):
        strong = replace(attack(Rung.METRIC_LEARNING, 0.6, 0.64), above_floor=above)
        goal = goals_of(with_point(attacks=(strong,)))[
            "Another image of the person tells hardly more than the labels"
        ]
        assert goal.verdict is verdict
        assert goal.limit == "at most 0.05"

    def test_searches_are_judged_by_chance(self):
        goal = goals_of(evaluation())["A search rarely finds its own original first"]
        assert goal.limit == "at most 0.0097, 3 times chance"
        assert goal.remark.startswith("A3 among 309 originals")

    def test_a_met_goal_names_the_attacker_that_it_rests_on(self):
        able = attack(Rung.METRIC_LEARNING, 0.52, 0.50, 0.90)
        goal = goals_of(with_point(attacks=(able,)))[
            "An image cannot be linked to its own original"
        ]
        bound = able.control_above_floor.low
        assert goal.remark.endswith(
            "certified by 1 of 1 attackers; the clearest, A3 "
            f"{able.name}, beats the floor on originals by at least {bound:.3f}"
        )

    @pytest.mark.parametrize(
        ("sex", "of_originals", "verdict"),
        [
            (near(0.70, 0.03), near(0.90, 0.03), Verdict.NOT_MET),
            (near(0.55, 0.03), near(0.90, 0.03), Verdict.MET),
            (near(0.63, 0.04), near(0.90, 0.03), Verdict.OPEN),
            (near(0.55, 0.03), near(0.66, 0.03), Verdict.OPEN),  # reads no originals either
            (near(0.10, 0.03), near(0.90, 0.03), Verdict.NOT_MET),  # upside down
            (UNKNOWN, near(0.90, 0.03), Verdict.NOT_MEASURED),
        ],
    )
    def test_sex(self, sex, of_originals, verdict):
        attributes = replace(point().attributes, sex_auc=sex, sex_auc_of_originals=of_originals)
        goal = goals_of(with_point(attributes=attributes))["Sex is hard to read"]
        assert goal.verdict is verdict
        assert ("off originals with" in goal.remark) is (verdict is not Verdict.NOT_MEASURED)
        assert ("too little to certify" in goal.remark) is (of_originals.low < 0.65)

    def test_no_method_is_said_to_be_better_only_if_all_were_compared(self):
        record = evaluation(methods=(point(), method("blur 4", "blur", "4", 0.9, 0.9, 0.5)))
        left_out = {
            "blur 8": "not reached in the time that was given",
            "noise 1": "not part of a run of size default",
            "fast 1": "makes the same copies as standard 1",
        }
        goal = judge(replace(record, methods_not_run=left_out))[-1]
        assert judge(replace(record, methods_not_run={}))[-1].verdict is Verdict.MET
        assert goal.verdict is Verdict.OPEN
        assert goal.remark == "2 other methods or settings were not measured"

    @pytest.mark.parametrize(
        ("same", "macro", "verdict"),
        [
            (0.50, 0.80, Verdict.NOT_MET),  # better in both
            (0.90, 0.80, Verdict.MET),  # clearly links more
            (0.50, 0.50, Verdict.MET),  # clearly keeps less
            (0.67, 0.69, Verdict.OPEN),  # a little worse in both
        ],
    )
    def test_another_family_that_is_better_in_both_directions(self, same, macro, verdict):
        other = method("blur 4", "blur", "4", same, 0.9, macro)
        goal = next(
            goal
            for goal in judge(evaluation(methods=(point(), other), methods_not_run={}))
            if goal.goal.endswith("same-image linkage")
        )
        assert goal.verdict is verdict

    @pytest.mark.parametrize(
        ("same", "macro", "verdict"),
        [
            (0.50, 0.80, Verdict.OPEN),  # better, unless a further attacker links it
            (0.90, 0.80, Verdict.MET),  # links more already
        ],
    )
    def test_a_method_that_fewer_attackers_met_is_not_called_better(
        self, tmp_path, same, macro, verdict
    ):
        spared = method(
            "blur 4", "blur", "4", same, 0.9, macro, attacks=(attack(Rung.FIXED, same, 0.9),)
        )
        record = evaluation(methods=(point(), spared), methods_not_run={})
        goal = next(goal for goal in judge(record) if goal.goal.endswith("same-image linkage"))
        assert goal.verdict is verdict
        assert ("fewer attackers" in goal.remark) is (verdict is Verdict.OPEN)
        assert "at least" in text_of(tmp_path, record)

    def test_methods_that_are_told_something_do_not_count_as_better(self):
        told = method("told", "told", "1", 0.5, 0.5, 0.8, told="report")
        goals = judge(evaluation(methods=(point(), told)))
        assert goals[-1].verdict is Verdict.NOT_MEASURED


class TestJudgement:
    def test_labels_carry_the_utility(self, tmp_path):
        control = method("labels to image", "vanilla", "1", 0.5, 0.5, 0.69)
        record = evaluation(methods=(point(), control))
        assert labels_carry_the_utility(record) is control
        assert text_of(tmp_path, record).count("The labels carry the utility.") == 2

    def test_control_that_loses_findings_says_nothing(self, page):
        assert labels_carry_the_utility(evaluation()) is None
        assert "The labels carry the utility." not in page.text

    def test_what_was_not_run_is_listed_once_with_its_methods(self):
        rows = {part: left_out for left_out in not_run(evaluation()) for part in left_out.parts}
        assert len(rows["A4"].methods) == len(evaluation().methods)
        assert rows["A4"].reason == "the weights of the encoder are not at hand"
        assert "standard 0.7" not in rows["quality"].methods
        assert "A6" not in rows  # the floors are there

    def test_parts_that_the_same_methods_lack_for_one_reason_stand_together(self):
        late = replace(point(), not_run={"A5": "too late", "A7": "too late", "A8": "too dear"})
        rows = not_run(evaluation(methods=(late,)))
        assert LeftOut(("A5", "A7"), "too late", (late.method,)) in rows
        assert LeftOut(("A8",), "too dear", (late.method,)) in rows

    def test_every_method_tells_how_often_a_search_finds_the_person(self, tmp_path):
        text = text_of(tmp_path, evaluation(methods=(point(),)))
        attacked = [each for each in (evaluation().originals, point()) if each.attacks]
        assert text.count(" times chance, A") == len(attacked) > 0

    def test_control_has_to_lie_above_the_floor_with_its_whole_interval(self):
        fixed = attack(Rung.FIXED, 0.6, 0.6)
        assert doubt(replace(fixed, control_above_floor=near(0.04, 0.03))) == ""
        assert "too weak" in doubt(replace(fixed, control_above_floor=near(0.04, 0.05)))
        assert "no floor" in doubt(replace(fixed, control_above_floor=UNKNOWN))
        assert doubt(attack(Rung.METADATA, 0.6, 0.6, control=0.1)) == ""

    def test_methods_that_a_size_leaves_out_are_named_with_the_reason(self, page):
        reason = "not part of a run of size quick"
        assert LeftOut(("methods",), reason, ("k-same 5",)) in not_run(evaluation())
        assert "1 method to compare with left out" in page.text

    def test_worst_attacker_is_no_metadata_and_no_unknown(self):
        unknown = replace(
            attack(Rung.SHAPE, 0.9, 0.9),
            linkage={Linkage.SAME_IMAGE: replace(linkage(0.9, Linkage.SAME_IMAGE), auc=UNKNOWN)},
        )
        attacks = (unknown, attack(Rung.METADATA, 0.95, 0.95), attack(Rung.FIXED, 0.6, 0.7))
        worst = point(attacks=attacks).worst(Linkage.SAME_IMAGE)
        assert worst is not None and worst.rung is Rung.FIXED


def test_a_bundle_quotes_the_worst_attackers_and_all_verdicts() -> None:
    whole = evaluation()

    found = quoted(whole)

    worst = whole.methods[0].worst(Linkage.SAME_IMAGE)
    assert worst is not None and found.same_image is not None and found.follow_up is not None
    assert found.same_image.linkage_auc == round(worst.linkage[Linkage.SAME_IMAGE].auc.value, 3)
    assert found.same_image.attacker.startswith(worst.rung.value)
    assert found.findings_lost is not None
    lost, low, high = found.findings_lost
    assert low <= lost <= high and lost == pytest.approx(0.74 - 0.70)
    assert found.goals == {goal.goal: goal.verdict.value for goal in judge(whole)}
    assert found.method == "standard 0.7" and found.patients == 239


def test_an_evaluation_without_the_operating_point_is_not_quoted() -> None:
    with pytest.raises(BundleError, match="lacks its operating point"):
        quoted(evaluation(operating_point="something else"))


def test_the_motivated_intruder_is_the_worst_who_owns_the_tool(tmp_path: Path) -> None:
    attacks = (
        attack(Rung.FIXED, 0.9, 0.9),
        attack(Rung.METRIC_LEARNING, 0.61, 0.60),
        attack(Rung.STARTING_POINTS, 0.81, 0.55),
    )
    write_record(tmp_path, evaluation(methods=(point(attacks=attacks),)))

    row = write_report(tmp_path).read_text().split("Motivated intruder")[1].split("</tr>")[0]

    assert "0.810" in row and "A13" in row and "0.600" in row and "A3" in row
    assert "0.900" not in row


def test_methods_that_were_not_run_are_named_where_one_was(tmp_path: Path) -> None:
    alone = evaluation(methods=(point(),), methods_not_run={"blur 16": "not reached"})
    write_record(tmp_path, alone)

    assert "blur 16" in write_report(tmp_path).read_text()
