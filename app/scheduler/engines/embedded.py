"""The embedded engine: the process that records an execution starts it from memory.

Its ticker does the rest at least once a second: claim what nobody owns and is due, let go of what waits too long,
and what every engine does (see pool.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from app.models.task_execution import Execution
from app.scheduler.buckets import next_put_off
from app.scheduler.claims import Types, claim, lock_claims
from app.scheduler.engines.pool import AttemptPool, NodeParts
from app.scheduler.engines.ticker import Ticker
from app.scheduler.gate import Gate, flow_rules
from app.scheduler.runner import Attempt

NAME = "embedded"
_MEMORY_LIMIT = 10_000
"""Executions a node keeps waiting in memory; what comes on top waits in the table."""
_LET_GO_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a turn has claimed, and when there may be more."""

    by_lane: list[list[Execution]]
    is_cut_short: bool
    next_try: datetime | None
    """When the first of those that a bucket or circuit has put off tries again."""


class EmbeddedEngine:
    """See the module. Everything public is safe from any thread.

    `runs`: False for a node that only records and fires. `claims` says which executions may be claimed here: all
    (None), or those a one-off command has asked for.
    """

    name = NAME

    def __init__(self, node: NodeParts, *, runs: bool, claims: Callable[[], Sequence[int] | None]) -> None:
        self._node = node
        self._runs = runs
        self._claims = claims
        self._pool = AttemptPool(node)
        self._ticker = Ticker(self.run_once, node.clock)
        self._open = False
        self._backlog = False

    # ------------------------------------------------------------ taking work

    def owner_of(self, values: dict[str, Any]) -> str | None:
        due_now = values["run_at"] <= values["created_at"]
        room = self._pool.waiting < _MEMORY_LIMIT
        executor = self._node.service.get_executor(values["task_type"])
        if executor is None or not (self._may_take and due_now and room):
            return None
        constrained = (
            values["concurrency_key"] is not None
            or values["exclusive"]
            or values["rate_limit"] is not None
            or executor.rate_limit is not None
            or executor.circuit_breaker is not None
        )
        return None if constrained else self._node.node_id

    @property
    def _may_take(self) -> bool:
        return self._open and self._runs and self._node.runner.lease.is_valid

    def offer(self, executions: Sequence[Execution]) -> None:
        mine = []
        for execution in executions:
            if execution.owner == self._node.node_id:
                mine.append(Attempt(execution, execution.attempt + 1, self._node.node_id, recorded=False))
            elif execution.owner is None and not execution.is_final:
                self.wake(execution.run_at)
        if mine:
            self._pool.put(mine)

    def wake(self, at: datetime | None = None) -> None:
        self._ticker.wake(at)

    # ------------------------------------------------------------ life

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.open(loop)
        self._ticker.start()

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to take work, and leave the turns (`run_once()`) to the caller; the simulation does."""
        self._pool.start(loop)
        self._open = True

    async def drain(self, grace_seconds: float) -> None:
        self._open = False
        self._ticker.stop()
        await asyncio.to_thread(self._ticker.join)
        await self._pool.drain(grace_seconds)

    def lose_everything(self) -> None:
        self._open = False
        self._ticker.stop()
        self._pool.lose_everything()

    def lease_lapsed(self) -> None:
        self._pool.let_running_go()

    def end(self, execution_ids: Sequence[int]) -> None:
        self._pool.end(execution_ids)

    def unstarted(self, attempt: Attempt) -> None:
        self._pool.unstarted(attempt)

    def attempt_ended(self, execution_id: int) -> None:
        """A lane is free again: look at once for more, where the table is known to hold more."""
        if self._backlog:
            self.wake()

    def settled(self, execution_id: int, retry_at: datetime | None) -> None:
        """The row says all that matters."""

    def status(self) -> dict[str, Any]:
        return {"engine": self.name, **self._pool.status()}

    # ------------------------------------------------------------ the ticker's thread

    def run_once(self) -> None:
        """One turn of the ticker: claims at every turn, the rest once a second."""
        if not self._open:
            return
        buried = self._pool.found_dead
        if self._pool.keep_house():
            # Alone, there is nobody to leave it to.
            self._pool.let_go(older_than_seconds=None if self._pool.is_alone else _LET_GO_SECONDS)
            if self._may_take and self._claims() is None:
                self._pool.start_deliveries()
        self._backlog = self._backlog or self._pool.found_dead > buried
        if self._may_take:
            self._claim()

    def _take(self, lanes: Sequence[tuple[Types, int]], connection: Connection) -> _Taken:
        """What each lane gets."""
        node = self._node
        lock_claims(connection)  # before the clock is read: an attempt starts when its turn has come
        now, only = node.clock.now(), self._claims()
        gate = Gate(connection, flow_rules(node.service), now)
        claimed = [
            claim(
                connection,
                node=node.node_id,
                now=now,
                limit=room,
                only=only,
                types=types,
                clock=node.clock,
                gate=gate,
                priority_step_seconds=node.priority_step_seconds,
            )
            for types, room in lanes
        ]
        return _Taken(claimed, is_cut_short=gate.is_tired, next_try=next_put_off(connection, now))

    def _claim(self) -> None:
        node, lanes = self._node, self._pool.free()
        if not lanes or not self._open:
            self._backlog = True
            return
        taken = node.journal.step_blocking(partial(self._take, lanes))
        self._backlog = any(len(got) == room for got, (_, room) in zip(taken.by_lane, lanes, strict=True))
        self._pool.put(
            [
                Attempt(execution, execution.attempt, node.node_id, recorded=True)
                for got in taken.by_lane
                for execution in got
            ]
        )
        if taken.is_cut_short:
            self.wake()
        elif taken.next_try is not None:
            self.wake(taken.next_try)
