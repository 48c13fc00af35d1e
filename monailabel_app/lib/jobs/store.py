"""The queue in a database: SQLite below STATE, or any that SQLAlchemy reaches.

Every change is one statement that names the states it may start from, so that of two processes that
want the same job one gets it and the other is told.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from monailabel_app.lib.errors import Conflict, NotFound
from monailabel_app.lib.jobs.job import Job, NewJob, encode_source
from monailabel_app.lib.jobs.states import (
    DECIDABLE,
    NEXT,
    WAITING,
    WITH_RESULT,
    JobState,
    Priority,
)
from monailabel_app.lib.settings import ServerSettings
from monailabel_app.lib.state_folder import StateFolder

BUSY_SECONDS = 30
"""How long one process waits for another one's write."""

METADATA = sa.MetaData()

JOBS = sa.Table(
    "jobs",
    METADATA,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(32), nullable=False, unique=True),
    sa.Column("state", sa.String(20), nullable=False, default=JobState.QUEUED.value),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("submitter", sa.String(200), nullable=False),
    sa.Column("image", sa.String(1000), nullable=False, default=""),
    sa.Column("batch", sa.String(100), nullable=False, default=""),
    sa.Column("idempotency_key", sa.String(200), nullable=False, default=""),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("started", sa.Float, nullable=False, default=0.0),
    sa.Column("finished", sa.Float, nullable=False, default=0.0),
    sa.Column("not_before", sa.Float, nullable=False, default=0.0),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("step", sa.Integer, nullable=False, default=0),
    sa.Column("steps", sa.Integer, nullable=False, default=0),
    sa.Column("model", sa.String(200), nullable=False, default=""),
    sa.Column("model_version", sa.String(50), nullable=False, default=""),
    sa.Column("model_sha256", sa.String(64), nullable=False, default=""),
    sa.Column("linkage_limit", sa.Float, nullable=True),
    sa.Column("output", sa.String(200), nullable=False, default=""),
    sa.Column("sha256", sa.String(64), nullable=False, default=""),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("figures", sa.JSON, nullable=True),
    sa.Column("claimed_by", sa.String(200), nullable=False, default=""),
    sa.Column("claimed_until", sa.Float, nullable=False, default=0.0),
    sa.Column("first_approver", sa.String(200), nullable=False, default=""),
    sa.Column("decided_by", sa.String(200), nullable=False, default=""),
    sa.Column("decided", sa.Float, nullable=False, default=0.0),
    sa.Column("comment", sa.Text, nullable=False, default=""),
    sa.Column("published", sa.Float, nullable=False, default=0.0),
    sa.Column("cleaned", sa.Float, nullable=False, default=0.0),
    sa.Index("by_turn", "state", "priority", "sequence"),
    sa.Index("by_end", "finished"),
    sa.Index(
        "once",
        "submitter",
        "idempotency_key",
        unique=True,
        sqlite_where=sa.text("idempotency_key != ''"),
        postgresql_where=sa.text("idempotency_key != ''"),
    ),
)


@dataclass(frozen=True)
class Page:
    """Part of a list.

    Attributes
    ----------
    jobs
        In order of arrival.
    next
        What to pass as `after` for the rest, or None at the end.
    """

    jobs: tuple[Job, ...]
    next: int | None


