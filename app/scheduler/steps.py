"""`execution_steps` and `execution_signals`, in SQL: what an execution has done for good, waits for, and was told.

Rules that everything here keeps: a step is stored under the fence of the attempt that ran it, with the execution's
row locked; and whoever suspends an execution and whoever signals it lock that row before they look at what the
other does, so that no signal falls between "nothing there yet" and "now it waits".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple, cast

from sqlalchemy import Connection, Table, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.core.errors import Conflict, NotFound, SchedulerError
from app.core.language import Said
from app.db.bulk import BulkUpdate
from app.models.execution_step import ExecutionSignal, ExecutionStep, StepKind
from app.models.task_execution import Execution, ExecutionState, TaskExecution
from app.scheduler.family import ended_children, lock_in_order, make_due
from app.scheduler.states import IN_CHINESE

executions = cast("Table", TaskExecution.__table__)
steps = cast("Table", ExecutionStep.__table__)
signals = cast("Table", ExecutionSignal.__table__)

NEVER = datetime(9999, 12, 31, tzinfo=UTC)
"""`run_at` of a suspended execution that nothing but a signal or a child wakes."""


class Fence(NamedTuple):
    """An attempt, as every write of it names it."""

    execution_id: int
    owner: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StepRow:
    """A row of `execution_steps`."""

    kind: StepKind
    name: str
    position: int | None
    attempt: int
    started_at: datetime
    finished_at: datetime | None = None
    due_at: datetime | None = None
    result: Any = field(default=None, repr=False)

    def values(self, execution_id: int) -> dict[str, Any]:
        return {
            "execution_id": execution_id,
            "kind": self.kind.value,
            "name": self.name,
            "position": self.position,
            "attempt": self.attempt,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "due_at": self.due_at,
            "result": self.result,
        }


@dataclass(frozen=True, slots=True)
class Suspension:
    """What an attempt waits for when it ends by suspending: any one of it makes the execution due."""

    waits: tuple[StepRow, ...] = ()
    children: int | None = None
    """How many of its children must be over; None: it does not wait for children."""

    @property
    def due_at(self) -> datetime:
        """When it goes on by itself."""
        return min((wait.due_at for wait in self.waits if wait.due_at is not None), default=NEVER)

    @property
    def sentence(self) -> str:
        """What it waits for, in words."""
        signals = [signal_name(wait.name) for wait in self.waits if wait.kind is StepKind.SIGNAL]
        parts = [f"信号 {', '.join(signals)}"] if signals else []
        parts += [f"子执行累计 {self.children} 个结束"] if self.children is not None else []
        parts += [f"{self.due_at.isoformat(timespec='seconds')}"] if self.due_at < NEVER else []
        return f"等待 {' 或 '.join(parts)}"

    @property
    def is_woken_from_outside(self) -> bool:
        return self.children is not None or any(wait.kind is StepKind.SIGNAL for wait in self.waits)


@dataclass(frozen=True, slots=True)
class Signal:
    """A stored signal."""

    id: int
    execution_id: int
    name: str
    payload: Any
    signalled_by: str | None
    signalled_at: datetime
    consumed_at: datetime | None = None


# -------------------------------------------------------------------- the past


def stored_steps(connection: Connection, execution_id: int, *, limit: int | None = None) -> list[StepRow]:
    """What the execution has done and waits for, in the order it began."""
    query = (
        select(steps)
        .where(steps.c.execution_id == execution_id)
        .order_by(steps.c.started_at, steps.c.position, steps.c.name)
        .limit(limit)
    )
    return [
        StepRow(
            kind=StepKind(row.kind),
            name=row.name,
            position=row.position,
            attempt=row.attempt,
            started_at=row.started_at,
            finished_at=row.finished_at,
            due_at=row.due_at,
            result=row.result,
        )
        for row in connection.execute(query)
    ]


def stored_signals(connection: Connection, execution_id: int, *, limit: int | None = None) -> list[Signal]:
    """What the execution was told, first to last."""
    query = select(signals).where(signals.c.execution_id == execution_id).order_by(signals.c.id).limit(limit)
    return [Signal(**row) for row in connection.execute(query).mappings()]


_CALL = "call\t"
"""Begins the name of a row that is no step's: theirs are printable."""


def call_name(key: str) -> str:
    """Under which name it is stored what `call(key)` returned, once the code has gone on from there."""
    return f"{_CALL}{key}"


def is_call(name: str) -> bool:
    """Whether that is stored under `name`."""
    return name.startswith(_CALL)


