"""The durable half of `SchedulerService`: what is made of what, and the order of start and stop."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, TypeVar

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from loguru import logger
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock, SystemClock
from app.core.config import Settings, get_settings
from app.core.errors import Conflict, InvalidRequest, NotFound, SchedulerError, SchedulerUnavailable
from app.core.redaction import refuse_masks, restore
from app.db.database import SessionLocal, journal_engine
from app.db.database import make_engine as make_database
from app.db.schema import current_revision, upgrade
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.alerting.checking import Look, look_at_due, settle
from app.scheduler.alerting.observing import DELIVERY
from app.scheduler.alerting.store import AlertStore
from app.scheduler.alerting.verdicts import Notice
from app.scheduler.attention import RECENT, Attention, Example, Finding, Severity
from app.scheduler.attention import Kind as FindingKind
from app.scheduler.backfills import preview_backfill, record_backfill
from app.scheduler.breaker import Phase
from app.scheduler.buckets import forget_idle
from app.scheduler.bulk_requests import bulk_values, record_many
from app.scheduler.children import RecordChild
from app.scheduler.circuits import read_circuits, reset_circuit
from app.scheduler.context import keep_log_lines
from app.scheduler.declarations import reconcile
from app.scheduler.definitions import TaskDefinition
from app.scheduler.description import Language
from app.scheduler.doctor.schedules import Report, ScheduleDoctor
from app.scheduler.engines.choice import courier_of, make_engine, prepare
from app.scheduler.engines.pool import NodeParts
from app.scheduler.engines.protocol import Engine as ExecutionEngine
from app.scheduler.events import CircuitChanged, EventBus, ExecutionChanged
from app.scheduler.executions import Recorded, RecordExecution, read_execution, reopen, request_cancel
from app.scheduler.explain import explain
from app.scheduler.family import CalledOff
from app.scheduler.firing import Fired, arm_tasks, fire_due, fire_now, next_fire_at
from app.scheduler.flow_status import CircuitStatus, FlowStatus, circuit_status, flow_status
from app.scheduler.gate import flow_rules
from app.scheduler.history import History
from app.scheduler.interpreter import InterpreterTuning
from app.scheduler.journal import Journal
from app.scheduler.lock_order import lock_rows
from app.scheduler.loop_guard import Held, LoopGuard
from app.scheduler.nodes import Heartbeat, Lease, Undertaker, new_node_id
from app.scheduler.outcome import outcome_of
from app.scheduler.pace import Backfill, Pace
from app.scheduler.repeats import Debounce, Once, Repeats, Throttle
from app.scheduler.request_keys import forget_expired, record_under
from app.scheduler.requests import (
    checked_signal,
    execution_values,
    insert_into,
    insert_under,
    within,
)
from app.scheduler.retention import BATCH, prune
from app.scheduler.runner import Runner
from app.scheduler.statistics import Statistics
from app.scheduler.steps import Fence, SendSignal, Signal
from app.scheduler.tasks import TaskStore
from app.scheduler.telemetry import UNMEASURED, UNTRACED, Meter, Origin, Tracer
from app.scheduler.upcoming import Upcoming
from app.services.scheduler_service import (
    SchedulerService,
    TaskExecutionResult,
    TaskExecutor,
    describe_error,
)

T = TypeVar("T")

FIRE_BATCH = 1_000
LAUNCH_BATCHES = 20
CLOCK_SECONDS = 1.0
PRUNE_SECONDS = 60.0
ALERT_SECONDS = 5.0
WAIT_POLL_SECONDS = 0.5
_CLOCK_JOB = "contenthub-clock"
_PRUNE_JOB = "contenthub-retention"
_ALERT_JOB = "contenthub-alerts"


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


class _Live:
    """One start of one node: its lease, its heartbeat, its engine. A lost lease ends it; the next start is new."""

    def __init__(self, runtime: Runtime) -> None:
        settings, clock = runtime.settings, runtime.clock
        self.node_id = new_node_id()
        self.lease = Lease(settings.scheduler_lease_seconds, clock)
        self.runner = Runner(
            service=runtime.service,
            sessions=runtime.sessions,
            journal=runtime.journal,
            events=runtime.events,
            clock=clock,
            lease=self.lease,
            uniform=runtime.uniform,
            line_limit=settings.scheduler_log_lines,
            default_timeout=settings.scheduler_timeout_seconds,
            on_waiting=lambda at: self.engine.wake(at),
            on_unstarted=lambda attempt: self.engine.unstarted(attempt),
            on_ended=lambda execution_id: self.engine.attempt_ended(execution_id),
            on_settled=lambda execution_id, retry_at: self.engine.settled(execution_id, retry_at),
            spawn=runtime.spawn,
            carry=runtime.carry,
            tracer=runtime.tracer,
        )
        self._meter = runtime.meter
        self.engine: ExecutionEngine = make_engine(
            settings,
            NodeParts(
                node_id=self.node_id,
                service=runtime.service,
                database=runtime.engine,
                journal=runtime.journal,
                runner=self.runner,
                undertaker=Undertaker(self.lease, node_id=self.node_id),
                clock=clock,
                concurrency=settings.scheduler_concurrency,
                loop_concurrency=settings.scheduler_loop_concurrency,
                max_rescues=settings.scheduler_max_rescues,
                priority_step_seconds=settings.scheduler_priority_step_seconds,
            ),
            role=runtime.role,
            claims=runtime.claimable_here,
        )
        self.heartbeat = Heartbeat(
            runtime.engine,
            clock,
            self.lease,
            node_id=self.node_id,
            role=runtime.role,
            engine_name=self.engine.name,
            version=package_version(),
        )
        self._forget_lines = keep_log_lines(self.node_id, settings.log_level)

    @property
    def loop_held(self) -> Held | None:
        return self.guard.held

    @property
    def lease_seconds(self) -> float:
        return self.lease.remaining_seconds

    def start(self, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], object]) -> None:
        self.heartbeat.register()
        self.heartbeat.start(self.engine.lease_lapsed, on_lost)
        self.guard = LoopGuard(loop, self.runner.executor_of, self._meter)
        self.guard.start()
        self.engine.start(loop)

    async def stop(self, grace_seconds: float, journal: Journal) -> None:
        """Drain, make everything durable, leave."""
        await self.engine.drain(grace_seconds)
        self.guard.stop()
        await asyncio.to_thread(journal.close)
        # A node whose code still blocks a thread stays listed until its lease is over: only then may what it
        # runs be started elsewhere.
        await asyncio.to_thread(self.heartbeat.stop, leave=not self.runner.running)
        self._forget_lines()


def package_version() -> str:
    """The installed version, or `0` in a tree that is not installed."""
    try:
        return version("contenthub-scheduler")
    except PackageNotFoundError:
        return "0"


class Runtime:
    """Everything durable behind one `SchedulerService`, on one database."""

    def __init__(
        self,
        service: SchedulerService,
        *,
        settings: Settings | None = None,
        sessions: sessionmaker[Session] = SessionLocal,
        clock: Clock | None = None,
        uniform: Callable[[], float] = random.random,
        role: str = "all",
        journal: Journal | None = None,
    ) -> None:
        self.service = service
        self.settings = settings or get_settings()
        self.sessions = sessions
        self.clock = clock or SystemClock()
        self.uniform = uniform
        self.role = role
        self.events = EventBus()
        self.journal = journal or Journal(journal_engine(self.engine, self.settings), before=lock_rows)
        self.tracer: Tracer = UNTRACED
        self.meter: Meter = UNMEASURED
        self.history = History(sessions)
        self.statistics = Statistics(sessions)
        self.upcoming = Upcoming(sessions)
        self._doctor = ScheduleDoctor(sessions)
        self._courier = courier_of(self.settings)
        self.carry = self._courier.carry
        self.tasks = TaskStore(service, sessions, self.clock, self._wake_clock)
        self.alerts = AlertStore(sessions, self.clock, self._wake_alerts)
        self._declared: dict[str, TaskDefinition] = {}
        self._asked: list[int] = []
        self._scheduler: AsyncIOScheduler | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._live: Live | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._tuning = InterpreterTuning(self.settings.scheduler_switch_interval_seconds)
        self._ticking = False
        self._tick_again = False
        self._last_tick: datetime | None = None
        self._waiters: dict[int, list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}
        self._waiters_lock = threading.Lock()
        self.events.subscribe(self._tell_waiters)

    # ------------------------------------------------------------ what it is made of

    @property
    def engine(self) -> Engine:
        """The database engine of `sessions`."""
        bind = self.sessions.kw["bind"]
        assert isinstance(bind, Engine)  # noqa: S101 - tells the type checker what configure() bound
        return bind

    @property
    def scheduler(self) -> AsyncIOScheduler:
        """The APScheduler that carries the clock; a new one after each shutdown."""
        if self._scheduler is None:
            self._scheduler = AsyncIOScheduler(timezone="UTC")
        return self._scheduler

    @property
    def is_running(self) -> bool:
        return self._live is not None and self._stopping is None

    @property
    def node_id(self) -> str | None:
        """This process's node while it runs."""
        return self._live.node_id if self._live is not None else None

    def claimable_here(self) -> Sequence[int] | None:
        """The executions this process may claim: all (None), or for a one-off command those it asked for."""
        return list(self._asked) if self.role == "cli" else None

    def ask_for(self, execution_ids: Sequence[int]) -> None:
        """Let a one-off command claim these executions; other roles claim whatever waits."""
        if self.role == "cli":
            self._asked.extend(execution_ids)

    def observe(self, *, tracer: Tracer, meter: Meter) -> None:
        """Tell both what happens from the next start on."""
        self.tracer, self.meter = tracer, meter
        self.journal.meter = meter

    # ------------------------------------------------------------ start and stop

    def start(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise SchedulerUnavailable(
                "start() needs a running event loop: call it from async code, for example in FastAPI's lifespan, "
                "or run it with asyncio.run()"
            ) from None
        if self._live is not None:
            if self._stopping is not None:
                raise SchedulerUnavailable("the scheduler is shutting down; await drain() before start()")
            return
        if current_revision(self.engine) is None:
            self.prepare_database()  # first boot: the tables, before anybody looks for tasks
        if self.role != "cli":
            reconcile(self._declared, self.tasks, self.sessions)
        self._loop = loop
        self._live = self._join(loop)
        self._tuning.apply()
        if self.role != "cli":
            self._start_clock()
        logger.info("调度器已启动 (节点: {}, 引擎: {})", self._live.node_id, self._live.engine.name)

    def prepare_database(self) -> None:
        """Bring the schema to head, and what the engine keeps in the database with it. Blocks."""
        upgrade(self.settings)
        prepare(self.settings, self.engine)

    def _join(self, loop: asyncio.AbstractEventLoop) -> _Live:
        live = _Live(self)
        live.start(loop, lambda: loop.call_soon_threadsafe(self._rejoin, live))
        return live

    def _rejoin(self, lost: _Live) -> None:
        """The node was declared dead: end what it runs and come back as a new one."""
        lost.engine.lose_everything()
        if self._live is lost and self._stopping is None and self._loop is not None:
            self._live = self._join(self._loop)

    def shutdown(self, *, wait: bool) -> None:
        if self._live is None or self._loop is None:
            return
        grace = None if wait else 0.0
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            self._begin_stop(grace)
        elif self._loop.is_running():
            future = asyncio.run_coroutine_threadsafe(self.drain(grace), self._loop)
            if wait:
                future.result()
        else:
            # The loop it ran in has ended without a shutdown: what is left is stopped from a new one.
            self._scheduler = None
            self._stopping = None
            asyncio.run(self.drain(grace))

    def close(self) -> None:
        """Make durable what was handed in and let go of the database; a later use opens it again. Blocks."""
        self.journal.close()
        self.journal.engine.dispose()
        self.engine.dispose()

    async def drain(self, timeout: float | None) -> None:
        stopping = self._begin_stop(timeout)
        if stopping is not None:
            await asyncio.shield(stopping)

    def _begin_stop(self, grace: float | None) -> asyncio.Task[None] | None:
        if self._live is not None and self._stopping is None:
            seconds = self.settings.scheduler_grace_seconds if grace is None else grace
            self._stopping = asyncio.get_running_loop().create_task(self._stop(self._live, seconds))
        return self._stopping

    async def _stop(self, live: Live, grace_seconds: float) -> None:
        logger.info("调度器正在关闭，最多等待 {} 秒", grace_seconds)
        try:
            while self._ticking:  # noqa: ASYNC110 - one transaction; APScheduler would cancel it half-way
                await asyncio.sleep(0.005)
            if self._scheduler is not None and self._scheduler.running:
                self._scheduler.shutdown(wait=False)
                await asyncio.sleep(0)
            await live.stop(grace_seconds, self.journal)
        finally:
            self._tuning.undo()
            self._scheduler = None
            self._live = None
            self._loop = None
            self._stopping = None
            self._ticking = False
        logger.info("调度器已关闭")

    # ------------------------------------------------------------ the clock

    def _start_clock(self) -> None:
        self.scheduler.add_job(
            self._prune,
            "interval",
            seconds=PRUNE_SECONDS,
            id=_PRUNE_JOB,
            replace_existing=True,
            misfire_grace_time=None,
        )
        self.scheduler.add_job(
            self.check_alerts,
            "interval",
            seconds=ALERT_SECONDS,
            id=_ALERT_JOB,
            replace_existing=True,
            misfire_grace_time=None,
            coalesce=True,
        )
        if not self.scheduler.running:
            self.scheduler.start()
        self._schedule_tick(self.clock.now())

    def _schedule_tick(self, at: datetime | None) -> None:
        """Let APScheduler call the clock at `at`, and at the latest in a second."""
        if self._scheduler is None or not self.is_running:
            return
        now = self.clock.now()
        latest = now + timedelta(seconds=CLOCK_SECONDS)
        moment = min(at, latest) if at is not None else latest
        self._scheduler.add_job(
            self._tick,
            "date",
            run_date=max(moment, now),
            id=_CLOCK_JOB,
            replace_existing=True,
            misfire_grace_time=None,
            max_instances=2,
        )

    def _wake_clock(self) -> None:
        """A schedule has changed: look at once. Safe from any thread."""
        loop = self._loop
        if loop is not None and self.is_running and self.role != "cli":
            loop.call_soon_threadsafe(self._schedule_tick, self.clock.now())

    async def _tick(self) -> None:
        if self._ticking:
            self._tick_again = True
            return
        self._ticking = True
        next_fire: datetime | None = None
        try:
            next_fire = await self._fire_all_due()
            self._last_tick = self.clock.now()
        except (SchedulerError, SQLAlchemyError) as error:
            logger.error("调度时钟本轮失败，将在一秒后重试: {}", error)
        except Exception as error:  # noqa: BLE001 - the next turn of the clock comes all the same
            logger.opt(exception=error).error("调度时钟本轮出错，将在一秒后重试: {}", describe_error(error))
        finally:
            self._ticking = False
            again, self._tick_again = self._tick_again, False
            self._schedule_tick(self.clock.now() if again else next_fire)

    async def _fire_all_due(self) -> datetime | None:
        """Fire what is due, batch by batch, and start it when all of it is in the ledger.

        Attempts compete with the firing for the interpreter, and a fire recorded late is worse than one that
        starts a little later.
        """
        live = self._live
        fired: list[Fired] = []
        next_fire: datetime | None = None
        try:
            while live is not None and self.is_running:
                batch, next_fire = await self.journal.step(
                    partial(self._fire_batch, live), lambda outcome: fired.append(outcome[0])
                )
                if batch.tasks < FIRE_BATCH:
                    break
                if len(fired) >= LAUNCH_BATCHES:
                    await asyncio.to_thread(self._launch_all, live, fired)
        finally:
            await asyncio.to_thread(self._launch_all, live, fired)
        return next_fire

    def _launch_all(self, live: Live | None, fired: list[Fired]) -> None:
        while fired:
            self._launch(live, fired.pop(0))

    def _fire_batch(self, live: Live, connection: Connection) -> tuple[Fired, datetime | None]:
        now = self.clock.now()
        arm_tasks(connection, now=now, limit=FIRE_BATCH)
        with self.tracer.fire() as origin:
            fired = fire_due(connection, now=now, limit=FIRE_BATCH, owner_of=live.engine.owner_of, origin=origin)
            self._carry(connection, fired)
        return fired, next_fire_at(connection)

    def _carry(self, connection: Connection, fired: Fired) -> None:
        self._courier.carry(connection, fired.executions)
        if fired.cancel:
            self._courier.carry_cancel(connection, fired.cancel)

    def _launch(self, live: Live | None, fired: Fired) -> None:
        """After the commit: start what was fired here, end what it displaces."""
        for execution in fired.executions:
            if execution.is_final:
                self.events.publish(ExecutionChanged(execution.id, execution.state))
        if live is not None:
            live.engine.offer(fired.executions)
            live.engine.end(fired.cancel)

    async def _prune(self) -> None:
        await self.journal.step(lambda connection: forget_idle(connection, self.clock.now()))
        await self.journal.step(lambda connection: forget_expired(connection, self.clock.now()))
        pruned = BATCH
        while pruned == BATCH and self.is_running:
            pruned = await self.journal.step(
                lambda connection: prune(
                    connection, now=self.clock.now(), keep_days=self.settings.scheduler_retention_days
                )
            )

    # ------------------------------------------------------------ alerts

    async def check_alerts(self) -> None:
        """Check the alert rules that are due and that no other node checks first. What fails is tried again."""
        live = self._live if self.is_running else None
        try:
            looks = await asyncio.to_thread(self._look_at_alerts)
            if looks and live is not None:
                await self.journal.step(partial(self._settle_alerts, live, looks), live.engine.offer)
        except (SchedulerError, SQLAlchemyError) as error:
            logger.error("告警检查本轮失败，稍后重试: {}", error)
        except Exception as error:  # noqa: BLE001 - the next turn comes all the same
            logger.opt(exception=error).error("告警检查本轮出错，稍后重试: {}", describe_error(error))

    def _look_at_alerts(self) -> list[Look]:
        with self.sessions() as session:
            return look_at_due(session, self.clock.now())

    def _settle_alerts(self, live: Live, looks: list[Look], connection: Connection) -> list[Execution]:
        return settle(
            connection,
            looks,
            now=self.clock.now(),
            owner_of=live.engine.owner_of,
            carry=self._courier.carry,
        )

    def _wake_alerts(self) -> None:
        """A rule has changed. It is due, and the next look is seconds away."""

    async def test_channel(self, channel_id: int, *, trigger: str = "code", by: str | None = None) -> Execution:
        """Send a test message to a channel, as an execution whose outcome says whether it arrived.

        Raises:
            NotFound; ExecutorNotFound: the backend has no `alert_delivery`.
        """
        channel = await asyncio.to_thread(self.alerts.channel, channel_id)
        params = {"notice": Notice.TEST.value, "channel_id": channel.id}
        return await self.enqueue(DELIVERY, params, db=None, max_attempts=1, trigger=trigger, triggered_by=by)

    # ------------------------------------------------------------ requests

    async def enqueue(
        self, task_type: str, params: dict[str, Any], *, db: Session | AsyncSession | None, **request: Any
    ) -> Execution:
        repeats: Repeats | None = request.get("repeats")
        if repeats is not None and not isinstance(repeats, Debounce | Throttle | Once):
            raise InvalidRequest.of("repeats", f"repeats is a Debounce, Throttle or Once, not {repeats!r}")
        refuse_masks(params)
        values = await self._checked(task_type, partial(self._checked_values, task_type, params, request))
        with self.tracer.enqueue(task_type) as origin:
            values["trace_context"] = origin.trace_context()
            execution = await self._record(values, db, repeats)
            origin.recorded([execution])
            return execution

    async def _record(
        self, values: dict[str, Any], db: Session | AsyncSession | None, repeats: Repeats | None = None
    ) -> Execution:
        now = values["created_at"]
        live = self._live if self.is_running else None
        if db is not None and repeats is not None:
            return await insert_under(db, values, repeats, now, self._courier.carry, self._wake_engine)
        if db is not None:
            return await insert_into(db, values, self._courier.carry, self._wake_engine)
        if live is not None:
            values["owner"] = live.engine.owner_of(values)

        def stored(recorded: Recorded) -> None:
            if recorded.is_new and live is not None:
                self.ask_for([recorded.execution.id])
                live.engine.offer([recorded.execution])

        if repeats is not None:
            record = partial(record_under, values=values, policy=repeats, now=now, carry=self._courier.carry)
            return (await self.journal.step(record, stored)).execution
        return (await self.journal.commit(RecordExecution(values, self._courier.carry), stored)).execution

    async def enqueue_many(
        self, items: Sequence[Mapping[str, Any]], *, trigger: str, triggered_by: str | None
    ) -> list[Execution]:
        now = self.clock.now()
        rows = await asyncio.to_thread(
            bulk_values, self.service, items, now, trigger=trigger, triggered_by=triggered_by
        )
        live = self._live if self.is_running else None
        if live is not None:
            for row in rows:
                row["owner"] = live.engine.owner_of(row)

        def stored(recorded: list[Recorded]) -> None:
            if live is not None:
                fresh = [one.execution for one in recorded if one.is_new]
                self.ask_for([execution.id for execution in fresh])
                live.engine.offer(fresh)

        with self.tracer.enqueue("bulk") as origin:
            for row in rows:
                row["trace_context"] = origin.trace_context()
            record = partial(record_many, rows=rows, carry=self._courier.carry)
            executions = [one.execution for one in await self.journal.step(record, stored)]
            origin.recorded(executions)
            return executions

    async def backfill(
        self, task_id: int, start: datetime, end: datetime, *, pace: Pace, triggered_by: str | None
    ) -> Backfill:
        live = self._live if self.is_running else None

        def record(connection: Connection) -> tuple[Backfill, list[Execution]]:
            made, recorded = record_backfill(
                connection,
                task_id,
                start,
                end,
                now=self.clock.now(),
                pace=pace,
                triggered_by=triggered_by,
                owner_of=live.engine.owner_of if live is not None else lambda _: None,
            )
            self._courier.carry(connection, recorded)
            return made, recorded

        def stored(outcome: tuple[Backfill, list[Execution]]) -> None:
            self.ask_for(outcome[0].execution_ids)
            if live is not None:
                live.engine.offer(outcome[1])

        return (await self.journal.step(record, stored))[0]

    def preview_backfill(self, task_id: int, start: datetime, end: datetime) -> Backfill:
        """What `backfill()` would record.

        Raises:
            NotFound, InvalidRequest: as `backfill()`.
        """
        with self.sessions() as session:
            return preview_backfill(session.connection(), task_id, start, end, self.clock.now())

    async def reset_circuit(self, task_type: str) -> None:
        """Close the circuit of an executor by hand: what waits for it may start, its past is forgiven.

        Raises:
            NotFound: no executor of that type has a circuit.
        """
        known = self.service.get_executor(task_type)

        def reset(connection: Connection) -> Phase:
            if (known is None or known.circuit_breaker is None) and task_type not in read_circuits(connection):
                raise NotFound("circuit", task_type)
            return reset_circuit(connection, task_type, self.clock.now())

        before = await self.journal.step(reset)
        if before is not Phase.CLOSED:
            logger.info("执行器 {} 的熔断器已手动复位", task_type)
            self.events.publish_circuit(CircuitChanged(task_type, Phase.CLOSED))
        self._wake_engine(self.clock.now())

    def circuits(self) -> list[CircuitStatus]:
        """The circuits of executors."""
        with self.sessions() as session:
            return circuit_status(session.connection(), flow_rules(self.service))

    def flow(self) -> FlowStatus:
        """Rate limits, concurrency keys and circuits, with their present level."""
        with self.sessions() as session:
            return flow_status(session.connection(), flow_rules(self.service), self.clock.now())

    async def _checked(self, task_type: str, check: Callable[[], T]) -> T:
        """What `check` says. Where an executor's own code looks at the params, it must not hold the caller's loop,
        which may be the application's."""
        executor = self.service.get_executor(task_type)
        if executor is None or type(executor).validate_params is TaskExecutor.validate_params:
            return check()
        return await asyncio.to_thread(check)

    def _checked_values(
        self, task_type: str, params: dict[str, Any], request: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The row of a request that an executor here accepts."""
        if not isinstance(params, dict):
            raise InvalidRequest.of("params", f"params must be an object, not {type(params).__name__}")
        self.service.check(task_type, params)
        return execution_values(self.clock.now(), task_type=task_type, params=params, **request)

    async def run_now(
        self, task_id: int, *, params: dict[str, Any] | None, trigger: str, triggered_by: str | None
    ) -> Execution:
        task = await asyncio.to_thread(self.tasks.get, task_id)
        if params is not None:
            # A client that read the stored params, masked, and sends them back changed means the stored secrets.
            params = restore(params, task.params)
            refuse_masks(params)
        wanted = task.params if params is None else params
        await self._checked(task.task_type, partial(self.service.check, task.task_type, wanted))
        live = self._live if self.is_running else None

        def fire(origin: Origin, connection: Connection) -> Fired:
            fired = fire_now(
                connection,
                task_id,
                now=self.clock.now(),
                params=params,
                trigger=trigger,
                triggered_by=triggered_by,
                owner_of=live.engine.owner_of if live is not None else lambda _: None,
                origin=origin,
            )
            self._carry(connection, fired)
            return fired

        def stored(fired: Fired) -> None:
            self.ask_for([execution.id for execution in fired.executions])
            self._launch(live, fired)

        with self.tracer.enqueue(task.task_type) as origin:
            return (await self.journal.step(partial(fire, origin), stored)).executions[0]

    async def spawn(
        self, parent: Fence, key: str, task_type: str, params: dict[str, Any], options: Mapping[str, Any]
    ) -> Execution | None:
        """Record a child of a running attempt, once a key; None: the attempt has been taken over or called off.

        Raises:
            ExecutorNotFound, InvalidParameters, InvalidRequest: refused, nothing stored.
        """
        values = self._checked_values(task_type, params, {"trigger": "parent", **options})
        if values["idempotency_key"] is not None:
            raise InvalidRequest.of("idempotency_key", "a child is known by its key; give it no idempotency_key")
        if options.get("repeats") is not None:
            raise InvalidRequest.of("repeats", "a child is known by its key; give it no repeats")
        values |= {"parent_id": parent.execution_id, "child_key": key}
        live = self._live if self.is_running else None
        if live is not None:
            values["owner"] = live.engine.owner_of(values)

        def stored(recorded: Recorded | None) -> None:
            if recorded is not None and recorded.is_new and live is not None:
                self.ask_for([recorded.execution.id])
                live.engine.offer([recorded.execution])

        with self.tracer.enqueue(task_type) as origin:
            values["trace_context"] = origin.trace_context()
            recorded = await self.journal.commit(RecordChild(parent, values, self._courier.carry), stored)
            if recorded is None:
                return None
            origin.recorded([recorded.execution])
            return recorded.execution

    async def signal(
        self,
        execution_id: int,
        name: str,
        payload: Any,
        *,
        db: Session | AsyncSession | None,
        signalled_by: str | None,
        guard: Callable[[Connection], object] | None = None,
    ) -> Signal:
        """`guard` is called first, in the same transaction, and raises where the signal must not be sent."""
        name, payload = checked_signal(name, payload)
        now = self.clock.now()
        write = SendSignal(execution_id, name, payload, signalled_by, now, self.carry)

        def guarded(connection: Connection) -> Signal | SchedulerError:
            if guard is not None:
                guard(connection)
            return write.apply(connection)

        if db is not None:
            sent = await within(db, guarded, now, self._wake_engine)
        elif guard is not None:
            sent = await self.journal.step(guarded, lambda _: self._wake_engine(now))
        else:
            sent = await self.journal.commit(write, lambda _: self._wake_engine(now))
        if isinstance(sent, SchedulerError):
            raise sent
        return sent

    async def cancel(self, execution_id: int) -> Execution:
        def ask(connection: Connection) -> tuple[Execution, CalledOff]:
            asked, family = request_cancel(connection, execution_id, self.clock.now())
            if not asked.is_final:
                family.asked.append(execution_id)
            if family.asked:
                self._courier.carry_cancel(connection, family.asked)
            return asked, family

        execution, family = await self.journal.step(ask)
        if execution.is_final:
            family.ended.append(execution_id)
        for ended in family.ended:
            self.events.publish(ExecutionChanged(ended, ExecutionState.CANCELLED))
        if execution.parent_id is not None:
            self._wake_engine(self.clock.now())
        live = self._live
        if live is not None and family.asked:
            live.engine.end(family.asked)
            if execution.owner == live.node_id and not execution.is_final:
                execution = await self.journal.step(partial(read_execution, execution_id))
        return execution

    async def retry(self, execution_id: int) -> Execution:
        def put_back(connection: Connection) -> list[Execution]:
            self._refuse_retry(read_execution(execution_id, connection, lock=True))
            reopened = reopen(connection, execution_id, self.clock.now(), self._got_over)
            for child in reopened[1:]:
                self._refuse_retry(child)
            self._courier.carry(connection, reopened)
            return reopened

        reopened = await self.journal.step(put_back)
        self.ask_for([execution.id for execution in reopened])
        self._wake_engine(reopened[0].run_at)
        return reopened[0]

    def _got_over(self, parent: Execution, failed: list[str]) -> Collection[str]:
        executor = self.service.get_executor(parent.task_type)
        return executor.got_over(parent.params, failed) if executor is not None else ()

    def _refuse_retry(self, execution: Execution) -> None:
        executor = self.service.get_executor(execution.task_type)
        refusal = executor.refuse_retry(execution.result) if executor is not None else None
        if refusal is not None:
            raise Conflict(f"execution {execution.id} cannot be retried: {refusal}")

    async def wait(self, execution_id: int, timeout: float | None) -> TaskExecutionResult:
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        waiter = (loop, told)
        with self._waiters_lock:
            self._waiters.setdefault(execution_id, []).append(waiter)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    execution = await asyncio.to_thread(self.history.get, execution_id)
                    if execution.is_final:
                        return outcome_of(execution)
                    # It may end in another process, which tells nobody here: look again from time to time.
                    with suppress(TimeoutError):
                        await asyncio.wait_for(told.wait(), WAIT_POLL_SECONDS)
                    told.clear()
        finally:
            with self._waiters_lock:
                waiters = self._waiters[execution_id]
                waiters.remove(waiter)
                if not waiters:
                    del self._waiters[execution_id]

    def _tell_waiters(self, event: ExecutionChanged) -> None:
        with self._waiters_lock:
            waiters = list(self._waiters.get(event.execution_id, ()))
        for loop, told in waiters:
            with suppress(RuntimeError):  # its loop has ended, and with it the one who waited
                loop.call_soon_threadsafe(told.set)

    def _wake_engine(self, at: datetime) -> None:
        if self._live is not None:
            self._live.engine.wake(at)

    # ------------------------------------------------------------ questions

    def explain(self, task_id: int, at: datetime | None, language: Language = "en") -> str:
        return explain(self.sessions, task_id, at, self.clock.now(), language)

    def findings(self) -> list[Finding]:
        """What a person should look at first, worst first."""
        found = Attention(self.sessions).findings(
            self.clock.now(),
            known_types=self.service.executors().keys(),
            node_timeout=timedelta(seconds=2 * self.settings.scheduler_lease_seconds),
        )
        held = self._live.loop_held if self._live is not None else None
        if held is not None and time.monotonic() - held.at < RECENT.total_seconds():
            name = held.executor or "application"
            example = Example("executor", name, name)
            found.append(Finding(FindingKind.LOOP_HELD, Severity.WARNING, 1, (example,)))
        return found

    def examine_schedules(self, days: int) -> Report:
        """What the coming days of all active tasks will hurt. Blocks, for seconds where there are thousands.

        Raises:
            InvalidRequest: `days` is out of range.
        """
        runners = sum(node.role in ("all", "worker") for node in self.history.nodes())
        return self._doctor.examine(
            self.clock.now(),
            days=days,
            known_types=self.service.executors().keys(),
            lanes=max(1, runners) * self.settings.scheduler_concurrency,
            rates=flow_rules(self.service).rates,
        )

    def definition(self, values: Mapping[str, Any]) -> TaskDefinition:
        """A task definition from plain values, in the scheduler's zone where they name none.

        Raises:
            InvalidRequest: `errors` names every wrong field.
        """
        return TaskDefinition.parse({"timezone": self.settings.scheduler_timezone, **values})

    def define_task(self, definition: dict[str, Any]) -> None:
        parsed = self.definition(definition)
        if parsed.name in self._declared:
            raise Conflict(f"name: a task named {parsed.name!r} is declared twice in code")
        self._declared[parsed.name] = parsed

    def engine_status(self) -> dict[str, Any]:
        """What runs and waits in this process; empty while it is not running."""
        live = self._live
        return live.engine.status() if live is not None else {}

    @property
    def lease_seconds(self) -> float | None:
        """For how long this process's node is sure of its lease; None: it does not run."""
        return self._live.lease_seconds if self._live is not None else None

    def status(self) -> dict[str, Any]:
        """How this process and its database stand."""
        live = self._live
        with self.sessions() as session:
            next_fire = next_fire_at(session.connection())
        return {
            "running": self.is_running,
            "node": self.node_id,
            "role": self.role,
            "version": package_version(),
            "now": self.clock.now(),
            "last_tick_at": self._last_tick,
            "next_fire_at": next_fire,
            "tasks": self.tasks.count(),
            "executions": {state.value: count for state, count in self.history.counts().items()},
            "engine": live.engine.status() if live is not None else None,
            "journal": {
                "groups": self.journal.groups_committed,
                "writes": self.journal.writes_committed,
            },
            "database": self.engine.dialect.name,
            "nodes": len(self.history.nodes()),
        }


def build_service(settings: Settings, *, role: str = "all", clock: Clock | None = None) -> SchedulerService:
    """A service of its own on the database of `settings`, without executors; its schema must be there."""
    service = SchedulerService()
    sessions = sessionmaker(make_database(settings), expire_on_commit=False)
    service.attach(Runtime(service, settings=settings, sessions=sessions, role=role, clock=clock))
    return service


def runtime_of(service: SchedulerService) -> Runtime:
    """The runtime behind `service`, with its stores.

    Raises:
        TypeError: another implementation of the protocol was attached.
    """
    runtime = service.runtime
    if not isinstance(runtime, Runtime):
        raise TypeError(f"{type(runtime).__name__} is not app.scheduler.runtime.Runtime")
    return runtime
