"""Nodes: one process announces itself, beats, and buries the dead.

A node is alive while its counter `beats` grows, observed on the observer's own monotonic clock: stepping a wall
clock kills nobody. On the same machine a process that is gone is seen at once, without waiting for the lease.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import cast

from loguru import logger
from pydantic import ValidationError
from sqlalchemy import Connection, Engine, Table, bindparam, insert, select, update

from app.core.clock import Clock
from app.models.node import Node
from app.models.task_execution import (
    ACTIVE_STATES,
    FINAL_STATES,
    WAITING_STATES,
    Execution,
    ExecutionState,
    state_in,
)
from app.scheduler.attempts import attempts
from app.scheduler.executions import executions
from app.scheduler.family import wake_parents
from app.scheduler.policies import RetryPolicy
from app.services.scheduler_service import TaskStatus, describe_error

nodes = cast("Table", Node.__table__)

_MARGIN = 0.2
"""The share of a lease that is left for attempts to end in, once it cannot be renewed."""


def new_node_id() -> str:
    """A readable id that no other process, and no earlier start of this one, has."""
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}"


def host_identity() -> str:
    """Equal for two processes only if each can see whether the other lives: host, boot and process namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    parts = [socket.gethostname()]
    parts += [boot.read_text().strip()] if boot.exists() else []
    parts += [str(namespace.readlink())] if namespace.exists() else []
    return "/".join(parts)[:200]


