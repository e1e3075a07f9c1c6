"""The runtime of a sandbox: production's own, in virtual time and without threads."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Coroutine
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock
from app.core.config import Settings
from app.core.version import package_version
from app.models.task_execution import Execution
from app.scheduler.alerting.checking import due_at
from app.scheduler.commands import Commands
from app.scheduler.engines.inline import InlineEngine
from app.scheduler.engines.protocol import Engine as ExecutionEngine
from app.scheduler.firing import next_fire_at
from app.scheduler.foundation import Live
from app.scheduler.journal import Journal
from app.scheduler.log_lines import keep_log_lines
from app.scheduler.loop_guard import Held
from app.scheduler.nodes import Heartbeat, Lease, new_node_id, rescue
from app.scheduler.outcome import outcome_of
from app.scheduler.runner import Runner
from app.scheduler.runtime import CLOCK_SECONDS, Runtime
from app.services.scheduler_service import SchedulerService, TaskExecutionResult
from app.testing.inline_journal import InlineJournal
from app.testing.virtual_loop import VirtualLoop

T = TypeVar("T")


class SandboxNode:
    """The one node of a sandbox. It never beats: nobody but `SandboxRuntime.crash()` declares it dead."""

    def __init__(self, runtime: SandboxRuntime) -> None:
        settings, clock = runtime.settings, runtime.clock
        self.node_id = new_node_id()
        lease = Lease(math.inf, clock)
        self.runner = Runner(
            service=runtime.service,
            sessions=runtime.sessions,
            journal=runtime.journal,
            events=runtime.events,
            clock=clock,
            lease=lease,
            uniform=runtime.uniform,
            line_limit=settings.scheduler_log_lines,
            default_timeout=settings.scheduler_timeout_seconds,
            on_waiting=lambda at: self.engine.wake(at),
            on_unstarted=lambda attempt: self.engine.unstarted(attempt),
            on_ended=lambda execution_id: self.engine.attempt_ended(execution_id),
            on_settled=lambda execution_id, retry_at: self.engine.settled(execution_id, retry_at),
            spawn=runtime.commands.spawn,
            carry=runtime.carry,
            tracer=runtime.tracer,
        )
        self.lease_seconds = math.inf
        self.loop_held: Held | None = None
        """Nothing holds a loop whose time is virtual."""
        self.engine: ExecutionEngine = InlineEngine(
            service=runtime.service,
            journal=runtime.journal,
            runner=self.runner,
            clock=clock,
            node_id=self.node_id,
            concurrency=settings.scheduler_concurrency,
            priority_step_seconds=settings.scheduler_priority_step_seconds,
        )
        self._heartbeat = Heartbeat(
            runtime.engine,
            clock,
            lease,
            node_id=self.node_id,
            role=runtime.role,
            engine_name=self.engine.name,
            version=package_version(),
        )
        self._forget_lines = keep_log_lines(self.node_id, settings.log_level)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._heartbeat.register()
        self.engine.start(loop)

    async def stop(self, grace_seconds: float, journal: Journal) -> None:
        await self.engine.drain(grace_seconds)
        journal.close()
        self._heartbeat.stop(leave=True)
        self._forget_lines()

    def lose_everything(self) -> None:
        self.engine.lose_everything()
        self._forget_lines()


class SandboxCommands(Commands):
    """What reads the database in a thread would let virtual time stand still: here it runs on the virtual loop."""

    def __init__(self, runtime: SandboxRuntime) -> None:
        super().__init__(runtime, runtime.tasks, runtime.alerts)
        self._on_virtual_loop = runtime.on_virtual_loop

    async def run_now(self, task_id: int, **request: Any) -> Execution:
        return await self._on_virtual_loop(super().run_now(task_id, **request))


class SandboxRuntime(Runtime):
    """Everything durable behind a sandbox's service. The clock is a timer of the virtual loop."""

    def __init__(
        self,
        service: SchedulerService,
        *,
        settings: Settings,
        sessions: sessionmaker[Session],
        clock: Clock,
        loop: VirtualLoop,
        seed: int,
    ) -> None:
        super().__init__(
            service,
            settings=settings,
            sessions=sessions,
            clock=clock,
            uniform=random.Random(seed).random,  # noqa: S311 - repeatable draws are the point
            journal=InlineJournal(sessions.kw["bind"], loop),
        )
        self._virtual = loop
        self.commands = SandboxCommands(self)
        self._node: SandboxNode | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._alert_timer: asyncio.TimerHandle | None = None
        self._ticks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        if self._node is not None:
            return
        self.reconcile_declarations()
        self._loop = self._virtual
        self.live = self._node = SandboxNode(self)
        self._node.start(self._virtual)
        self._schedule_tick(self.clock.now())
        self._schedule_alerts()

    def speak_up(self) -> None:
        """Store what running attempts have said so far."""
        if self._node is not None:
            self._node.runner.speak_up()

    def crash(self) -> int:
        """End the node as a killed process ends, and rescue what it ran; returns how many executions that is."""
        if self._node is None:
            return 0
        node, self._node, self.live = self._node, None, None
        self._cancel_timer()
        self._cancel_alert_timer()
        lost = self.journal.step_blocking(
            partial(
                rescue,
                node_id=node.node_id,
                beats=0,
                now=self.clock.now(),
                max_rescues=self.settings.scheduler_max_rescues,
            )
        )
        # Only now: whatever their code says while it is torn down, the fence refuses.
        node.lose_everything()
        return len(lost)

    def shutdown(self, *, wait: bool) -> None:
        self._virtual.complete(self.drain(None if wait else 0.0))

    async def drain(self, timeout: float | None) -> None:
        await self.on_virtual_loop(super().drain(timeout))

    async def wait(self, execution_id: int, timeout: float | None) -> TaskExecutionResult:
        return await self.on_virtual_loop(self._wait(execution_id, timeout))

    async def _wait(self, execution_id: int, timeout: float | None) -> TaskExecutionResult:
        changed = asyncio.Event()
        unsubscribe = self.events.subscribe(lambda _: changed.set())
        try:
            async with asyncio.timeout(timeout):
                while not (execution := self.history.get(execution_id)).is_final:
                    changed.clear()
                    await changed.wait()
        finally:
            unsubscribe()
        return outcome_of(execution)

    async def on_virtual_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Asked for from the test's own loop, `work` runs here to its end, and virtual time passes."""
        if asyncio.get_running_loop() is self._virtual:
            return await work
        return self._virtual.complete(work)

    async def _stop(self, live: Live, grace_seconds: float) -> None:
        self._cancel_timer()
        self._cancel_alert_timer()
        await live.stop(grace_seconds, self.journal)
        self.live = self._node = self.stopping = None

    def _schedule_tick(self, at: datetime | None) -> None:
        self._cancel_timer()
        if not self.is_running:
            return
        moment = at if at is not None else self._moment_of_next_try()
        if moment is not None:
            ahead = max((moment - self.clock.now()).total_seconds(), 0.0)
            self._timer = self._virtual.call_at(self._virtual.time() + ahead, self._begin_tick)

    def _moment_of_next_try(self) -> datetime | None:
        """When to look again after a tick that named no fire: no task waits for one, or the tick failed."""
        with self.sessions() as session:
            due = next_fire_at(session.connection())
        return max(due, self.clock.now() + timedelta(seconds=CLOCK_SECONDS)) if due is not None else None

    def _begin_tick(self) -> None:
        self._begin(self._tick())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._virtual.create_task(work)
        self._ticks.add(task)
        task.add_done_callback(self._ticks.discard)

    def _wake_alerts(self) -> None:
        if self.is_running:
            self._schedule_alerts()

    def _schedule_alerts(self) -> None:
        """Check alert rules when the next one is due; where there is none, nothing wakes up."""
        self._cancel_alert_timer()
        with self.sessions() as session:
            due = due_at(session)
        if due is not None:
            ahead = max((due - self.clock.now()).total_seconds(), 0.0)
            self._alert_timer = self._virtual.call_at(
                self._virtual.time() + ahead, lambda: self._begin(self._check_due_alerts())
            )

    async def _check_due_alerts(self) -> None:
        await self.check_alerts()
        if self.is_running:
            self._schedule_alerts()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancel_alert_timer(self) -> None:
        if self._alert_timer is not None:
            self._alert_timer.cancel()
            self._alert_timer = None