def kept_calls(connection: Connection, execution_id: int) -> set[str]:
    """The keys of those calls."""
    names = connection.scalars(
        select(steps.c.name).where(
            steps.c.execution_id == execution_id,
            steps.c.kind == StepKind.STEP.value,
            steps.c.name.startswith(_CALL, autoescape=True),
        )
    )
    return {name.removeprefix(_CALL) for name in names}


# -------------------------------------------------------------------- the end of a step


@dataclass(frozen=True, slots=True)
class RecordStep:
    """A step that has ended, and waits that ended before. Outcome: False where the fence refused them."""

    rank: ClassVar[int | None] = 3
    must_land: ClassVar[bool] = True
    fence: Fence
    steps: tuple[StepRow, ...]

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[RecordStep]) -> Sequence[bool]:
        held = holders(connection, [write.fence for write in writes])
        accepted = [write for write in writes if write.fence in held]
        store_steps(connection, [(write.fence.execution_id, step) for write in accepted for step in write.steps])
        return [write.fence in held for write in writes]


def holders(connection: Connection, fences: Iterable[Fence]) -> set[Fence]:
    """Those of `fences` that hold: their attempts run, and will until this transaction ends."""
    ids = sorted({fence.execution_id for fence in fences})
    rows = connection.execute(
        select(executions.c.id, executions.c.owner, executions.c.attempt)
        .where(executions.c.id.in_(ids), executions.c.state == ExecutionState.RUNNING.value)
        .order_by(executions.c.id)
        .with_for_update()
    )
    return {Fence(row.id, row.owner, row.attempt) for row in rows} & set(fences)


def store_steps(connection: Connection, rows: Sequence[tuple[int, StepRow]]) -> None:
    """Store ends of steps and waits; one that has ended already stays as it is."""
    if not rows:
        return
    insert = _insert(connection)
    given = insert.excluded
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["execution_id", "kind", "name"],
            set_={"finished_at": given.finished_at, "result": given.result, "attempt": given.attempt},
            where=steps.c.finished_at.is_(None),
        ),
        [step.values(execution_id) for execution_id, step in rows],
    )


def _insert(connection: Connection) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(steps) if connection.dialect.name == "sqlite" else postgresql.insert(steps)


# -------------------------------------------------------------------- suspension

_SUSPENDED = BulkUpdate(
    {
        "x_id": executions.c.id,
        "x_state": executions.c.state,
        "x_run_at": executions.c.run_at,
        "x_finished_at": executions.c.finished_at,
        "x_children": executions.c.children_awaited,
    },
    lambda given: (
        update(executions)
        .where(executions.c.id == given["x_id"])
        .values(
            state=given["x_state"],
            run_at=given["x_run_at"],
            finished_at=given["x_finished_at"],
            children_awaited=given["x_children"],
            rescues=literal_column("0"),
        )
    ),
)


def begin_waits(connection: Connection, suspensions: Mapping[int, Suspension], now: datetime) -> None:
    """Let executions wait that have just been recorded as suspended, in the transaction that did so: their rows
    are locked by it, so a signal or the end of a child is seen here, or sees them suspended.

    What is there already makes an execution due at once. One that somebody wants cancelled is over: nobody holds
    it any longer.
    """
    insert = _insert(connection).on_conflict_do_nothing(index_elements=["execution_id", "kind", "name"])
    waits = [wait.values(execution_id) for execution_id, one in suspensions.items() for wait in one.waits]
    if waits:
        connection.execute(insert, waits)
    unwanted = set(
        connection.scalars(
            select(executions.c.id).where(
                executions.c.id.in_(suspensions), executions.c.cancel_requested_at.is_not(None)
            )
        )
    )
    signalled = _signalled(connection, suspensions)
    parents = [execution_id for execution_id, one in suspensions.items() if one.children is not None]
    ended = ended_children(connection, parents) if parents else {}
    rows = []
    for execution_id, one in suspensions.items():
        left = one.children - ended.get(execution_id, 0) if one.children is not None else None
        is_due = execution_id in signalled or (left is not None and left <= 0)
        is_over = execution_id in unwanted
        rows.append(
            {
                "x_id": execution_id,
                "x_state": (ExecutionState.CANCELLED if is_over else ExecutionState.SUSPENDED).value,
                "x_run_at": now if is_due else one.due_at,
                "x_finished_at": now if is_over else None,
                "x_children": left,
            }
        )
    _SUSPENDED.execute(connection, rows)


