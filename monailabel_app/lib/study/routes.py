"""Routes of reader studies: administrators plan and evaluate, reviewers read."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from monailabel_app.lib.errors import BadRequest, NotFound
from monailabel_app.lib.jobs.states import WITH_RESULT
from monailabel_app.lib.review.pages import page_routes
from monailabel_app.lib.security.roles import Principal, Require, Role
from monailabel_app.lib.server import Server, server
from monailabel_app.lib.study.pictures import pair
from monailabel_app.lib.study.plan import (
    QUESTION,
    Answer,
    Plan,
    Showing,
    Side,
    reader_code,
    showings,
)
from monailabel_app.lib.study.statistics import Agreement, Rate, finding_statistics
from monailabel_app.lib.study.store import Given, StudyStore
from privdiff_infer.audit import Event
from privdiff_infer.release import is_released
from privdiff_infer.vocabulary import FINDINGS

api = APIRouter(prefix="/privdiff/v1/reader-studies", tags=["Reader studies"])

pages = page_routes(
    "/privdiff/reader-study", Path(__file__).resolve().parent / "static", "The page of readers"
)

MOST_ITEMS = 1000
EXAMPLE_ID = "0f" * 16

StudyId = Annotated[str, InPath(pattern="^[0-9a-f]{32}$", examples=[EXAMPLE_ID])]
Position = Annotated[
    int, InPath(ge=1, le=MOST_ITEMS, description="Place in the caller's own order, from 1.")
]
Id = Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]
Finding = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Reader = Annotated[Principal, Depends(Require(Role.REVIEWER))]
Planner = Annotated[Principal, Depends(Require(Role.ADMIN))]
At = Annotated[Server, Depends(server)]


def study_store(at: At) -> StudyStore:
    """Return the studies of a server; a dependency of routes."""
    return StudyStore(at.jobs.engine)


Studies = Annotated[StudyStore, Depends(study_store)]


class NewStudy(BaseModel):
    """What an administrator plans."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(min_length=1, max_length=200, examples=["Chest clinic, spring"])
    jobs: list[Id] = Field(
        min_length=1,
        max_length=MOST_ITEMS,
        description="Jobs with a result that passed the gates; each once.",
        examples=[[EXAMPLE_ID]],
    )
    findings: list[Finding] = Field(
        list(FINDINGS), min_length=1, max_length=50, examples=[["Effusion", "Pneumothorax"]]
    )
    question: str = Field(QUESTION, min_length=1, max_length=500)


class StudyView(BaseModel):
    """One study, as a reader sees it; nothing in it tells which picture is which."""

    id: str = Field(examples=[EXAMPLE_ID])
    title: str
    question: str
    findings: list[str]
    items: int = Field(description="Number of pairs.")
    created: str = Field(description="ISO 8601, UTC.")
    done: int = Field(description="Pairs that the caller has answered for every finding.")
    next: int | None = Field(description="The caller's first pair that is not; null at the end.")


class ItemView(BaseModel):
    """One pair of a reader."""

    position: int
    items: int
    answers: dict[str, Answer] = Field(
        description="What was saved, by finding.", examples=[{"Effusion": "adequate"}]
    )


class AnswerRequest(BaseModel):
    """An answer for one finding of one pair."""

    model_config = ConfigDict(extra="forbid")

    finding: Finding = Field(examples=["Effusion"])
    answer: Answer = Field(examples=["adequate"])


class RateView(BaseModel):
    """How often something was called adequate; see `statistics.Rate`."""

    adequate: int
    judged: int
    rate: float | None
    interval: tuple[float, float] | None = Field(description="Clopper-Pearson, 95 %.")
    inadequacy_bound: float | None = Field(description="One-sided upper 95 % bound of inadequacy.")

    @classmethod
    def of(cls, rate: Rate) -> RateView:
        """Show a rate."""
        return cls(**asdict(rate))


class AgreementView(BaseModel):
    """How far readers agree; see `statistics.Agreement`."""

    items: int
    agreement: float | None
    kappa: float | None = Field(description="null where it is not defined.")
    interval: tuple[float, float] | None = Field(description="Bootstrap over items, 95 %.")

    @classmethod
    def of(cls, found: Agreement) -> AgreementView:
        """Show an agreement."""
        return cls(**asdict(found))


