"""How full the buckets are, how many places the keys have left, and which circuits are open: read from the
tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, case, func, select

from app.models.task_execution import ACTIVE_STATES, WAITING_STATES, is_running, state_in
from app.scheduler.breaker import Circuit, CircuitBreaker, Phase
from app.scheduler.buckets import buckets, limit_of
from app.scheduler.circuits import circuit_name, read_circuits
from app.scheduler.executions import executions
from app.scheduler.gate import FlowRules
from app.scheduler.rates import Bucket, next_start, tokens

SHOWN = 500
"""Buckets and keys that are told of, at most: the busiest."""


@dataclass(frozen=True, slots=True)
class RateStatus:
    """A bucket: how many may start now, and how many wait for it."""

    key: str
    limit: int
    per_seconds: float
    burst: int
    available: int
    next_at: datetime
    """When the next one may start: now, or later."""
    waiting: int
    used_at: datetime


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """A concurrency key: how many run under it and how many wait, whenever they are due."""

    key: str
    limit: int
    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class CircuitStatus:
    """The circuit of an executor."""

    task_type: str
    phase: Phase
    failures: int
    """Among the last `attempts`."""
    attempts: int
    since: datetime | None
    probe_at: datetime | None
    """When it tries again; None: it is closed."""
    waiting: int
    breaker: CircuitBreaker | None
    """Its rules; None: this process has no such executor, or it has no breaker any more."""


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """Everything that lets work through at a measure."""

    rate_limits: list[RateStatus]
    concurrency: list[KeyStatus]
    circuits: list[CircuitStatus]


def flow_status(connection: Connection, rules: FlowRules, now: datetime) -> FlowStatus:
    """The present level of every limit, busiest first."""
    waiting = _waiting(connection)
    return FlowStatus(_rates(connection, waiting, now), _keys(connection), _circuits(connection, rules, waiting))


def circuit_status(connection: Connection, rules: FlowRules) -> list[CircuitStatus]:
    """The circuits of these executors and of those that had one, by type."""
    return _circuits(connection, rules, _waiting(connection))


def _waiting(connection: Connection) -> dict[str, int]:
    query = (
        select(executions.c.waits_for, func.count())
        .where(
            executions.c.waits_for.is_not(None),
            executions.c.owner.is_(None),
            state_in(executions.c.state, WAITING_STATES),
        )
        .group_by(executions.c.waits_for)
    )
    return {name: count for name, count in connection.execute(query) if name is not None}


def _rates(connection: Connection, waiting: dict[str, int], now: datetime) -> list[RateStatus]:
    found = []
    for row in connection.execute(select(buckets).order_by(buckets.c.tat.desc()).limit(SHOWN)):
        limit, bucket = limit_of(row), Bucket(row.tat)
        found.append(
            RateStatus(
                key=row.key,
                limit=row.rate,
                per_seconds=row.per_seconds,
                burst=row.burst,
                available=tokens(bucket, limit, now),
                next_at=next_start(bucket, limit, now),
                waiting=waiting.get(row.key, 0),
                used_at=row.updated_at,
            )
        )
    return sorted(found, key=lambda status: (-status.waiting, status.key))


def _keys(connection: Connection) -> list[KeyStatus]:
    running = func.sum(case((is_running(executions.c.state), 1), else_=0))
    query = (
        select(
            executions.c.concurrency_key,
            func.max(func.coalesce(executions.c.concurrency_limit, 1)),
            running,
            func.count(),
        )
        .where(executions.c.concurrency_key.is_not(None), state_in(executions.c.state, ACTIVE_STATES))
        .group_by(executions.c.concurrency_key)
        .order_by(func.count().desc(), executions.c.concurrency_key)
        .limit(SHOWN)
    )
    return [
        KeyStatus(key, limit, int(busy), count - int(busy))
        for key, limit, busy, count in connection.execute(query)
    ]


def _circuits(connection: Connection, rules: FlowRules, waiting: dict[str, int]) -> list[CircuitStatus]:
    known = dict.fromkeys(rules.breakers, Circuit()) | read_circuits(connection)
    return [
        CircuitStatus(
            task_type=task_type,
            phase=circuit.phase,
            failures=circuit.outcomes.count("0"),
            attempts=len(circuit.outcomes),
            since=circuit.since,
            probe_at=circuit.probe_at,
            waiting=waiting.get(circuit_name(task_type), 0),
            breaker=rules.breakers.get(task_type),
        )
        for task_type, circuit in sorted(known.items())
    ]