def _signalled(connection: Connection, suspensions: Mapping[int, Suspension]) -> set[int]:
    """Those that wait for a signal that is there."""
    awaited = {
        (execution_id, signal_name(wait.name))
        for execution_id, one in suspensions.items()
        for wait in one.waits
        if wait.kind is StepKind.SIGNAL
    }
    if not awaited:
        return set()
    query = select(signals.c.execution_id, signals.c.name).where(
        signals.c.execution_id.in_({execution_id for execution_id, _ in awaited}), signals.c.consumed_at.is_(None)
    )
    return {execution_id for execution_id, name in connection.execute(query) if (execution_id, name) in awaited}


# -------------------------------------------------------------------- signals


def wait_name(signal: str, number: int) -> str:
    """Under which name the `number`-th wait for a signal is stored."""
    return signal if number == 1 else f"{signal}#{number}"


def signal_name(wait: str) -> str:
    """The signal that a wait is for. A `#` is in no name of a signal."""
    return wait.partition("#")[0]


@dataclass(frozen=True, slots=True)
class TakeSignal:
    """A wait looks whether it is over: by the oldest signal of its name that nobody took, or because its time is.
    Outcome: the wait, ended or still open; None where the fence refused it."""

    rank: ClassVar[int | None] = 7
    must_land: ClassVar[bool] = True
    fence: Fence
    wait: StepRow
    now: datetime

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[TakeSignal]) -> Sequence[StepRow | None]:
        held = holders(connection, [write.fence for write in writes])
        return [write.apply(connection) if write.fence in held else None for write in writes]

    def apply(self, connection: Connection) -> StepRow:
        found = connection.execute(
            select(signals)
            .where(
                signals.c.execution_id == self.fence.execution_id,
                signals.c.name == signal_name(self.wait.name),
                signals.c.consumed_at.is_(None),
            )
            .order_by(signals.c.id)
            .limit(1)
        ).first()
        if found is not None:
            connection.execute(update(signals).where(signals.c.id == found.id).values(consumed_at=self.now))
            result = {"payload": found.payload}
        elif self.wait.due_at is not None and self.wait.due_at <= self.now:
            result = {"timed_out": True}
        else:
            return self.wait
        ended = replace(self.wait, attempt=self.fence.attempt, finished_at=self.now, result=result)
        store_steps(connection, [(self.fence.execution_id, ended)])
        return ended


Carry = Callable[[Connection, Sequence[Execution]], None]
"""Writes, in the transaction that recorded executions, what their engine needs to find them."""


@dataclass(frozen=True, slots=True)
class SendSignal:
    """A signal to be stored. Outcome: it, or why it cannot be; `carry` is for those it wakes."""

    rank: ClassVar[int | None] = 6
    must_land: ClassVar[bool] = False
    execution_id: int
    name: str
    payload: Any
    signalled_by: str | None
    now: datetime
    carry: Carry = field(default=lambda *_: None, repr=False)

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[SendSignal]) -> Sequence[Signal | SchedulerError]:
        lock_in_order(connection, [write.execution_id for write in writes])
        return [write.apply(connection) for write in writes]

    def apply(self, connection: Connection) -> Signal | SchedulerError:
        query = select(executions).where(executions.c.id == self.execution_id).with_for_update()
        row = connection.execute(query).first()
        if row is None:
            return NotFound("execution", self.execution_id)
        execution = Execution.from_row(row)
        if execution.is_final:
            return Conflict(
                Said(
                    f"execution {execution.id} is {execution.state.value}; it takes no signal any more",
                    f"执行 {execution.id} 的状态是{IN_CHINESE[execution.state]}，不再接收信号",
                )
            )
        values = {
            "execution_id": execution.id,
            "name": self.name,
            "payload": self.payload,
            "signalled_by": self.signalled_by,
            "signalled_at": self.now,
        }
        stored = connection.execute(signals.insert().values(values).returning(signals.c.id)).scalar_one()
        if execution.state is ExecutionState.SUSPENDED and _awaits(connection, execution.id, self.name):
            make_due(connection, [execution.id], self.now)
            self.carry(connection, [execution._replace(run_at=min(execution.run_at, self.now))])
        return Signal(stored, **values)


def _awaits(connection: Connection, execution_id: int, name: str) -> bool:
    names = connection.scalars(
        select(steps.c.name).where(
            steps.c.execution_id == execution_id,
            steps.c.kind == StepKind.SIGNAL.value,
            steps.c.finished_at.is_(None),
        )
    )
    return any(signal_name(waiting) == name for waiting in names)