class PairView(AgreementView):
    """Agreement of two readers."""

    readers: tuple[str, str] = Field(examples=[("R3f9a1c", "Rb20e77")])


class FindingView(BaseModel):
    """What is known of one finding."""

    finding: str
    not_assessable: int = Field(description="Answers that say so; they are in no rate.")
    by_reader: dict[str, RateView]
    unanimous: RateView = Field(description="Pairs that every reader called adequate.")
    pairs: list[PairView] = Field(description="Cohen's kappa of every two readers.")
    all_readers: AgreementView | None = Field(
        description="Of all: Cohen's kappa for two readers, Fleiss' for more; null for one."
    )


class StatisticsView(BaseModel):
    """What the answers say so far; readers have codes in the place of names."""

    readers: list[str] = Field(examples=[["R3f9a1c", "Rb20e77"]])
    items: int
    answers: int
    expected: int = Field(description="Answers when all these readers are done.")
    findings: list[FindingView]


@api.post("", status_code=201, summary="Plan a study")
def plan_study(new: NewStudy, who: Planner, at: At, studies: Studies) -> StudyView:
    """Plan a study over pairs of originals and redrawn images.

    Every reviewer can read it: each sees all pairs, in an order of their own. Jobs without a result
    that passed the gates are refused.
    """
    for name, values in (("jobs", new.jobs), ("findings", new.findings)):
        if len(set(values)) < len(values):
            raise BadRequest(f"{name} are named twice", "name each once")
    for job_id in new.jobs:
        job = at.jobs.get(job_id)
        if job.state not in WITH_RESULT or not is_released(job.output):
            raise BadRequest(
                f"job {job_id} has no result that passed the gates", "leave it out of the study"
            )
        pair(at.folder.job(job_id), job)
    return _view(studies, studies.add(new.title, new.question, new.jobs, new.findings), who)


@api.get("", summary="List the studies")
def list_studies(who: Reader, studies: Studies) -> list[StudyView]:
    """List all studies with what the caller has done of each."""
    return [_view(studies, plan, who) for plan in studies.plans()]


@api.get("/{study}", summary="Get a study")
def get_study(study: StudyId, who: Reader, studies: Studies) -> StudyView:
    """Return a study, with where the caller goes on."""
    return _view(studies, studies.plan(study), who)


@api.get("/{study}/items/{position}", summary="Get a pair")
def get_item(study: StudyId, position: Position, who: Reader, studies: Studies) -> ItemView:
    """Return what the caller has answered of a pair; its pictures have routes of their own."""
    plan = studies.plan(study)
    return _item_view(studies, plan, position, who)


@api.get(
    "/{study}/items/{position}/{side}",
    summary="Get a picture of a pair",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
)
def get_picture(
    study: StudyId, position: Position, side: Side, who: Reader, at: At, studies: Studies
) -> Response:
    """Return the left or the right picture as PNG. Which one is the original is not told."""
    plan = studies.plan(study)
    showing = _showing(plan, position, who)
    job = at.jobs.get(plan.jobs[showing.item])
    original, redrawn = pair(at.folder.job(job.id), job)
    at.audit.record(Event.ORIGINAL_SHOWN, job=job.id, by=who.name, study=plan.id)
    return Response(original if side is showing.original else redrawn, media_type="image/png")


@api.put("/{study}/items/{position}/answers", summary="Save an answer")
def save_answer(
    study: StudyId, position: Position, said: AnswerRequest, who: Reader, studies: Studies
) -> ItemView:
    """Save one answer in the place of an earlier one; return all of this pair."""
    plan = studies.plan(study)
    if said.finding not in plan.findings:
        raise NotFound("this study does not ask for that finding", "see the study's findings")
    item = _showing(plan, position, who).item
    studies.save(plan.id, Given(who.name, item, said.finding, said.answer))
    return _item_view(studies, plan, position, who)