class JobStore:
    """The queue.

    Parameters
    ----------
    url
        Of the database, as SQLAlchemy writes it.
    """

    def __init__(self, url: str) -> None:
        arguments = {"timeout": BUSY_SECONDS} if url.startswith("sqlite") else {}
        self._engine = sa.create_engine(
            url,
            connect_args=arguments,
            pool_pre_ping=True,  # a database that was started again is no error of the next job
            hide_parameters=True,  # errors would quote sources
        )
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
        METADATA.create_all(self._engine)

    @classmethod
    def open(cls, settings: ServerSettings) -> JobStore:
        """Open the queue that the settings name."""
        folder = StateFolder(settings.state)
        return cls(settings.database or f"sqlite:///{folder.database}")

    @property
    def engine(self) -> sa.Engine:
        """The database, for tables beside the queue."""
        return self._engine

    def close(self) -> None:
        """Let the database go."""
        self._engine.dispose()

    def add(self, new: NewJob) -> tuple[Job, bool]:
        """Queue a job; return it, and whether it is new.

        A job of the same submitter with the same idempotency key is returned instead, whatever has
        become of it.
        """
        values = {
            "id": new.id or uuid.uuid4().hex,
            "priority": new.priority.value,
            "submitter": new.submitter,
            "image": new.image,
            "batch": new.batch,
            "idempotency_key": new.idempotency_key,
            "source": encode_source(new.source),
            "options": new.options.model_dump(mode="json"),
            "created": time.time(),
        }
        try:
            with self._engine.begin() as connection:
                row = connection.execute(sa.insert(JOBS).values(values).returning(JOBS)).one()
            return _job(row), True
        except IntegrityError:
            known = self.with_key(new.submitter, new.idempotency_key)
            if known is None:
                raise
            return known, False

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises
        ------
        NotFound
            If there is none of this id.
        """
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(JOBS).where(JOBS.c.id == job_id)).one_or_none()
        if row is None:
            raise unknown_job()
        return _job(row)

    def has(self, job_id: str) -> bool:
        """Tell whether there is a job."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(JOBS.c.sequence).where(JOBS.c.id == job_id))
            return found.one_or_none() is not None

    def with_key(self, submitter: str, idempotency_key: str) -> Job | None:
        """Return the job that a submitter queued under a key, or None; the empty key is none."""
        if not idempotency_key:
            return None
        mine = (JOBS.c.submitter == submitter) & (JOBS.c.idempotency_key == idempotency_key)
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(JOBS).where(mine)).one_or_none()
        return None if row is None else _job(row)

    def page(
        self,
        *,
        states: Collection[JobState] = (),
        submitter: str | None = None,
        batch: str | None = None,
        image: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> Page:
        """Return jobs in order of arrival; what is not given does not filter."""
        query = sa.select(JOBS).where(JOBS.c.sequence > after)
        if states:
            query = query.where(JOBS.c.state.in_([state.value for state in states]))
        for column, value in (
            (JOBS.c.submitter, submitter),
            (JOBS.c.batch, batch),
            (JOBS.c.image, image),
        ):
            if value is not None:
                query = query.where(column == value)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(JOBS.c.sequence).limit(limit + 1)).all()
        jobs = tuple(_job(row) for row in rows[:limit])
        return Page(jobs, jobs[-1].sequence if len(rows) > limit else None)

    def images(self) -> set[str]:
        """Return the ids of all images of the datastore that were ever queued."""
        query = sa.select(JOBS.c.image).where(JOBS.c.image != "").distinct()
        with self._engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def counts(self, submitter: str | None = None) -> dict[JobState, int]:
        """Return how many jobs are in every state, of all submitters or of one."""
        query = sa.select(JOBS.c.state, sa.func.count()).group_by(JOBS.c.state)
        if submitter is not None:
            query = query.where(JOBS.c.submitter == submitter)
        with self._engine.connect() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(query)}
        return {state: found.get(state.value, 0) for state in JobState}

    def positions(self, jobs: Collection[Job]) -> dict[str, int]:
        """Return the place in the queue of those that wait, by id; 1 is the next one."""
        waiting = [job.id for job in jobs if job.state is JobState.QUEUED]
        if not waiting:
            return {}
        turn = sa.func.row_number().over(order_by=(JOBS.c.priority, JOBS.c.sequence))
        queued = sa.select(JOBS.c.id, turn.label("place")).where(
            JOBS.c.state == JobState.QUEUED.value
        )
        places = queued.subquery()
        query = sa.select(places.c.id, places.c.place).where(places.c.id.in_(waiting))
        with self._engine.connect() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(query)}

    def take(self, lowest: Priority = Priority.BATCH) -> Job | None:
        """Begin the job whose turn it is, or return None; it is running afterwards.

        Parameters
        ----------
        lowest
            Jobs of a lower priority are left alone.
        """
        now = time.time()
        due = (
            (JOBS.c.state == JobState.QUEUED.value)
            & (JOBS.c.not_before <= now)
            & (JOBS.c.priority <= lowest.value)
        )
        turn = (
            sa.select(JOBS.c.sequence)
            .where(due)
            .order_by(JOBS.c.priority, JOBS.c.sequence)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        begin = (
            sa.update(JOBS)
            .where(JOBS.c.sequence == turn, due)
            .values(
                state=JobState.RUNNING.value,
                started=now,
                attempts=JOBS.c.attempts + 1,
                step=0,
                steps=0,
                reason="",
            )
            .returning(JOBS)
        )
        with self._engine.begin() as connection:
            row = connection.execute(begin).one_or_none()
        return None if row is None else _job(row)

    def set(self, job_id: str, where: Mapping[str, Any] | None = None, **values: Any) -> Job:
        """Change columns other than the state; `where` names what they must be now.

        Raises
        ------
        NotFound
            If there is no such job.
        Conflict
            If a column of `where` is something else by now.
        """
        return self._update(job_id, dict(where or {}), values)

    def move(
        self,
        job_id: str,
        to: JobState,
        *,
        start: Collection[JobState] = (),
        where: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> Job:
        """Bring a job to another state.

        Parameters
        ----------
        job_id
            Of the job.
        to
            The new state.
        start
            States that it may be in; empty: all that `states.NEXT` allows.
        where
            What other columns must be now.
        values
            Columns that change with it.

        Raises
        ------
        NotFound
            If there is no such job.
        Conflict
            If its state, or a column of `where`, does not allow it.
        """
        allowed = [
            state.value for state in JobState if to in NEXT[state] and (not start or state in start)
        ]
        return self._update(
            job_id, {**(where or {}), "state": allowed}, {**values, "state": to.value}
        )

    def claim(self, job_id: str, name: str, seconds: float) -> Job | None:
        """Claim a job for a reviewer, or renew their claim; None where that cannot be."""
        decidable = JOBS.c.state.in_([state.value for state in DECIDABLE])
        return self._claim((JOBS.c.id == job_id) & decidable, name, seconds)

    def claim_next(
        self, name: str, seconds: float, *, after: int = 0, two_person: bool = False
    ) -> Job | None:
        """Claim the oldest job that awaits review and no other reviewer has, their own first.

        None where there is none.

        Parameters
        ----------
        name
            Of the reviewer.
        seconds
            How long the claim holds.
        after
            Sequence of the job after which to look.
        two_person
            Whether to pass over what this reviewer cannot bring further: what they queued
            themselves or approved already.
        """
        waiting = JOBS.c.state == JobState.AWAITING_REVIEW.value
        wanted = waiting & (JOBS.c.sequence > after)
        if two_person:
            wanted &= (JOBS.c.submitter != name) & (JOBS.c.first_approver != name)
        turn = (
            sa.select(JOBS.c.sequence)
            .where(wanted & _free_for(name))
            .order_by(sa.case((JOBS.c.claimed_by == name, 0), else_=1), JOBS.c.sequence)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        return self._claim((JOBS.c.sequence == turn) & wanted, name, seconds)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that the machine has still to do with; its dispatcher finds out by itself.

        Raises
        ------
        NotFound
            If there is no such job.
        Conflict
            If it has ended.
        """
        return self.move(job_id, JobState.CANCELLED, start=WAITING, finished=time.time())

    def begin_again(self, job_id: str) -> Job:
        """Count one more attempt of a running job, whose worker died.

        Raises
        ------
        Conflict
            If it runs no longer.
        """
        again = {"attempts": JOBS.c.attempts + 1, "step": 0, "steps": 0}
        return self._update(job_id, {"state": JobState.RUNNING.value}, again)

    def still_running(self, job_ids: Collection[str]) -> Set[str]:
        """Return which of some jobs are running; the others were cancelled meanwhile."""
        running = (JOBS.c.state == JobState.RUNNING.value) & JOBS.c.id.in_(list(job_ids))
        with self._engine.connect() as connection:
            return frozenset(connection.execute(sa.select(JOBS.c.id).where(running)).scalars())

    def report_steps(self, steps: Mapping[str, tuple[int, int]]) -> None:
        """Write (steps done, steps in all) of running jobs, by id, in one transaction."""
        change = sa.update(JOBS).where(
            JOBS.c.id == sa.bindparam("of"), JOBS.c.state == JobState.RUNNING.value
        )
        change = change.values(step=sa.bindparam("done"), steps=sa.bindparam("in_all"))
        rows = [{"of": of, "done": done, "in_all": in_all} for of, (done, in_all) in steps.items()]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(change, rows)

    def recover(self) -> int:
        """Queue again what ran as its dispatcher died; return how many.

        Only the one dispatcher of a folder may call it, before it takes anything.
        """
        running = JOBS.c.state == JobState.RUNNING.value
        back = sa.update(JOBS).where(running).values(state=JobState.QUEUED.value, step=0, steps=0)
        with self._engine.begin() as connection:
            return connection.execute(back).rowcount

    def to_clean(
        self, states: Collection[JobState], before: float, *, after: int = 0, limit: int = 100
    ) -> list[Job]:
        """Return jobs of some states that were not touched since a time, nor cleaned after that.

        Parameters
        ----------
        states
            That end, or wait for nothing that needs the original.
        before
            The time.
        after
            Sequence of the job after which to look.
        limit
            How many at most.
        """
        old = sa.and_(
            JOBS.c.sequence > after,
            JOBS.c.state.in_([state.value for state in states]),
            (JOBS.c.cleaned == 0) | (JOBS.c.cleaned < JOBS.c.decided),
            JOBS.c.finished < before,
            JOBS.c.decided < before,
            JOBS.c.published < before,
        )
        query = sa.select(JOBS).where(old).order_by(JOBS.c.sequence).limit(limit)
        with self._engine.connect() as connection:
            return [_job(row) for row in connection.execute(query)]

    def seconds_per_job(self, last: int = 20) -> float | None:
        """Return how long the last results took on average, or None if there was none."""
        took = sa.select((JOBS.c.finished - JOBS.c.started).label("seconds"))
        with_result = [state.value for state in (*WITH_RESULT, JobState.HELD)]
        done = took.where(JOBS.c.finished > 0, JOBS.c.state.in_(with_result))
        recent = done.order_by(JOBS.c.finished.desc()).limit(last).subquery()
        with self._engine.connect() as connection:
            average = connection.execute(sa.select(sa.func.avg(recent.c.seconds))).scalar()
        return None if average is None else float(average)

    def _claim(self, wanted: sa.ColumnElement[bool], name: str, seconds: float) -> Job | None:
        change = (
            sa.update(JOBS)
            .where(wanted & _free_for(name))
            .values(claimed_by=name, claimed_until=time.time() + seconds)
            .returning(JOBS)
        )
        with self._engine.begin() as connection:
            row = connection.execute(change).one_or_none()
        return None if row is None else _job(row)

    def _update(self, job_id: str, where: Mapping[str, Any], values: Mapping[str, Any]) -> Job:
        change = sa.update(JOBS).where(JOBS.c.id == job_id)
        for name, value in where.items():
            column = JOBS.c[name]
            change = change.where(column.in_(value) if isinstance(value, list) else column == value)
        with self._engine.begin() as connection:
            row = connection.execute(change.values(**values).returning(JOBS)).one_or_none()
        if row is None:
            state = self.get(job_id).state.value
            raise Conflict(f"this job is {state}, which does not allow that", "read its state anew")
        return _job(row)


def _free_for(name: str) -> sa.ColumnElement[bool]:
    """Return the condition that no other reviewer works on a job."""
    return JOBS.c.claimed_by.in_(["", name]) | (JOBS.c.claimed_until <= time.time())


def _job(row: sa.Row[Any]) -> Job:
    values = dict(row._mapping)
    return Job(**{**values, "state": JobState(values["state"])})


def unknown_job() -> NotFound:
    """Return what is said of a job that is not there, or is another user's."""
    return NotFound("there is no such job", "list the jobs with GET /privdiff/v1/jobs")


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """Let readers read while one writes, and lose nothing that was committed."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
