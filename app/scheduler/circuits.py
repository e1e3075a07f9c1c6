"""The table `circuits`: one circuit for each executor with a breaker, shared by all processes.

Claims and the reports of attempts that ended may meet at one circuit: whoever reads it to change it locks its row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, cast

from sqlalchemy import Connection, Row, Table, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.models.flow import CircuitState
from app.models.task_execution import WAITING_STATES, state_in
from app.scheduler.breaker import Circuit, CircuitBreaker, Phase, closed, heard
from app.scheduler.executions import executions

circuits = cast("Table", CircuitState.__table__)


def circuit_name(task_type: str) -> str:
    """What executions `waits_for` while the circuit of their executor is open."""
    return f"circuit:{task_type}"


def lock_circuits(connection: Connection, task_types: Collection[str]) -> dict[str, Circuit]:
    """The circuits of these executors, to be changed in this transaction; those without a record get one."""
    if not task_types:
        return {}
    found = _locked(connection, task_types)
    missing = sorted(set(task_types) - found.keys())
    if missing:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        insert = dialect.insert(circuits).on_conflict_do_nothing(index_elements=["task_type"])
        connection.execute(insert, [{"task_type": task_type} for task_type in missing])
        found |= _locked(connection, missing)
    return found


def read_circuits(connection: Connection) -> dict[str, Circuit]:
    """Every circuit that has a record."""
    return {row.task_type: _circuit_of(row) for row in connection.execute(select(circuits))}


def write_circuit(connection: Connection, task_type: str, circuit: Circuit) -> None:
    """Store a circuit whose row is locked."""
    connection.execute(
        update(circuits)
        .where(circuits.c.task_type == task_type)
        .values(
            state=circuit.phase.value,
            outcomes=circuit.outcomes,
            since=circuit.since,
            probe_at=circuit.probe_at,
            probes_left=circuit.probes_left,
            successes=circuit.successes,
            line_end=circuit.line_end,
        )
    )


@dataclass(frozen=True, slots=True)
class ReportOutcome:
    """What an attempt of an executor with a breaker came to. Outcome: the phase its circuit has come into, or None
    where it stays as it is."""

    rank: ClassVar[int | None] = 4
    must_land: ClassVar[bool] = True
    task_type: str
    breaker: CircuitBreaker
    succeeded: bool
    started_at: datetime
    ended_at: datetime

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[ReportOutcome]) -> Sequence[Phase | None]:
        known = lock_circuits(connection, {write.task_type for write in writes})
        before = dict(known)
        changes = []
        for write in writes:
            found = known[write.task_type]
            known[write.task_type] = heard(
                found,
                write.breaker,
                succeeded=write.succeeded,
                started_at=write.started_at,
                now=write.ended_at,
            )
            phase = known[write.task_type].phase
            changes.append(phase if phase is not found.phase else None)
        for task_type, circuit in known.items():
            if circuit != before[task_type]:
                write_circuit(connection, task_type, circuit)
            if circuit.phase is Phase.CLOSED and before[task_type].phase is not Phase.CLOSED:
                release_waiting(connection, task_type)
        return changes


def reset_circuit(connection: Connection, task_type: str, now: datetime) -> Phase:
    """Close a circuit by hand and let go who waited for it; returns the phase it was in."""
    circuit = lock_circuits(connection, [task_type])[task_type]
    write_circuit(connection, task_type, closed(now))
    release_waiting(connection, task_type)
    return circuit.phase


def retired(connection: Connection, unguarded: Collection[str]) -> list[str]:
    """Which of these executors, that have no breaker (any more), have a circuit that is not closed: nobody would
    ever close it."""
    return sorted(
        task_type
        for task_type, circuit in read_circuits(connection).items()
        if circuit.phase is not Phase.CLOSED and task_type in unguarded
    )


def release_waiting(connection: Connection, task_type: str) -> int:
    """Let those who wait for a circuit try again, due as they were before; returns how many."""
    return connection.execute(
        update(executions)
        .where(
            executions.c.waits_for == circuit_name(task_type),
            executions.c.owner.is_(None),
            state_in(executions.c.state, WAITING_STATES),
        )
        .values(
            run_at=func.coalesce(executions.c.due_at, executions.c.run_at),
            waits_for=None,
            due_at=None,
            reason=None,
        )
    ).rowcount


def _locked(connection: Connection, task_types: Collection[str]) -> dict[str, Circuit]:
    query = select(circuits).where(circuits.c.task_type.in_(task_types)).order_by(circuits.c.task_type)
    return {row.task_type: _circuit_of(row) for row in connection.execute(query.with_for_update())}


def _circuit_of(row: Row[tuple[object, ...]]) -> Circuit:
    return Circuit(
        Phase(row.state), row.outcomes, row.since, row.probe_at, row.probes_left, row.successes, row.line_end
    )
