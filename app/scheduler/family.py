"""Parents and children, in SQL: who waits for whose end, and who ends with whom.

Nothing that ends may be missed. Whoever suspends an execution and whoever ends one of its children both lock the
parent's row before they look at what the other does, and hold it until they commit: so either the suspension
counts the child as ended, or the end finds the parent suspended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from sqlalchemy import Connection, Table, Text, bindparam, func, select, update
from sqlalchemy import cast as as_type

from app.models.task_execution import (
    FINAL_STATES,
    WAITING_STATES,
    Execution,
    ExecutionState,
    TaskExecution,
)

executions = cast("Table", TaskExecution.__table__)

PARENT_CANCELLED = "parent_cancelled"
_HELD_BY_NOBODY = (*WAITING_STATES, ExecutionState.PARKED)
_UNSUCCESSFUL = (ExecutionState.FAILED, ExecutionState.CANCELLED)
_IS_OVER = executions.c.state.in_([state.value for state in FINAL_STATES])
_CHUNK = 500


def lock_in_order(connection: Connection, ids: Iterable[int]) -> None:
    """Lock these executions until the transaction ends, always parents before their children (their ids are
    lower), so that two transactions that need the same rows never wait for each other."""
    if connection.dialect.name != "sqlite":
        query = select(executions.c.id).where(executions.c.id.in_(sorted(set(ids)))).order_by(executions.c.id)
        connection.execute(query.with_for_update()).all()


def wake_parents(connection: Connection, parent_ids: Iterable[int | None], now: datetime) -> list[Execution]:
    """Tell parents that a child has ended, one entry a child; returns those that are thereby due.

    To be called in the transaction that records the ends, after it has recorded them.
    """
    ended = Counter(parent_id for parent_id in parent_ids if parent_id is not None)
    if not ended:
        return []
    query = select(executions).where(executions.c.id.in_(ended)).order_by(executions.c.id).with_for_update()
    waiting = [
        execution
        for execution in map(Execution.from_row, connection.execute(query))
        if execution.state is ExecutionState.SUSPENDED and (execution.children_awaited or 0) > 0
    ]
    left = {execution.id: (execution.children_awaited or 0) - ended[execution.id] for execution in waiting}
    woken = [execution._replace(run_at=now) for execution in waiting if left[execution.id] <= 0]
    if left:
        connection.execute(
            update(executions)
            .where(executions.c.id == bindparam("x_id"))
            .values(children_awaited=bindparam("x_left")),
            [{"x_id": execution_id, "x_left": count} for execution_id, count in left.items()],
        )
    make_due(connection, [execution.id for execution in woken], now)
    return woken


def make_due(connection: Connection, execution_ids: Sequence[int], now: datetime) -> None:
    """Let suspended executions go on, unless they are due already."""
    if execution_ids:
        connection.execute(
            update(executions)
            .where(
                executions.c.id.in_(execution_ids),
                executions.c.state == ExecutionState.SUSPENDED.value,
                executions.c.run_at > now,
            )
            .values(run_at=now)
        )


def ended_children(connection: Connection, parent_ids: Sequence[int]) -> dict[int, int]:
    """How many children of each are over."""
    query = (
        select(executions.c.parent_id, func.count())
        .where(executions.c.parent_id.in_(parent_ids), _IS_OVER)
        .group_by(executions.c.parent_id)
    )
    return {parent_id: count for parent_id, count in connection.execute(query)}  # noqa: C416 - typed


def count_children(connection: Connection, parent_id: int) -> tuple[int, int]:
    """How many children it has, and how many of them are over."""
    query = select(func.count(), func.count().filter(_IS_OVER)).where(executions.c.parent_id == parent_id)
    spawned, ended = connection.execute(query).one()
    return spawned, ended


def states_of_children(connection: Connection, parent_id: int) -> dict[str, ExecutionState]:
    """The states of its children, by key."""
    query = select(executions.c.child_key, executions.c.state).where(executions.c.parent_id == parent_id)
    return {key: ExecutionState(state) for key, state in connection.execute(query) if key is not None}


def size_of_children(connection: Connection, parent_id: int) -> int:
    """Characters that the params and results of its children have together."""
    texts = (
        func.coalesce(func.length(as_type(column, Text)), 0)
        for column in (executions.c.params, executions.c.result)
    )
    query = select(func.sum(sum(texts, start=0))).where(executions.c.parent_id == parent_id)
    return int(connection.scalar(query) or 0)


@dataclass(slots=True)
class CalledOff:
    """What became of executions that somebody wants ended."""

    ended: list[int] = field(default_factory=list)
    """These are over: nobody held them."""
    asked: list[int] = field(default_factory=list)
    """These are held by a node, which has to let go of them."""


def call_off_descendants(connection: Connection, execution_ids: Sequence[int], now: datetime) -> CalledOff:
    """End the children of these, their children, and so on: who waits at once, who runs when its code lets go."""
    called_off = CalledOff()
    for level in _generations(connection, execution_ids):
        for child in level:
            if not child.is_final:
                free = child.state in _HELD_BY_NOBODY and child.owner is None
                (called_off.ended if free else called_off.asked).append(child.id)
    for ids in _chunks(called_off.ended):
        connection.execute(
            update(executions)
            .where(executions.c.id.in_(ids))
            .values(
                state=ExecutionState.CANCELLED.value,
                reason=PARENT_CANCELLED,
                finished_at=now,
                cancel_requested_at=now,
            )
        )
    for ids in _chunks(called_off.asked):
        connection.execute(update(executions).where(executions.c.id.in_(ids)).values(cancel_requested_at=now))
    return called_off


GotOver = Callable[[Execution, Mapping[str, ExecutionState]], Collection[str]]
"""Those children, by key, which a parent that is put back in line went on without; given the states of all."""


def unsuccessful_descendants(connection: Connection, execution: Execution, got_over: GotOver) -> list[int]:
    """The children that failed or were cancelled, and theirs; but none that a parent has got over, by what
    `got_over` says or because it succeeded or goes on."""
    reopened = {execution.id: execution}
    for level in _generations(connection, [execution.id]):
        families: dict[int, list[Execution]] = {}
        for child in level:
            if child.parent_id in reopened:
                families.setdefault(child.parent_id, []).append(child)
        for parent_id, children in families.items():
            kept = got_over(
                reopened[parent_id], {child.child_key: child.state for child in children if child.child_key}
            )
            reopened |= {
                child.id: child
                for child in children
                if child.state in _UNSUCCESSFUL and child.child_key not in kept
            }
    return sorted(reopened.keys() - {execution.id})


def _generations(connection: Connection, execution_ids: Sequence[int]) -> Iterator[list[Execution]]:
    """Children, grandchildren, and so on, each row locked."""
    level = list(execution_ids)
    while level:
        found: list[Execution] = []
        for ids in _chunks(level):
            query = select(executions).where(executions.c.parent_id.in_(ids)).order_by(executions.c.id)
            found += [Execution.from_row(row) for row in connection.execute(query.with_for_update())]
        if found:
            yield found
        level = [child.id for child in found]


def _chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