@api.get(
    "/{study}/answers.csv",
    summary="Export the answers",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}},
)
def export_answers(study: StudyId, who: Planner, studies: Studies) -> Response:
    """Return all answers as CSV, without names of readers, jobs or images.

    Columns: reader (a code), item (place in the plan), position (in the reader's order), side
    of the original, finding, answer.
    """
    plan = studies.plan(study)
    return Response(_csv(plan, studies.answers(plan.id)), media_type="text/csv; charset=utf-8")


@api.get("/{study}/statistics", summary="Evaluate a study")
def evaluate(study: StudyId, who: Planner, studies: Studies) -> StatisticsView:
    """Return adequacy and agreement per finding with their intervals, of the answers so far."""
    plan = studies.plan(study)
    given = studies.answers(plan.id)
    codes = _reader_codes(plan, given)
    return StatisticsView(
        readers=sorted(codes.values()),
        items=len(plan.jobs),
        answers=len(given),
        expected=len(codes) * len(plan.jobs) * len(plan.findings),
        findings=[
            _finding_view(finding, [one for one in given if one.finding == finding], codes)
            for finding in plan.findings
        ],
    )


def _view(studies: StudyStore, plan: Plan, who: Principal) -> StudyView:
    answered: dict[int, int] = {}
    for given in studies.answers(plan.id, who.name):
        answered[given.item] = answered.get(given.item, 0) + 1
    order = showings(plan, who.name)
    open_positions = [
        position
        for position, showing in enumerate(order, 1)
        if answered.get(showing.item, 0) < len(plan.findings)
    ]
    return StudyView(
        id=plan.id,
        title=plan.title,
        question=plan.question,
        findings=list(plan.findings),
        items=len(order),
        created=datetime.fromtimestamp(plan.created, timezone.utc).isoformat(timespec="seconds"),
        done=len(order) - len(open_positions),
        next=open_positions[0] if open_positions else None,
    )


def _item_view(studies: StudyStore, plan: Plan, position: int, who: Principal) -> ItemView:
    item = _showing(plan, position, who).item
    answers = {
        given.finding: given.answer
        for given in studies.answers(plan.id, who.name)
        if given.item == item
    }
    return ItemView(position=position, items=len(plan.jobs), answers=answers)


def _showing(plan: Plan, position: int, who: Principal) -> Showing:
    if position > len(plan.jobs):
        raise NotFound(f"this study has {len(plan.jobs)} pairs", "name one of them")
    return showings(plan, who.name)[position - 1]


def _reader_codes(plan: Plan, given: Sequence[Given]) -> dict[str, str]:
    """Return what stands for each reader: always the same, and telling nothing of the name."""
    return {name: reader_code(plan, name) for name in {one.reader for one in given}}


def _finding_view(finding: str, given: Sequence[Given], codes: dict[str, str]) -> FindingView:
    ratings: dict[str, dict[int, bool]] = {code: {} for code in codes.values()}
    for one in given:
        if one.answer is not Answer.NOT_ASSESSABLE:
            ratings[codes[one.reader]][one.item] = one.answer is Answer.ADEQUATE
    found = finding_statistics(ratings)
    return FindingView(
        finding=finding,
        not_assessable=sum(one.answer is Answer.NOT_ASSESSABLE for one in given),
        by_reader={reader: RateView.of(rate) for reader, rate in found.by_reader.items()},
        unanimous=RateView.of(found.unanimous),
        pairs=[
            PairView(readers=readers, **asdict(agreement))
            for readers, agreement in found.pairs.items()
        ],
        all_readers=AgreementView.of(found.all_readers) if found.all_readers else None,
    )


def _csv(plan: Plan, given: Sequence[Given]) -> str:
    codes = _reader_codes(plan, given)
    places: dict[str, Any] = {
        name: {
            showing.item: (position, showing.original)
            for position, showing in enumerate(showings(plan, name), 1)
        }
        for name in codes
    }
    rows = sorted(
        (codes[one.reader], *places[one.reader][one.item], one.item + 1, one.finding, one.answer)
        for one in given
    )
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["reader", "position", "original", "item", "finding", "answer"])
    for reader, position, original, item, finding, answer in rows:
        writer.writerow([reader, position, original.value, item, finding, answer.value])
    return buffer.getvalue()


router = APIRouter()
"""All of these, and the page."""

router.include_router(api)
router.include_router(pages)
