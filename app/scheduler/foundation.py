"""What everything durable in one process stands on, and which node the process is at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock
from app.core.config import Settings
from app.db.database import journal_engine
from app.models.task_execution import Execution
from app.scheduler.engines.choice import courier_of
from app.scheduler.engines.protocol import Engine as ExecutionEngine
from app.scheduler.events import EventBus, ExecutionChanged
from app.scheduler.firing import Fired
from app.scheduler.journal import Journal
from app.scheduler.lock_order import lock_rows
from app.scheduler.loop_guard import Held
from app.scheduler.telemetry import UNMEASURED, UNTRACED, Meter, Tracer
from app.services.scheduler_service import SchedulerService


class Live(Protocol):
    """One start of one node, as the rest of the runtime sees it."""

    node_id: str
    engine: ExecutionEngine

    @property
    def loop_held(self) -> Held | None:
        """When and by whom the application's loop was held last."""

    @property
    def lease_seconds(self) -> float:
        """How long this node may still start and finish attempts without another heartbeat."""

    async def stop(self, grace_seconds: float, journal: Journal) -> None:
        """Drain, make everything durable, leave."""


class Foundation:
    """The parts that all others share.

    Attributes:
        live: the node that this process is; None before a start and after the end.
        stopping: what ends it, once it is told to end.
        carry: tells the engine, in the transaction that records executions, that they are there.
    """

    def __init__(
        self,
        service: SchedulerService,
        *,
        settings: Settings,
        sessions: sessionmaker[Session],
        clock: Clock,
        uniform: Callable[[], float],
        role: str,
        journal: Journal | None,
    ) -> None:
        self.service = service
        self.settings = settings
        self.sessions = sessions
        self.clock = clock
        self.uniform = uniform
        self.role = role
        self.events = EventBus()
        self.journal = journal or Journal(journal_engine(self.engine, self.settings), before=lock_rows)
        self.tracer: Tracer = UNTRACED
        self.meter: Meter = UNMEASURED
        self.courier = courier_of(self.settings)
        self.carry = self.courier.carry
        self.live: Live | None = None
        self.stopping: asyncio.Task[None] | None = None
        self._asked: list[int] = []

    @property
    def engine(self) -> Engine:
        """The database engine of `sessions`."""
        bind = self.sessions.kw["bind"]
        assert isinstance(bind, Engine)  # noqa: S101 - tells the type checker what configure() bound
        return bind

    def observe(self, *, tracer: Tracer, meter: Meter) -> None:
        """Tell both what happens from the next start on."""
        self.tracer, self.meter = tracer, meter
        self.journal.meter = meter

    # ------------------------------------------------------------ the node

    @property
    def is_running(self) -> bool:
        return self.running_node is not None

    @property
    def running_node(self) -> Live | None:
        """The node, while it takes on work."""
        return self.live if self.stopping is None else None

    @property
    def node_id(self) -> str | None:
        """The node's id, from its start to its end."""
        return self.live.node_id if self.live is not None else None

    def claimable_here(self) -> Sequence[int] | None:
        """The executions this process may claim: all (None), or for a one-off command those it asked for."""
        return list(self._asked) if self.role == "cli" else None

    def ask_for(self, execution_ids: Sequence[int]) -> None:
        """Let a one-off command claim these executions; other roles claim whatever waits."""
        if self.role == "cli":
            self._asked.extend(execution_ids)

    # ------------------------------------------------------------ in a transaction, and after its commit

    def carry_fired(self, connection: Connection, fired: Fired) -> None:
        """Tell the engine of fires and of what they displace."""
        self.carry(connection, fired.executions)
        if fired.cancel:
            self.courier.carry_cancel(connection, fired.cancel)

    def launch(self, node: Live | None, fired: Fired) -> None:
        """After the commit: start what was fired here, end what it displaces."""
        for execution in fired.executions:
            if execution.is_final:
                self.events.publish(ExecutionChanged(execution.id, execution.state))
        if node is not None:
            node.engine.offer(fired.executions)
            node.engine.end(fired.cancel)

    def offer(self, node: Live | None, executions: Sequence[Execution]) -> None:
        """After the commit: start here what the node may start of what was recorded."""
        self.ask_for([execution.id for execution in executions])
        if node is not None:
            node.engine.offer(executions)

    def wake_engine(self, at: datetime) -> None:
        """There is work for the node at `at`."""
        if self.live is not None:
            self.live.engine.wake(at)


def owner_of(node: Live | None) -> Callable[[dict[str, Any]], str | None]:
    """Who owns the row of a new execution: the node that will start it at once, or nobody."""
    return node.engine.owner_of if node is not None else lambda _: None
