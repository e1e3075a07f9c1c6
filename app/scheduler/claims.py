"""Claims: waiting executions that nobody has become attempts of a node, within every limit.

Limits (concurrency keys, executions that want their task for themselves, rate limits, circuits) are decided in the
one transaction that also starts the attempts, and claims are one after the other: no two nodes can take the last
place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    Connection,
    Exists,
    Select,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from app.core.clock import Clock
from app.models.task_execution import (
    ACTIVE_STATES,
    WAITING_STATES,
    Execution,
    ExecutionState,
    beside_id,
    is_running,
    is_suspended,
    state_in,
)
from app.scheduler.attempts import insert_starts
from app.scheduler.executions import executions, is_buried
from app.scheduler.family import wake_parents
from app.scheduler.gate import NO_RULES, FlowRules, Gate, started_reason
from app.scheduler.pace import BACKFILL
from app.scheduler.policies import turns
from app.scheduler.states import Move, moved

_AT_A_GLANCE = 64
"""Candidates a claim looks at together where some of them may be put off."""
_CLAIM_LOCK = 0x434F4E54
"""Key of the advisory lock that makes claims one after the other on PostgreSQL ("CONT")."""


@dataclass(frozen=True, slots=True)
class Types:
    """Some executor types: these, or all but these."""

    names: frozenset[str]
    but: bool = False

    def condition(self) -> ColumnElement[bool]:
        if self.but:
            return executions.c.task_type.not_in(self.names) if self.names else true()
        return executions.c.task_type.in_(self.names)


ANY_TYPE = Types(frozenset(), but=True)


def claim(
    connection: Connection,
    *,
    node: str,
    now: datetime,
    limit: int,
    only: Sequence[int] | None = None,
    types: Types = ANY_TYPE,
    clock: Clock | None = None,
    gate: Gate | None = None,
    priority_step_seconds: float = 0,
) -> list[Execution]:
    """Take up to `limit` waiting executions for `node` and start an attempt of each, in the order of `turns`;
    returned as they are then: running, their `attempt` the one that starts.

    Concurrency keys, exclusive executions, rate limits and circuits are decided here, in the one transaction that
    also starts them; claims are one after the other (SQLite's write lock, an advisory lock on PostgreSQL), so no
    two nodes can take the last place of a key or the last token of a bucket. `only` restricts the claim to these
    ids, `types` to these executors. A node declared dead gets nothing. An attempt starts when `clock` says (None:
    at `now`) once its place was seen to be free: who left the place has ended before. `gate` knows the rules of
    the executors (None: they have none); where it `is_tired`, there is more to claim.
    """
    lock_claims(connection)
    if is_buried(connection, node):
        return []
    gate = gate or Gate(connection, NO_RULES, now)
    taken: list[Execution] = []
    while len(taken) < limit and not gate.is_tired:
        room = limit - len(taken)
        wanted = max(room, _AT_A_GLANCE) if gate.rules.types else room
        found = in_turn(connection, now, wanted, priority_step_seconds, only, types)
        unwanted = [execution for execution in found if execution.cancel_requested_at is not None]
        ended = _end_unwanted(connection, unwanted, now)
        candidates = [execution for execution in found if execution.cancel_requested_at is None]
        accepted = _within_limits(connection, candidates, gate, room)
        started_at = clock.now() if clock is not None else now
        taken += _start_claimed(connection, accepted, node, started_at)
        put_off = gate.settle(started_at)
        is_all = len(found) < wanted and len(accepted) + ended == len(found)
        if is_all or not (accepted or ended or put_off):
            break
    return taken


def lock_claims(connection: Connection) -> None:
    """Wait until no other transaction claims (SQLite's write lock has done so); held to the end of this one."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CLAIM_LOCK})


def _claimable() -> ColumnElement[bool]:
    return and_(executions.c.owner.is_(None), state_in(executions.c.state, WAITING_STATES))


def unlimited(now: ColumnElement[datetime]) -> ColumnElement[bool]:
    """Whether an execution, found by its id, may start at `now` whatever else runs, if its executor has no rules:
    no two nodes can fight over more than its row, so it may be claimed without the lock."""
    return and_(
        executions.c.owner.is_(None),
        state_in(beside_id(executions.c.state), WAITING_STATES),
        executions.c.run_at <= now,
        executions.c.concurrency_key.is_(None),
        executions.c.exclusive.is_(False),
        executions.c.cancel_requested_at.is_(None),
        executions.c.rate_limit.is_(None),
        executions.c.waits_for.is_(None),
    )


def waiting() -> Select[Any]:
    """SELECT of the executions that nobody has and that are not over, whenever they are due."""
    return select(executions).where(_claimable())


def free_places() -> ColumnElement[int]:
    """How many more executions may run under an execution's concurrency key."""
    other = executions.alias("other")
    running = (
        select(func.count())
        .select_from(other)
        .where(other.c.concurrency_key == executions.c.concurrency_key, is_running(other.c.state))
        .scalar_subquery()
    )
    return func.coalesce(executions.c.concurrency_limit, 1) - running


def _is_free() -> ColumnElement[bool]:
    """Whether no key and no other of its task holds an execution up."""
    other = executions.alias("other")
    makes_up, other_makes_up = executions.c.trigger == BACKFILL, other.c.trigger == BACKFILL

    def of_its_task(*conditions: ColumnElement[bool]) -> Exists:
        # SQLite looks up the state that is named first: all that waits of a task may be ten thousand.
        is_active = state_in(other.c.state, ACTIVE_STATES)
        same_task = other.c.task_id == executions.c.task_id
        return select(other.c.id).where(same_task, *conditions, is_active).exists()

    runs = of_its_task(is_running(other.c.state))
    # Who is suspended has had its turn and is not over; it gives way to who runs, but to none that is suspended
    # too, and one of a backfill holds nobody else up.
    is_left_off = of_its_task(is_suspended(other.c.state), or_(makes_up, ~other_makes_up))
    # A backfill goes on, the oldest first, while its task has nothing else to do. Only its first one is to look
    # for everything else, which goes through all that waits of the task.
    is_pending = state_in(executions.c.state, [ExecutionState.PENDING])
    is_older = of_its_task(
        state_in(other.c.state, [ExecutionState.PENDING]),
        other_makes_up,
        other.c.id + literal_column("0") < executions.c.id,  # by its task, not by its id
    )
    is_of_today = of_its_task(~other_makes_up)
    has_its_turn = and_(
        ~runs,
        or_(is_suspended(executions.c.state), ~is_left_off),
        or_(~makes_up, and_(or_(~is_pending, ~is_older), ~is_of_today)),
    )
    return and_(
        or_(executions.c.concurrency_key.is_(None), free_places() > 0),
        or_(executions.c.exclusive.is_(False), has_its_turn),
    )


# Made once: an alias of thirty columns costs more than the query it is for.
_IS_FREE = _is_free()


def ready(now: datetime) -> Select[Any]:
    """SELECT of the executions that may start at `now`: nobody's, due, and held up by no key and no other of
    their task."""
    return select(executions).where(_claimable(), executions.c.run_at <= now, _IS_FREE)


def _levels() -> Select[Any]:
    """SELECT of each priority at which something is due at `now`, the highest first, and since when: a walk down
    the index, a seek or two a step."""
    claimable = _claimable()
    highest = select(func.max(executions.c.priority).label("priority")).where(claimable)
    level = highest.cte("level", recursive=True)
    below = select(func.max(executions.c.priority)).where(claimable, executions.c.priority < level.c.priority)
    level = level.union_all(select(below.scalar_subquery()).where(level.c.priority.is_not(None)))
    oldest = select(func.min(executions.c.run_at)).where(claimable, executions.c.priority == level.c.priority)
    return select(level.c.priority, oldest.scalar_subquery().label("oldest")).where(level.c.priority.is_not(None))


_LEVELS = _levels()


def in_turn(
    connection: Connection,
    now: datetime,
    limit: int,
    priority_step_seconds: float,
    only: Sequence[int] | None = None,
    types: Types = ANY_TYPE,
) -> list[Execution]:
    """The first `limit` executions that may start at `now`, in turn (see `turns`), their rows locked.

    Of each priority those that are due longest come first, so only the heads of the priorities are compared, and
    of a priority whose oldest comes after everything found nothing is read. What a bucket or circuit has put off
    is due since it was put off first, not since it tries again: these are looked at by themselves.
    """
    turn_of = turns(priority_step_seconds)
    heads = [row for row in connection.execute(_LEVELS) if row.oldest <= now]
    if not heads:
        return []
    heads.sort(key=lambda head: turn_of(head.priority, head.oldest))
    query = ready(now).where(types.condition())
    if only is not None:
        query = query.where(executions.c.id.in_(only))
    found: dict[int, Execution] = {}

    def look(part: Select[Any]) -> None:
        # Whoever holds a row now is cancelling it, or deleting its task: it is not for us.
        rows = connection.execute(part.limit(limit).with_for_update(of=executions, skip_locked=True))
        found.update((row.id, Execution.from_row(row)) for row in rows)

    def in_order() -> list[Execution]:
        return sorted(
            found.values(),
            key=lambda one: (turn_of(one.priority, one.due_at or one.run_at), one.run_at, one.id),
        )

    look(query.where(executions.c.waits_for.is_not(None)).order_by(executions.c.run_at, executions.c.id))
    for head in heads:
        if len(found) >= limit:
            last = in_order()[limit - 1]
            if turn_of(last.priority, last.due_at or last.run_at) < turn_of(head.priority, head.oldest):
                break
        look(
            query.where(executions.c.priority == head.priority).order_by(executions.c.run_at, executions.c.id),
        )
    return in_order()[:limit]


@dataclass(frozen=True, slots=True)
class ClaimNamed:
    """A claim of one execution, brought here by a job. Outcome: the execution, started, or None where it cannot
    start (now, or ever again). `rules` are those of the node's executors."""

    rank: ClassVar[int | None] = 5
    must_land: ClassVar[bool] = False
    execution_id: int
    node: str
    clock: Clock
    rules: FlowRules = NO_RULES

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[ClaimNamed]) -> Sequence[Execution | None]:
        node, clock, rules = writes[0].node, writes[0].clock, writes[0].rules
        now = clock.now()
        if is_buried(connection, node):
            return [None] * len(writes)
        wanted = {write.execution_id for write in writes}
        called_off = waiting().where(executions.c.id.in_(wanted), executions.c.cancel_requested_at.is_not(None))
        rows = connection.execute(called_off.with_for_update(of=executions, skip_locked=True))
        _end_unwanted(connection, [Execution.from_row(row) for row in rows], now)
        lock_claims(connection)
        now = clock.now()
        query = ready(now).where(executions.c.id.in_(wanted)).order_by(executions.c.run_at, executions.c.id)
        rows = connection.execute(query.with_for_update(of=executions, skip_locked=True))
        gate = Gate(connection, rules, now)
        candidates = [Execution.from_row(row) for row in rows]
        accepted = _within_limits(connection, candidates, gate, len(candidates))
        # Only now: who left the places they take has ended before.
        started_at = clock.now()
        started = _start_claimed(connection, accepted, node, started_at)
        gate.settle(started_at)
        claimed = {execution.id: execution for execution in started}
        # Two jobs may name one execution: the first has it.
        return [claimed.pop(write.execution_id, None) for write in writes]


def _end_unwanted(connection: Connection, unwanted: list[Execution], now: datetime) -> int:
    """Cancel what was asked to end while a node held it, and has come back to wait (a failure, a dead node).
    Returns how many were."""
    ended = 0
    if unwanted:
        ended = connection.execute(
            update(executions)
            .where(executions.c.id.in_([execution.id for execution in unwanted]))
            .values(state=moved(unwanted[0].state, Move.CANCEL).value, finished_at=now, reason=None)
        ).rowcount
        wake_parents(connection, [execution.parent_id for execution in unwanted], now)
    return ended


def _within_limits(connection: Connection, candidates: list[Execution], gate: Gate, room: int) -> list[Execution]:
    """Up to `room` candidates that may start together: those of one key or task also exclude each other, and the
    gate lets them through. It is asked last: it takes tokens."""
    gate.look_at(candidates)
    running: dict[str, int] = {}
    started: set[int | None] = set()
    accepted: list[Execution] = []
    for execution in candidates:
        if len(accepted) == room or gate.is_tired:
            break
        key = execution.concurrency_key
        if key is not None:
            if key not in running:
                running[key] = _running_under(connection, key)
            if running[key] >= (execution.concurrency_limit or 1):
                continue
        if execution.exclusive and execution.task_id is not None and execution.task_id in started:
            continue
        admitted = gate.admit(execution)
        if admitted is None:
            continue
        started.add(execution.task_id)
        if key is not None:
            running[key] += 1
        accepted.append(admitted)
    return accepted


def _running_under(connection: Connection, key: str) -> int:
    return (
        connection.scalar(
            select(func.count())
            .select_from(executions)
            .where(executions.c.concurrency_key == key, is_running(executions.c.state))
        )
        or 0
    )


def _start_claimed(connection: Connection, accepted: list[Execution], node: str, now: datetime) -> list[Execution]:
    if not accepted:
        return []
    started = [
        execution._replace(
            state=ExecutionState.RUNNING,
            attempt=execution.attempt + 1,
            owner=node,
            started_at=now,
            reason=started_reason(execution),
            waits_for=None,
            due_at=None,
        )
        for execution in accepted
    ]
    connection.execute(
        update(executions)
        .where(executions.c.id == bindparam("x_id"))
        .values(
            state=ExecutionState.RUNNING.value,
            attempt=bindparam("x_attempt"),
            owner=node,
            started_at=now,
            reason=bindparam("x_reason"),
            waits_for=None,
            due_at=None,
        ),
        [{"x_id": one.id, "x_attempt": one.attempt, "x_reason": one.reason} for one in started],
    )
    insert_starts(connection, started, node, now)
    return started
