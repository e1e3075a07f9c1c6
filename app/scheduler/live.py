"""One start of one node of production."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loguru import logger
from sqlalchemy.exc import SQLAlchemyError

from app.core.version import package_version
from app.scheduler.durable import Spawn
from app.scheduler.engines.choice import make_engine
from app.scheduler.engines.pool import NodeParts
from app.scheduler.engines.protocol import Engine as ExecutionEngine
from app.scheduler.foundation import Foundation
from app.scheduler.journal import Journal
from app.scheduler.log_lines import keep_log_lines
from app.scheduler.loop_guard import Held, LoopGuard
from app.scheduler.nodes import Heartbeat, Lease, Undertaker, new_node_id
from app.scheduler.runner import Runner


class LiveNode:
    """One start of one node: its lease, its heartbeat, its engine. A lost lease ends it; the next start is new."""

    def __init__(self, base: Foundation, spawn: Spawn) -> None:
        settings, clock = base.settings, base.clock
        self.node_id = new_node_id()
        self.lease = Lease(settings.scheduler_lease_seconds, clock)
        self.runner = Runner(
            service=base.service,
            sessions=base.sessions,
            journal=base.journal,
            events=base.events,
            clock=clock,
            lease=self.lease,
            uniform=base.uniform,
            line_limit=settings.scheduler_log_lines,
            default_timeout=settings.scheduler_timeout_seconds,
            on_waiting=lambda at: self.engine.wake(at),
            on_unstarted=lambda attempt: self.engine.unstarted(attempt),
            on_ended=lambda execution_id: self.engine.attempt_ended(execution_id),
            on_settled=lambda execution_id, retry_at: self.engine.settled(execution_id, retry_at),
            spawn=spawn,
            carry=base.carry,
            tracer=base.tracer,
            is_leaving=lambda: base.stopping is not None,
        )
        self._meter = base.meter
        self.engine: ExecutionEngine = make_engine(
            settings,
            NodeParts(
                node_id=self.node_id,
                service=base.service,
                database=base.engine,
                journal=base.journal,
                runner=self.runner,
                undertaker=Undertaker(self.lease, node_id=self.node_id),
                clock=clock,
                concurrency=settings.scheduler_concurrency,
                loop_concurrency=settings.scheduler_loop_concurrency,
                max_rescues=settings.scheduler_max_rescues,
                priority_step_seconds=settings.scheduler_priority_step_seconds,
            ),
            role=base.role,
            claims=base.claimable_here,
        )
        self.heartbeat = Heartbeat(
            base.engine,
            clock,
            self.lease,
            node_id=self.node_id,
            role=base.role,
            engine_name=self.engine.name,
            version=package_version(),
        )
        self._log_level = settings.log_level

    @property
    def loop_held(self) -> Held | None:
        return self.guard.held

    @property
    def lease_seconds(self) -> float:
        return self.lease.remaining_seconds

    def start(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], object]) -> None:
        """Begin to beat and to run; its heartbeat has registered it."""
        self._forget_lines = keep_log_lines(self.node_id, self._log_level)
        self.heartbeat.start(self.engine.lease_lapsed, on_lost)
        self.guard = LoopGuard(loop, self.runner.executor_of, self._meter)
        self.guard.start()
        self.engine.start(loop)

    def lose_everything(self) -> None:
        """It has been declared dead: others have what it held, and it looks after nothing any more."""
        self.engine.lose_everything()
        self.guard.stop()
        self._forget_lines()

    async def stop(self, grace_seconds: float, journal: Journal) -> None:
        """Drain, make everything durable, leave."""
        await self.engine.drain(grace_seconds)
        self.guard.stop()
        await asyncio.to_thread(journal.close)
        # A node whose code still blocks a thread stays listed until its lease is over: only then may what it
        # runs be started elsewhere.
        try:
            await asyncio.to_thread(self.heartbeat.stop, leave=not self.runner.running)
        except SQLAlchemyError as error:
            logger.warning("节点 {} 未能注销，租约到期后视为失联: {}", self.node_id, error)
        self._forget_lines()