def process_exists(pid: int) -> bool:
    """Whether a process with that id runs in our process namespace."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(slots=True)
class Lease:
    """The right of this node to start and finish attempts: it lapses unless a heartbeat renews it."""

    seconds: float
    clock: Clock
    renewed_at: float = field(init=False)
    restored_at: float = field(init=False)
    """When it was last renewed after it had lapsed."""

    def __post_init__(self) -> None:
        self.renewed_at = self.restored_at = self.clock.monotonic()

    def renew(self, asked_at: float | None = None) -> None:
        """Renew it, from the moment the beat was asked for: when it was committed, nobody knows."""
        now = self.clock.monotonic()
        if not self.is_valid:
            self.restored_at = now
        self.renewed_at = now if asked_at is None else asked_at

    @property
    def remaining_seconds(self) -> float:
        """How long it is valid still. It lapses here before anybody else may think so, by a margin in which
        attempts can end."""
        return self.renewed_at + self.seconds * (1 - _MARGIN) - self.clock.monotonic()

    @property
    def is_valid(self) -> bool:
        return self.remaining_seconds > 0


class Heartbeat:
    """Registers a node and beats for it, on a thread of its own: a blocked event loop is not a dead node."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        lease: Lease,
        *,
        node_id: str,
        role: str,
        engine_name: str,
        version: str,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._lease = lease
        self.node_id = node_id
        self._row = {
            "id": node_id,
            "host": host_identity(),
            "pid": os.getpid(),
            "role": role,
            "engine": engine_name,
            "version": version,
        }
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def register(self) -> None:
        """Write the node's row; from here on it may own executions."""
        now = self._clock.now()
        with self._engine.begin() as connection:
            connection.execute(insert(nodes).values(**self._row, beats=0, started_at=now, heartbeat_at=now))
        self._lease.renew()

    def start(self, on_lapsed: Callable[[], object], on_lost: Callable[[], object]) -> None:
        """Beat three times a lease.

        `on_lapsed` is called each time the lease lapses because the database is out of reach: others may soon
        think that this node is dead. `on_lost` is called, once, when the row says that they do.
        """
        self._thread = threading.Thread(
            target=self._run, args=(on_lapsed, on_lost), name="contenthub-heartbeat", daemon=True
        )
        self._thread.start()

    def beat(self) -> bool:
        """One beat. False: this node has been declared dead, what it held belongs to others."""
        asked_at = self._clock.monotonic()
        with self._engine.begin() as connection:
            alive = connection.execute(
                update(nodes)
                .where(nodes.c.id == self.node_id, nodes.c.stopped_at.is_(None))
                .values(beats=nodes.c.beats + 1, heartbeat_at=self._clock.now())
            ).rowcount
        if alive:
            self._lease.renew(asked_at)
        return bool(alive)

    def stop(self, *, leave: bool) -> None:
        """Stop beating; `leave`: and say that the node is gone, holding nothing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if leave:
            with self._engine.begin() as connection:
                connection.execute(
                    update(nodes).where(nodes.c.id == self.node_id).values(stopped_at=self._clock.now())
                )

    def _run(self, on_lapsed: Callable[[], object], on_lost: Callable[[], object]) -> None:
        watch = threading.Thread(target=self._watch, args=(on_lapsed,), name="contenthub-lease", daemon=True)
        watch.start()
        while not self._stop.wait(self._lease.seconds / 3):
            try:
                if not self.beat():
                    logger.error("节点 {} 已被宣告失联，正在取消其执行", self.node_id)
                    on_lost()
                    return
            except Exception as error:  # noqa: BLE001 - a heart that stops is a dead node
                logger.warning("节点 {} 心跳失败: {}", self.node_id, describe_error(error))

    def _watch(self, on_lapsed: Callable[[], object]) -> None:
        """A beat may hang as long as the database does; the lease lapses meanwhile."""
        while not self._stop.wait(max(self._lease.remaining_seconds, self._lease.seconds / 20)):
            if not self._lease.is_valid:
                logger.error("节点 {} 的租约已到期而未能续约，正在取消其执行", self.node_id)
                on_lapsed()
                while not self._lease.is_valid:
                    if self._stop.wait(self._lease.seconds / 20):
                        return


@dataclass(slots=True)
class _Sighting:
    beats: int
    seen_at: float


class Undertaker:
    """Finds nodes that are dead, for a node whose own lease is `lease`.

    Where the database is out of reach nobody can beat. So who cannot renew its own lease says of nobody that it is
    dead, and gives everybody a whole lease to be heard again once it can.
    """

    def __init__(self, lease: Lease, *, node_id: str) -> None:
        self._lease = lease
        self._node_id = node_id
        self._host = host_identity()
        self._sightings: dict[str, _Sighting] = {}

    @property
    def is_alone(self) -> bool:
        """Whether the last look found no other node."""
        return not self._sightings

    def dead(self, connection: Connection) -> list[tuple[str, int]]:
        """Dead nodes and the `beats` they died at: their process is gone, or they missed a whole lease."""
        rows = connection.execute(
            select(nodes.c.id, nodes.c.host, nodes.c.pid, nodes.c.beats).where(
                nodes.c.stopped_at.is_(None), nodes.c.id != self._node_id
            )
        ).all()
        now = self._lease.clock.monotonic()
        seen = {}
        found = []
        for node_id, host, pid, beats in rows:
            sighting = self._sightings.get(node_id)
            if sighting is None or sighting.beats != beats:
                sighting = _Sighting(beats, now)
            seen[node_id] = sighting
            gone = host == self._host and pid != os.getpid() and not process_exists(pid)
            silent_since = max(sighting.seen_at, self._lease.restored_at)
            if gone or (self._lease.is_valid and now - silent_since >= self._lease.seconds):
                found.append((node_id, beats))
        self._sightings = seen
        return found


def rescue(
    connection: Connection, node_id: str, beats: int, *, now: datetime, max_rescues: int
) -> list[Execution]:
    """Bury a dead node and put what it held back in line; returns the executions it was running.

    Guarded by `beats`: a node that beat again is left alone, and of two rescuers one wins. What the node had not
    started goes back as it was. A running attempt ends `failed`, reason `node_lost`; its execution runs again,
    unless its policy forbids that or it has lost more than `max_rescues` nodes (it may be what kills them).
    """
    buried = connection.execute(
        update(nodes)
        .where(nodes.c.id == node_id, nodes.c.beats == beats, nodes.c.stopped_at.is_(None))
        .values(stopped_at=now, found_dead=True)
    ).rowcount
    return _put_back(connection, node_id, now, max_rescues) if buried else []


def left_behind(connection: Connection) -> list[str]:
    """Owners of executions that are no living nodes: what they recorded when they had been buried already."""
    alive = select(nodes.c.id).where(nodes.c.stopped_at.is_(None))
    return list(
        connection.scalars(
            select(executions.c.owner)
            .where(
                executions.c.owner.is_not(None),
                state_in(executions.c.state, ACTIVE_STATES),
                executions.c.owner.not_in(alive),
            )
            .distinct()
        )
    )


def take_over(connection: Connection, node_id: str, *, now: datetime, max_rescues: int) -> list[Execution]:
    """Put back in line what a node holds that is buried; returns the executions it was running."""
    alive = select(nodes.c.id).where(nodes.c.id == node_id, nodes.c.stopped_at.is_(None))
    return [] if connection.execute(alive).first() else _put_back(connection, node_id, now, max_rescues)


def _put_back(connection: Connection, node_id: str, now: datetime, max_rescues: int) -> list[Execution]:
    held = [
        Execution.from_row(row)
        for row in connection.execute(
            select(executions)
            .where(
                executions.c.owner == node_id,
                state_in(executions.c.state, ACTIVE_STATES),
            )
            .order_by(executions.c.id)
            # The dead may be a sleeper that is just storing an outcome: then that outcome stands.
            .with_for_update()
        )
    ]
    running = [execution for execution in held if execution.state is ExecutionState.RUNNING]
    connection.execute(
        update(executions)
        .where(executions.c.owner == node_id, state_in(executions.c.state, ACTIVE_STATES))
        .where(state_in(executions.c.state, WAITING_STATES))
        .values(owner=None)
    )
    if running:
        _end_lost_attempts(connection, running, node_id, now, max_rescues)
    return running


def _end_lost_attempts(
    connection: Connection, running: list[Execution], node_id: str, now: datetime, max_rescues: int
) -> None:
    states = {execution.id: _state_after_loss(execution, max_rescues) for execution in running}
    error = f"NodeLost: node {node_id} died while it ran this attempt"
    connection.execute(
        update(attempts)
        .where(
            attempts.c.execution_id == bindparam("x_id"),
            attempts.c.number == bindparam("x_attempt"),
            attempts.c.status == TaskStatus.RUNNING.value,
        )
        .values(
            status=TaskStatus.FAILED.value,
            reason="node_lost",
            finished_at=now,
            error=error,
            message="执行节点失联",
        ),
        [{"x_id": execution.id, "x_attempt": execution.attempt} for execution in running],
    )
    connection.execute(
        update(executions)
        .where(executions.c.id == bindparam("x_id"))
        .values(
            state=bindparam("x_state"),
            reason="node_lost",
            owner=None,
            run_at=bindparam("x_run_at"),
            rescues=executions.c.rescues + 1,
            error=error,
            finished_at=bindparam("x_finished_at"),
        ),
        [
            {
                "x_id": execution.id,
                "x_state": state.value,
                "x_run_at": min(execution.run_at, now),  # it had its turn: nobody who came later is before it
                "x_finished_at": None if state is ExecutionState.RETRYING else now,
            }
            for execution in running
            for state in [states[execution.id]]
        ],
    )
    over = [execution for execution in running if states[execution.id] in FINAL_STATES]
    wake_parents(connection, [execution.parent_id for execution in over], now)


def _state_after_loss(execution: Execution, max_rescues: int) -> ExecutionState:
    if execution.cancel_requested_at is not None:
        return ExecutionState.CANCELLED
    try:
        policy = RetryPolicy.model_validate(execution.retry or {})
    except ValidationError:
        return ExecutionState.FAILED  # nobody can say whether it may run twice
    if policy.on_node_lost == "fail" or execution.rescues >= max_rescues:
        return ExecutionState.FAILED
    return ExecutionState.RETRYING
