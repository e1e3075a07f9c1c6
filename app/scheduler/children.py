"""Sub-executions: recorded under their parent's fence, once a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sqlalchemy import Connection, select, text
from sqlalchemy.dialects import postgresql, sqlite

from app.models.task_execution import Execution
from app.scheduler.executions import Recorded, disown_buried, execution_of, executions
from app.scheduler.steps import Carry, Fence, holders


@dataclass(frozen=True, slots=True)
class RecordChild:
    """A child of a running attempt. Outcome: the child, new or found under its key; None where the fence refused
    it, or somebody wants the parent ended."""

    rank: ClassVar[int | None] = 2
    must_land: ClassVar[bool] = False
    fence: Fence
    values: dict[str, Any]
    carry: Carry = field(default=lambda *_: None)

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[RecordChild]) -> Sequence[Recorded | None]:
        held = holders(connection, [write.fence for write in writes])
        unwanted = _unwanted(connection, held)
        disown_buried(connection, [write.values for write in writes])
        recorded = [
            _insert_once(connection, write.values)
            if write.fence in held and write.fence.execution_id not in unwanted
            else None
            for write in writes
        ]
        writes[0].carry(connection, [one.execution for one in recorded if one is not None and one.is_new])
        return recorded


def children_of(connection: Connection, parent_id: int, key: str | None = None) -> list[Execution]:
    """The children of an execution, or the one under that key, in the order they were spawned."""
    query = select(executions).where(executions.c.parent_id == parent_id).order_by(executions.c.id)
    if key is not None:
        query = query.where(executions.c.child_key == key)
    return [Execution.from_row(row) for row in connection.execute(query)]


def _unwanted(connection: Connection, fences: set[Fence]) -> set[int]:
    query = select(executions.c.id).where(
        executions.c.id.in_({fence.execution_id for fence in fences}),
        executions.c.cancel_requested_at.is_not(None),
    )
    return set(connection.scalars(query))


def _insert_once(connection: Connection, values: dict[str, Any]) -> Recorded:
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement: sqlite.Insert | postgresql.Insert = dialect.insert(executions).values(values)
    once = statement.on_conflict_do_nothing(
        index_elements=["parent_id", "child_key"], index_where=text("parent_id IS NOT NULL")
    )
    inserted = connection.execute(once.returning(executions.c.id)).scalar()
    if inserted is not None:
        return Recorded(execution_of(values | {"id": inserted}), is_new=True)
    (found,) = children_of(connection, values["parent_id"], values["child_key"])
    return Recorded(found, is_new=False)
