"""Plans and answers in tables beside the queue; each answer is saved as it is given."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from monailabel_app.lib.errors import NotFound
from monailabel_app.lib.study.plan import Answer, Plan

METADATA = sa.MetaData()

PLANS = sa.Table(
    "reader_studies",
    METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("jobs", sa.JSON, nullable=False),
    sa.Column("findings", sa.JSON, nullable=False),
    sa.Column("seed", sa.String(64), nullable=False),
    sa.Column("created", sa.Float, nullable=False),
)

ANSWERS = sa.Table(
    "reader_study_answers",
    METADATA,
    sa.Column("study", sa.String(32), primary_key=True),
    sa.Column("reader", sa.String(200), primary_key=True),
    sa.Column("item", sa.Integer, primary_key=True),
    sa.Column("finding", sa.String(100), primary_key=True),
    sa.Column("answer", sa.String(20), nullable=False),
    sa.Column("answered", sa.Float, nullable=False),
)


@dataclass(frozen=True)
class Given:
    """One answer.

    Attributes
    ----------
    reader
        Name of who gave it. Private.
    item
        Which pair of the plan, from 0.
    finding
        What was asked.
    answer
        What they say.
    """

    reader: str
    item: int
    finding: str
    answer: Answer


class StudyStore:
    """All reader studies of a server.

    Parameters
    ----------
    engine
        Of the database; the tables are created where they are missing.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        METADATA.create_all(engine)

    def add(self, title: str, question: str, jobs: Sequence[str], findings: Sequence[str]) -> Plan:
        """Keep a new study and return it."""
        plan = Plan(
            uuid.uuid4().hex,
            title,
            question,
            tuple(jobs),
            tuple(findings),
            secrets.token_hex(32),
            time.time(),
        )
        values = {**vars(plan), "jobs": list(plan.jobs), "findings": list(plan.findings)}
        with self._engine.begin() as connection:
            connection.execute(sa.insert(PLANS).values(values))
        return plan

    def plans(self) -> list[Plan]:
        """Return all studies, oldest first."""
        with self._engine.connect() as connection:
            return [_plan(row) for row in connection.execute(sa.select(PLANS).order_by("created"))]

    def plan(self, study: str) -> Plan:
        """Return a study.

        Raises
        ------
        NotFound
            If there is none of this id.
        """
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(PLANS).where(PLANS.c.id == study)).one_or_none()
        if row is None:
            raise NotFound(
                "there is no such reader study", "list them with GET /privdiff/v1/reader-studies"
            )
        return _plan(row)

    def save(self, study: str, given: Given) -> None:
        """Keep an answer in the place of an earlier one."""
        key = {"study": study, "reader": given.reader, "item": given.item}
        key["finding"] = given.finding
        same = sa.and_(*(ANSWERS.c[name] == value for name, value in key.items()))
        values = {**key, "answer": given.answer.value, "answered": time.time()}
        with self._engine.begin() as connection:
            connection.execute(sa.delete(ANSWERS).where(same))
            connection.execute(sa.insert(ANSWERS).values(values))

    def answers(self, study: str, reader: str | None = None) -> list[Given]:
        """Return the answers to a study, of one reader or of all."""
        query = sa.select(ANSWERS).where(ANSWERS.c.study == study)
        if reader is not None:
            query = query.where(ANSWERS.c.reader == reader)
        with self._engine.connect() as connection:
            return [
                Given(row.reader, row.item, row.finding, Answer(row.answer))
                for row in connection.execute(query)
            ]


def _plan(row: sa.Row[tuple[object, ...]]) -> Plan:
    values = dict(row._mapping)
    return Plan(**{**values, "jobs": tuple(values["jobs"]), "findings": tuple(values["findings"])})
