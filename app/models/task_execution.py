"""`task_executions`: every request to run something once, and every fire, with how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Self, cast

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    Float,
    Index,
    Integer,
    Row,
    RowMapping,
    String,
    Table,
    false,
    func,
    literal_column,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db.database import Base
from app.db.readable import refuse_unreadable
from app.db.types import Json, SafeText, UtcDateTime


class ExecutionState(StrEnum):
    """The life of an execution, around its attempts; `app/scheduler/states.py` draws the moves."""

    PENDING = "pending"
    RUNNING = "running"
    RETRYING = "retrying"
    SUSPENDED = "suspended"
    PARKED = "parked"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


WAITING_STATES = (ExecutionState.PENDING, ExecutionState.RETRYING, ExecutionState.SUSPENDED)
"""What a node may start, once it is due. A suspended execution is due when what it waits for has come."""
ACTIVE_STATES = (*WAITING_STATES, ExecutionState.RUNNING)
FINAL_STATES = (
    ExecutionState.SUCCESS,
    ExecutionState.FAILED,
    ExecutionState.CANCELLED,
    ExecutionState.SKIPPED,
)


def _sql_list(states: Sequence[ExecutionState]) -> str:
    return ", ".join(f"'{state.value}'" for state in states)


def state_in(column: ColumnElement[str], states: Sequence[ExecutionState]) -> ColumnElement[bool]:
    """`column IN (…)`, the states spelled out: SQLite uses a partial index only where a query repeats its
    condition word for word, so queries meant for one name `ACTIVE_STATES` or `WAITING_STATES` whole."""
    return column.in_([literal_column(f"'{state.value}'") for state in states])


def is_running(column: ColumnElement[str]) -> ColumnElement[bool]:
    """`column = 'running'`, spelled out for the same reason."""
    return column == literal_column("'running'")


def is_suspended(column: ColumnElement[str]) -> ColumnElement[bool]:
    """`column = 'suspended'`, likewise."""
    return column == literal_column("'suspended'")


def is_not_success(column: ColumnElement[str]) -> ColumnElement[bool]:
    """`column <> 'success'`: what the index on states holds; nearly everything else has succeeded."""
    return column != literal_column("'success'")


def beside_id(state: ColumnElement[str]) -> ColumnElement[str]:
    """The state, spelled so that no index is used for it: for a condition on rows that are named by their ids.

    PostgreSQL expects few rows in a state that soon passes, and would for each row of a statement go through all
    that an index has held of that state since the last vacuum.
    """
    return state.concat(literal_column("''"))


_WAITING = f"state IN ({_sql_list(WAITING_STATES)})"
_PUT_OFF = f"waits_for IS NOT NULL AND owner IS NULL AND {_WAITING}"
_NOT_SUCCESS = "state <> 'success'"
IS_FIRE = "scheduled_for IS NOT NULL"
HAS_KEY = "idempotency_key IS NOT NULL"
"""Conditions of the two unique indices. On PostgreSQL an index is written to whenever a row changes its state, so
they hold no row that has neither a fire nor a key."""
_ACTIVE = f"state IN ({_sql_list(ACTIVE_STATES)})"


class TaskExecution(Base):
    """One execution. A fire has `task_id` and `scheduled_for`; together they are unique (the fire ledger)."""

    __tablename__ = "task_executions"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    task_id: Mapped[int | None] = mapped_column(Integer)
    """The stored task, or NULL. No foreign key: history outlives its task."""
    task_name: Mapped[str | None] = mapped_column(String(200))
    task_type: Mapped[str] = mapped_column(String(100))
    params: Mapped[dict[str, Any]] = mapped_column(Json, server_default="{}")
    state: Mapped[str] = mapped_column(String(10), server_default="pending")
    reason: Mapped[str | None] = mapped_column(String(30))
    """Why it is in this state, in one word: overlap, misfire, coalesced, paused, timeout, node_lost …"""

    trigger: Mapped[str] = mapped_column(String(20), server_default="api")
    """What asked for it: schedule, catch_up, manual, api, code."""
    triggered_by: Mapped[str | None] = mapped_column(String(200))
    scheduled_for: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The fire's moment. A skipped row may stand for several: `fire_count`, from `first_fire_at` to here."""
    first_fire_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    fire_count: Mapped[int] = mapped_column(Integer, server_default="1")
    run_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())
    """Not before this moment."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, server_default=func.current_timestamp())
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    attempt: Mapped[int] = mapped_column(Integer, server_default="0")
    """Number of the latest attempt; with `owner` it is the fence of every write."""
    failures: Mapped[int] = mapped_column(Integer, server_default="0")
    """Attempts that failed and count against the retry policy."""
    rescues: Mapped[int] = mapped_column(Integer, server_default="0")
    """How often a dead node left it behind."""
    owner: Mapped[str | None] = mapped_column(String(64))
    """Id of the node that holds it; NULL: anyone may claim it."""
    retry: Mapped[dict[str, Any] | None] = mapped_column(Json)
    timeout_seconds: Mapped[float | None] = mapped_column(Float)
    priority: Mapped[int] = mapped_column(Integer, server_default="0")
    concurrency_key: Mapped[str | None] = mapped_column(String(200))
    concurrency_limit: Mapped[int | None] = mapped_column(Integer)
    exclusive: Mapped[bool] = mapped_column(server_default=false())
    """Waits until no other execution of its task runs (overlap policy `queue`)."""
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    cancel_requested_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    message: Mapped[str | None] = mapped_column(SafeText)
    error: Mapped[str | None] = mapped_column(SafeText)
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """The last `TaskExecutionResult.to_dict()`."""
    duration_seconds: Mapped[float | None] = mapped_column(Float)
    progress: Mapped[float | None] = mapped_column(Float)
    progress_message: Mapped[str | None] = mapped_column(SafeText)

    parent_id: Mapped[int | None] = mapped_column(Integer)
    """The execution that spawned this one, or NULL. No foreign key: parents are pruned before their children."""
    child_key: Mapped[str | None] = mapped_column(String(200))
    """What its parent calls it."""
    children_awaited: Mapped[int | None] = mapped_column(Integer)
    """Of a suspended execution: how many more of its children must end before it is due."""

    trace_context: Mapped[str | None] = mapped_column(String(55))
    """W3C `traceparent` of what asked for it: its attempts continue that trace, on whichever node."""

    rate_limit: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """A `RateRule` of its own, from its task or its request; that of its executor is looked up when it is
    claimed."""
    waits_for: Mapped[str | None] = mapped_column(String(300))
    """The bucket or circuit that has put it off (`reason` says which kind), until `run_at`; NULL: none."""
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it was due before a bucket or circuit put it off: how long it has waited counts from here."""

    __table_args__ = (
        CheckConstraint(f"state IN ({_sql_list(tuple(ExecutionState))})", name="state"),
        Index(
            "uq_task_executions_fire",
            "task_id",
            "scheduled_for",
            unique=True,
            sqlite_where=text(IS_FIRE),
            postgresql_where=text(IS_FIRE),
        ),
        Index(
            "uq_task_executions_idempotency_key",
            "idempotency_key",
            unique=True,
            sqlite_where=text(HAS_KEY),
            postgresql_where=text(HAS_KEY),
        ),
        Index(
            "ix_task_executions_claimable",
            "priority",
            "run_at",
            sqlite_where=text(f"owner IS NULL AND {_WAITING}"),
            postgresql_where=text(f"owner IS NULL AND {_WAITING}"),
        ),
        Index(
            "ix_task_executions_owned",
            "owner",
            sqlite_where=text(f"owner IS NOT NULL AND {_ACTIVE}"),
            postgresql_where=text(f"owner IS NOT NULL AND {_ACTIVE}"),
        ),
        Index(
            "ix_task_executions_active_task",
            "task_id",
            "state",
            sqlite_where=text(f"task_id IS NOT NULL AND {_ACTIVE}"),
            postgresql_where=text(f"task_id IS NOT NULL AND {_ACTIVE}"),
        ),
        Index(
            "ix_task_executions_running_key",
            "concurrency_key",
            sqlite_where=text("concurrency_key IS NOT NULL AND state = 'running'"),
            postgresql_where=text("concurrency_key IS NOT NULL AND state = 'running'"),
        ),
        Index(
            "ix_task_executions_state",
            "state",
            "id",
            sqlite_where=text(_NOT_SUCCESS),
            postgresql_where=text(_NOT_SUCCESS),
        ),
        Index(
            "ix_task_executions_task",
            "task_id",
            "id",
            sqlite_where=text("task_id IS NOT NULL"),
            postgresql_where=text("task_id IS NOT NULL"),
        ),
        Index(
            "ix_task_executions_span",
            "task_id",
            "scheduled_for",
            sqlite_where=text("fire_count > 1"),
            postgresql_where=text("fire_count > 1"),
        ),
        Index(
            "ix_task_executions_put_off",
            "run_at",
            sqlite_where=text(_PUT_OFF),
            postgresql_where=text(_PUT_OFF),
        ),
        Index(
            "ix_task_executions_waits_for",
            "waits_for",
            "run_at",
            sqlite_where=text(_PUT_OFF),
            postgresql_where=text(_PUT_OFF),
        ),
        Index(
            "ix_task_executions_suspended",
            "started_at",
            sqlite_where=text("state = 'suspended'"),
            postgresql_where=text("state = 'suspended'"),
        ),
        Index(
            "ix_task_executions_finished",
            "finished_at",
            sqlite_where=text("finished_at IS NOT NULL"),
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
        Index(
            "uq_task_executions_child",
            "parent_id",
            "child_key",
            unique=True,
            sqlite_where=text("parent_id IS NOT NULL"),
            postgresql_where=text("parent_id IS NOT NULL"),
        ),
        {"sqlite_autoincrement": True},
    )


refuse_unreadable(cast("Table", TaskExecution.__table__))


class Execution(NamedTuple):
    """An execution as it was recorded: the row's values, detached from any Session.

    A tuple in the order of the table's columns: one is made for every row read or recorded, and nothing else
    that cannot change is made as fast.
    """

    id: int
    task_id: int | None
    task_name: str | None
    task_type: str
    params: dict[str, Any]
    state: ExecutionState
    reason: str | None
    trigger: str
    triggered_by: str | None
    scheduled_for: datetime | None
    first_fire_at: datetime | None
    fire_count: int
    run_at: datetime
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: int = 0
    failures: int = 0
    rescues: int = 0
    owner: str | None = None
    retry: dict[str, Any] | None = None
    timeout_seconds: float | None = None
    priority: int = 0
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    exclusive: bool = False
    idempotency_key: str | None = None
    cancel_requested_at: datetime | None = None
    message: str | None = None
    error: str | None = None
    result: dict[str, Any] | None = None
    duration_seconds: float | None = None
    progress: float | None = None
    progress_message: str | None = None
    parent_id: int | None = None
    child_key: str | None = None
    children_awaited: int | None = None
    trace_context: str | None = None
    rate_limit: dict[str, Any] | None = None
    waits_for: str | None = None
    due_at: datetime | None = None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """From a row of `select(TaskExecution.__table__)`."""
        return cls._make(row)._replace(state=EXECUTION_STATES[row.state])

    @classmethod
    def in_short(cls, row: RowMapping) -> Self:
        """From a row of `select(*IN_SHORT)`, as a mapping: without params and result, which may be large."""
        values: dict[str, Any] = {**row, "state": EXECUTION_STATES[row["state"]]}
        return cls(params={}, **values)

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def trace_id(self) -> str | None:
        """The trace it is part of, as tracing backends show it; None: nobody traced what asked for it."""
        parts = (self.trace_context or "").split("-")
        return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else None

    @property
    def is_repeat(self) -> bool:
        """Whether `enqueue()` found it instead of recording it: an earlier request stands for this one."""
        return False


IN_SHORT = tuple(column for column in TaskExecution.__table__.c if column.name not in ("params", "result"))
"""What lists and watchers read of an execution."""


class RepeatedExecution(Execution):
    """The answer to a request that an earlier one stands for (idempotency key, debounce, throttle, once)."""

    __slots__ = ()

    @property
    def is_repeat(self) -> bool:
        return True


EXECUTION_FIELDS = Execution._fields
EXECUTION_STATES = {state.value: state for state in ExecutionState}
