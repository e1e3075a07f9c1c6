"""How executions went over the last hour, day or week: counts by time and state, and durations.

Durations come from a histogram with fixed bounds, so one pass over an index answers everything; quantiles are
interpolated inside a bucket of it, as Prometheus' `histogram_quantile` does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, Integer, String, case, cast, func, select
from sqlalchemy.orm import Session, sessionmaker

from app.models.task_execution import ExecutionState, TaskExecution

executions = TaskExecution.__table__

BOUNDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400),
)
"""Upper bounds of the histogram's buckets in seconds; what took longer is in one more."""
_RAN = (ExecutionState.SUCCESS, ExecutionState.FAILED)


class Period(StrEnum):
    """How far back to look."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"

    @property
    def length(self) -> timedelta:
        return {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}[self]

    @property
    def step(self) -> timedelta:
        """The width of one point of the series."""
        return timedelta(minutes=1) if self is Period.HOUR else timedelta(hours=1)


@dataclass(slots=True)
class Durations:
    """A histogram of seconds."""

    counts: Counter[int] = field(default_factory=Counter)
    longest: float = 0.0

    def add(self, bucket: int, count: int, longest: float) -> None:
        """Count `count` runs in a bucket, none of which took longer than `longest`."""
        self.counts[bucket] += count
        self.longest = max(self.longest, longest)

    def quantile(self, share: float) -> float | None:
        """The duration that this share of the runs did not exceed; None: nothing ran."""
        total = self.counts.total()
        if not total:
            return None
        rank, below = share * total, 0
        for bucket in sorted(self.counts):
            count = self.counts[bucket]
            if below + count >= rank:
                lower = BOUNDS[bucket - 1] if bucket else 0.0
                upper = min(BOUNDS[bucket], self.longest) if bucket < len(BOUNDS) else self.longest
                return float(lower + (upper - lower) * (rank - below) / count)
            below += count
        return self.longest


@dataclass(frozen=True, slots=True)
class Measured:
    """How long the runs of a task took."""

    runs: int
    mean_seconds: float
    durations: Durations


@dataclass(slots=True)
class Summary:
    """What happened in a period."""

    states: Counter[str] = field(default_factory=Counter)
    """How many executions ended in each state."""
    durations: Durations = field(default_factory=Durations)

    @property
    def success_rate(self) -> float | None:
        """Of what ran to an end, the share that succeeded; None: nothing did."""
        ran = sum(self.states[state.value] for state in _RAN)
        return self.states[ExecutionState.SUCCESS.value] / ran if ran else None


@dataclass(slots=True)
class Point:
    """One step of the series, from `at`."""

    at: datetime
    states: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Series:
    """A period as a whole and step by step, without gaps."""

    since: datetime
    summary: Summary
    points: list[Point]


class Statistics:
    """Reads through short Sessions of their own."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    def series(
        self, period: Period, now: datetime, *, task_id: int | None = None, task_type: str | None = None
    ) -> Series:
        """What ended in the period up to `now`."""
        first = _floor(now - period.length, period)
        steps = range(int((now - first) / period.step) + 1)
        points = {_label(at, period): Point(at) for at in (first + step * period.step for step in steps)}
        with self._sessions() as session:
            # Grouped by name: PostgreSQL takes an expression for the same only if its parameters are.
            step = _label_column(session, period).label("step")
            query = select(step, executions.c.state, *_HISTOGRAM)
            query = query.where(executions.c.finished_at >= first, executions.c.finished_at.is_not(None))
            if task_id is not None:
                query = query.where(executions.c.task_id == task_id)
            if task_type is not None:
                query = query.where(executions.c.task_type == task_type)
            rows = session.execute(query.group_by("step", executions.c.state, "bucket")).all()
        summary = Summary()
        for at, state, bucket, count, longest in rows:
            _add(summary, state, bucket, count, longest)
            if at in points:  # a clock that was ahead has written moments that are still to come
                points[at].states[state] += count
        return Series(first, summary, list(points.values()))

    def by_type(self, period: Period, now: datetime) -> dict[str, Summary]:
        """What ended in the period up to `now`, by executor type."""
        query = (
            select(executions.c.task_type, executions.c.state, *_HISTOGRAM)
            .where(executions.c.finished_at >= now - period.length, executions.c.finished_at.is_not(None))
            .group_by(executions.c.task_type, executions.c.state, "bucket")
        )
        found: dict[str, Summary] = defaultdict(Summary)
        with self._sessions() as session:
            for task_type, state, bucket, count, longest in session.execute(query):
                _add(found[task_type], state, bucket, count, longest)
        return dict(found)

    def by_task(self, period: Period, now: datetime) -> dict[int, Measured]:
        """How long what ended in the period up to `now` took, by stored task."""
        query = select(executions.c.task_id, *_HISTOGRAM, func.sum(executions.c.duration_seconds)).where(
            executions.c.finished_at >= now - period.length,
            executions.c.finished_at.is_not(None),
            executions.c.task_id.is_not(None),
            executions.c.duration_seconds.is_not(None),
            executions.c.state.in_([state.value for state in _RAN]),
        )
        counts: dict[int, Durations] = defaultdict(Durations)
        totals: Counter[int] = Counter()
        seconds: dict[int, float] = defaultdict(float)
        with self._sessions() as session:
            grouped = query.group_by(executions.c.task_id, "bucket")
            for task_id, bucket, count, longest, total in session.execute(grouped):
                counts[task_id].add(bucket, count, longest)
                totals[task_id] += count
                seconds[task_id] += total
        return {
            task_id: Measured(totals[task_id], seconds[task_id] / totals[task_id], durations)
            for task_id, durations in counts.items()
        }


def _add(summary: Summary, state: str, bucket: int | None, count: int, longest: float | None) -> None:
    summary.states[state] += count
    if state in _RAN and bucket is not None and longest is not None:
        summary.durations.add(bucket, count, longest)


def _bucket() -> ColumnElement[int]:
    """The number of the histogram's bucket; NULL: it never ran."""
    duration = executions.c.duration_seconds
    return case(
        (duration.is_(None), None), *[(duration <= bound, i) for i, bound in enumerate(BOUNDS)], else_=len(BOUNDS)
    ).cast(Integer)


_HISTOGRAM = (_bucket().label("bucket"), func.count(), func.max(executions.c.duration_seconds))
"""The columns of a query that counts runs by bucket."""


def _label_column(session: Session, period: Period) -> ColumnElement[str]:
    """`finished_at` down to the step, as `_label` writes it. SQLite's text is cut, PostgreSQL's moment written."""
    if session.get_bind().dialect.name == "sqlite":
        return func.substr(cast(executions.c.finished_at, String), 1, _WIDTHS[period])
    return func.to_char(func.timezone("UTC", executions.c.finished_at), _FORMS[period][0])


_FORMS = {
    Period.HOUR: ("YYYY-MM-DD HH24:MI", "%Y-%m-%d %H:%M"),
    Period.DAY: ("YYYY-MM-DD HH24", "%Y-%m-%d %H"),
    Period.WEEK: ("YYYY-MM-DD HH24", "%Y-%m-%d %H"),
}
"""How PostgreSQL and Python write a step."""
_WIDTHS = {
    Period.HOUR: len("2030-01-07 09:00"),
    Period.DAY: len("2030-01-07 09"),
    Period.WEEK: len("2030-01-07 09"),
}


def _label(at: datetime, period: Period) -> str:
    return at.strftime(_FORMS[period][1])


def _floor(at: datetime, period: Period) -> datetime:
    whole = at.replace(second=0, microsecond=0)
    return whole if period is Period.HOUR else whole.replace(minute=0)
