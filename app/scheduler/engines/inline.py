"""The inline engine: attempts are tasks of one event loop, and nothing else moves.

No threads, no polling and no lanes: for tests, under a loop whose time is virtual. Every execution is claimed from
the table, which is where the rules about keys, turns and priorities are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from loguru import logger
from sqlalchemy import Connection, func, select

from app.core.clock import Clock
from app.core.errors import SchedulerError, SchedulerUnavailable
from app.models.task_execution import WAITING_STATES, Execution, state_in
from app.scheduler.buckets import close_gaps
from app.scheduler.circuits import reset_circuit, retired
from app.scheduler.claims import claim
from app.scheduler.executions import cancel_requests, executions, parked, unpark
from app.scheduler.gate import Gate, flow_rules, unguarded
from app.scheduler.journal import Journal
from app.scheduler.runner import Attempt, Runner
from app.scheduler.steps import NEVER
from app.scheduler.verdict import CANCELLED, HANDED_BACK, LEASE_LOST
from app.services.scheduler_service import SchedulerService

TICK_SECONDS = 1.0
"""How long to wait after a turn that the database refused."""
_STUBBORN_SECONDS = 60.0
"""How long a shutdown waits for attempts that were told to end."""


class InlineEngine:
    """See the module. To be used by the thread of its loop."""

    name = "inline"

    def __init__(
        self,
        *,
        service: SchedulerService,
        journal: Journal,
        runner: Runner,
        clock: Clock,
        node_id: str,
        concurrency: int,
        priority_step_seconds: float = 0,
    ) -> None:
        self._service = service
        self._journal = journal
        self._runner = runner
        self._clock = clock
        self._node_id = node_id
        self._concurrency = concurrency
        self._priority_step = priority_step_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._turn: asyncio.Task[None] | None = None
        self._attempts: set[asyncio.Task[None]] = set()

    def owner_of(self, values: dict[str, Any]) -> str | None:
        return None  # it will be claimed

    def offer(self, executions: Sequence[Execution]) -> None:
        for execution in executions:
            if not execution.is_final:
                self.wake(execution.run_at)

    def wake(self, at: datetime | None = None) -> None:
        if self._loop is None:
            return
        ahead = (at - self._clock.now()).total_seconds() if at is not None else 0.0
        moment = self._loop.time() + max(ahead, 0.0)
        if self._alarm is not None and not self._alarm.cancelled():
            if self._alarm.when() <= moment:
                return
            self._alarm.cancel()
        self._alarm = self._loop.call_at(moment, self._ring)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.wake()

    async def drain(self, grace_seconds: float) -> None:
        self._close()
        await self._ended_within(grace_seconds)
        for execution_id in list(self._runner.running):
            self._runner.stop(execution_id, HANDED_BACK)
        await self._ended_within(_STUBBORN_SECONDS)

    def end(self, execution_ids: Sequence[int]) -> None:
        for execution_id in execution_ids:
            self._runner.stop(execution_id, CANCELLED)

    def unstarted(self, attempt: Attempt) -> None:
        self._runner.end_unrun(attempt, LEASE_LOST)

    def attempt_ended(self, execution_id: int) -> None:
        self.wake()

    def settled(self, execution_id: int, retry_at: datetime | None) -> None:
        """The row says all that matters."""

    def lease_lapsed(self) -> None:
        for execution_id in list(self._runner.running):
            self._runner.stop(execution_id, LEASE_LOST)

    def lose_everything(self) -> None:
        self._close()
        self.lease_lapsed()

    def status(self) -> dict[str, Any]:
        return {"engine": self.name, "running": len(self._runner.running)}

    # ------------------------------------------------------------ one turn

    def _ring(self) -> None:
        self._alarm = None
        if self._loop is None:
            return
        if self._turn is not None and not self._turn.done():
            self.wake()  # a turn waits for the write lock; what rang comes after it
            return
        self._turn = self._loop.create_task(self._take_turn())

    async def _take_turn(self) -> None:
        try:
            await self.run_once()
        except SchedulerUnavailable as error:
            logger.warning("执行引擎本轮未完成，将重试: {}", error)
            self.wake(self._clock.now() + timedelta(seconds=TICK_SECONDS))

    async def run_once(self) -> None:
        """Claim what is due as far as there is room, start it, carry out cancellations, wait for what comes."""
        claimed, unwanted, next_due = await self._journal.step(self._take)
        self.end(unwanted)
        for execution in claimed:
            attempt = Attempt(execution, execution.attempt, self._node_id, recorded=True)
            task = asyncio.get_running_loop().create_task(self._runner.run(attempt))
            self._attempts.add(task)
            task.add_done_callback(self._attempts.discard)
        if next_due is not None:
            self.wake(next_due)

    def _take(self, connection: Connection) -> tuple[list[Execution], list[int], datetime | None]:
        now = self._clock.now()
        waiting = parked(connection, "unknown_executor") + parked(connection, "invalid_params")
        unpark(connection, [execution.id for execution in waiting if self._is_runnable(execution)], now)
        for task_type in retired(connection, unguarded(self._service)):
            reset_circuit(connection, task_type, now)
        rules = flow_rules(self._service)
        close_gaps(connection, rules.rates, now)
        gate = Gate(connection, rules, now)
        free = self._concurrency - len(self._attempts)
        claimed = (
            claim(
                connection,
                node=self._node_id,
                now=now,
                limit=free,
                gate=gate,
                priority_step_seconds=self._priority_step,
            )
            if free > 0
            else []
        )
        next_due = now if gate.is_tired else _next_due(connection, now)
        return claimed, cancel_requests(connection, self._node_id), next_due

    def _is_runnable(self, execution: Execution) -> bool:
        try:
            self._service.check(execution.task_type, execution.params)
        except SchedulerError:
            return False
        return True

    def _close(self) -> None:
        self._loop = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def _ended_within(self, seconds: float) -> None:
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=seconds)


def _next_due(connection: Connection, now: datetime) -> datetime | None:
    """When the next waiting execution may start. What is due and did not start waits for one that ends."""
    earliest: datetime | None = connection.scalar(
        select(func.min(executions.c.run_at)).where(
            executions.c.owner.is_(None),
            state_in(executions.c.state, WAITING_STATES),
            executions.c.run_at > now,
            executions.c.run_at < NEVER,
        )
    )
    return earliest
