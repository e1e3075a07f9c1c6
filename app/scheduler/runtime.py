"""The durable half of `SchedulerService`: what is made of what, and the order of start and stop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from loguru import logger
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock, SystemClock
from app.core.config import Settings, get_settings
from app.core.errors import InvalidRequest, SchedulerError, SchedulerUnavailable, stack_of
from app.core.language import Language
from app.core.version import package_version
from app.db.database import SessionLocal, configure
from app.db.database import make_engine as make_database
from app.db.schema import current_revision, upgrade
from app.models.task_execution import Execution
from app.scheduler.alerting.checking import Look, look_at_due, settle
from app.scheduler.alerting.store import AlertStore
from app.scheduler.attention import RECENT, Attention, Example, Finding, Severity
from app.scheduler.attention import Kind as FindingKind
from app.scheduler.backfills import preview_backfill
from app.scheduler.buckets import forget_idle
from app.scheduler.commands import Commands
from app.scheduler.declarations import check, reconcile
from app.scheduler.definitions import TaskDefinition
from app.scheduler.doctor.schedules import Report, ScheduleDoctor
from app.scheduler.ending import ClockExecutor, LastTask
from app.scheduler.engines.choice import prepare
from app.scheduler.explain import explain
from app.scheduler.firing import Fired, arm_tasks, fire_due, next_fire_at
from app.scheduler.flow_status import CircuitStatus, FlowStatus, circuit_status, flow_status
from app.scheduler.foundation import Foundation, Live
from app.scheduler.gate import flow_rules
from app.scheduler.history import History
from app.scheduler.interpreter import InterpreterTuning
from app.scheduler.journal import Journal
from app.scheduler.live import LiveNode
from app.scheduler.pace import Backfill
from app.scheduler.request_keys import forget_expired
from app.scheduler.retention import BATCH, prune
from app.scheduler.shelf import rearm_shelved, say_left
from app.scheduler.statistics import Statistics
from app.scheduler.tasks import TaskStore, located
from app.scheduler.upcoming import Upcoming
from app.scheduler.waiting import Waiters
from app.services.scheduler_service import SchedulerService, TaskExecutionResult, describe_error

FIRE_BATCH = 1_000
LAUNCH_BATCHES = 20
CLOCK_SECONDS = 1.0
PRUNE_SECONDS = 60.0
ALERT_SECONDS = 5.0
_CLOCK_JOB = "contenthub-clock"
_PRUNE_JOB = "contenthub-retention"
_ALERT_JOB = "contenthub-alerts"


class Runtime(Foundation):
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
        settings = settings or get_settings()
        if sessions.kw["bind"] is None:  # the process's own, which nobody has used yet
            configure(settings)
        super().__init__(
            service,
            settings=settings,
            sessions=sessions,
            clock=clock or SystemClock(),
            uniform=uniform,
            role=role,
            journal=journal,
        )
        self.history = History(self.sessions)
        self.statistics = Statistics(self.sessions)
        self.upcoming = Upcoming(self.sessions)
        self.tasks = TaskStore(service, self.sessions, self.clock, self._look_at_tasks)
        self.alerts = AlertStore(self.sessions, self.clock, self._wake_alerts)
        self.commands = Commands(self, self.tasks, self.alerts)
        self._doctor = ScheduleDoctor(self.sessions)
        self._waiters = Waiters(self.history, self.events)
        self._scheduler: AsyncIOScheduler | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._coming_back: asyncio.Task[None] | None = None
        self._tuning = InterpreterTuning(self.settings.scheduler_switch_interval_seconds)
        self._ticking = False
        self._tick_again = False
        self._has_looked_at_shelf = False
        self._last_tick: datetime | None = None

    # ------------------------------------------------------------ what it is made of

    @property
    def scheduler(self) -> AsyncIOScheduler:
        """The APScheduler that carries the clock; a new one after each shutdown."""
        if self._scheduler is None:
            self._scheduler = AsyncIOScheduler(timezone="UTC", executors={"default": ClockExecutor()})
        return self._scheduler

    # ------------------------------------------------------------ start and stop

    def start(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise SchedulerUnavailable(
                "start() needs a running event loop: call it from async code, for example in FastAPI's lifespan, "
                "or run it with asyncio.run()"
            ) from None
        if self.live is not None:
            if self.stopping is not None:
                raise SchedulerUnavailable("the scheduler is shutting down; await drain() before start()")
            return
        if current_revision(self.engine) is None:
            self.prepare_database()  # first boot: the tables, before anybody looks for tasks
        if self.role != "cli":
            self.reconcile_declarations()
        self._loop = loop
        self.live = self._join(loop)
        self._tuning.apply()
        if self.role != "cli":
            self._start_clock()
        logger.info("调度器已启动 (节点: {}, 引擎: {})", self.live.node_id, self.live.engine.name)

    def check_declarations(self) -> None:
        """Raises InvalidRequest: the start would refuse what the code declares; `errors` names task and field."""
        check(self._declared(), self.tasks)

    def reconcile_declarations(self) -> None:
        """Bring the stored tasks in line with what the code declares.

        Raises:
            InvalidRequest: `errors` names every wrong task and field; nothing is stored.
        """
        self.check_declarations()
        reconcile(self._declared(), database=self.engine, service=self.service, clock=self.clock)

    def _declared(self) -> dict[str, TaskDefinition]:
        declared = self.service.declared_tasks()
        return {name: TaskDefinition.parse(values) for name, values in declared.items()}

    def prepare_database(self) -> None:
        """Bring the schema to head, and what the engine keeps in the database with it. Blocks."""
        upgrade(self.settings)
        prepare(self.settings, self.engine)

    def _join(self, loop: asyncio.AbstractEventLoop) -> LiveNode:
        live = LiveNode(self, self.commands.spawn)
        live.heartbeat.register()
        self._start_node(live, loop)
        return live

    def _start_node(self, live: LiveNode, loop: asyncio.AbstractEventLoop) -> None:
        live.start(loop, lambda: loop.call_soon_threadsafe(self._rejoin, live, loop))

    def _rejoin(self, lost: LiveNode, loop: asyncio.AbstractEventLoop) -> None:
        """The node was declared dead: end what it runs and come back as a new one."""
        lost.lose_everything()
        self._coming_back = loop.create_task(self._come_back(lost, loop))

    async def _come_back(self, lost: LiveNode, loop: asyncio.AbstractEventLoop) -> None:
        while self.live is lost and self.stopping is None:
            live = LiveNode(self, self.commands.spawn)
            try:
                await asyncio.to_thread(live.heartbeat.register)  # whoever was thought dead had a slow database
            except SQLAlchemyError as error:
                logger.warning("节点未能重新加入，将在一秒后重试: {}", error)
                await asyncio.sleep(CLOCK_SECONDS)
                continue
            if self.live is lost and self.stopping is None:
                self.live = live
                self._start_node(live, loop)
            else:  # a shutdown was faster
                await asyncio.to_thread(live.heartbeat.stop, leave=True)

    def shutdown(self, *, wait: bool) -> None:
        if self.live is None or self._loop is None:
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
            self.stopping = None
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
        if self.live is not None and self.stopping is None:
            seconds = self.settings.scheduler_grace_seconds if grace is None else grace
            self.stopping = LastTask(self._stop(self.live, seconds), loop=asyncio.get_running_loop())
        return self.stopping

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
            self.live = None
            self._loop = None
            self.stopping = None
            self._ticking = False
            self._has_looked_at_shelf = False
        logger.info("调度器已关闭")

    # ------------------------------------------------------------ the clock

    def _start_clock(self) -> None:
        self.scheduler.add_job(
            partial(self._job, self._prune),
            "interval",
            seconds=PRUNE_SECONDS,
            id=_PRUNE_JOB,
            replace_existing=True,
            misfire_grace_time=None,
        )
        self.scheduler.add_job(
            partial(self._job, self.check_alerts),
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
            partial(self._job, self._tick),
            "date",
            run_date=max(moment, now),
            id=_CLOCK_JOB,
            replace_existing=True,
            misfire_grace_time=None,
            max_instances=2,
        )

    def _look_at_tasks(self) -> None:
        """A task has changed: its schedule, or limits that held up what waits. Safe from any thread."""
        self._wake_clock()
        self.wake_engine(self.clock.now())

    def _wake_clock(self) -> None:
        """A schedule has changed: look at once. Safe from any thread."""
        loop = self._loop
        if loop is not None and self.is_running and self.role != "cli":
            loop.call_soon_threadsafe(self._schedule_tick, self.clock.now())

    async def _job(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            # Swallowed on purpose where the node is leaving: APScheduler would log it as an error of the job.
            if self.stopping is None:
                raise

    async def _tick(self) -> None:
        if self._ticking:
            self._tick_again = True
            return
        self._ticking = True
        next_fire: datetime | None = None
        try:
            if not self._has_looked_at_shelf:
                await self.journal.step(self._look_at_shelf)
                self._has_looked_at_shelf = True
            next_fire = await self._fire_all_due()
            self._last_tick = self.clock.now()
        except (SchedulerError, SQLAlchemyError) as error:
            logger.error("调度时钟本轮失败，将在一秒后重试: {}", error)
        except Exception as error:  # noqa: BLE001 - the next turn of the clock comes all the same
            logger.error("调度时钟本轮出错，将在一秒后重试: {}\n{}", describe_error(error), stack_of(error))
        finally:
            self._ticking = False
            again, self._tick_again = self._tick_again, False
            self._schedule_tick(self.clock.now() if again else next_fire)

    def _look_at_shelf(self, connection: Connection) -> None:
        rearm_shelved(connection, self.clock.now())
        say_left(connection)

    async def _fire_all_due(self) -> datetime | None:
        """Fire what is due, batch by batch, and start it when all of it is in the ledger.

        Attempts compete with the firing for the interpreter, and a fire recorded late is worse than one that
        starts a little later.
        """
        live = self.live
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
            self.launch(live, fired.pop(0))

    def _fire_batch(self, live: Live, connection: Connection) -> tuple[Fired, datetime | None]:
        now = self.clock.now()
        arm_tasks(connection, now=now, limit=FIRE_BATCH)
        with self.tracer.fire() as origin:
            fired = fire_due(connection, now=now, limit=FIRE_BATCH, owner_of=live.engine.owner_of, origin=origin)
            self.carry_fired(connection, fired)
        return fired, next_fire_at(connection)

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
        node = self.running_node
        try:
            looks = await asyncio.to_thread(self._look_at_alerts)
            if looks and node is not None:
                await self.journal.step(partial(self._settle_alerts, node, looks), node.engine.offer)
        except (SchedulerError, SQLAlchemyError) as error:
            logger.error("告警检查本轮失败，稍后重试: {}", error)
        except Exception as error:  # noqa: BLE001 - the next turn comes all the same
            logger.error("告警检查本轮出错，稍后重试: {}\n{}", describe_error(error), stack_of(error))

    def _look_at_alerts(self) -> list[Look]:
        with self.sessions() as session:
            return look_at_due(session, self.clock.now())

    def _settle_alerts(self, live: Live, looks: list[Look], connection: Connection) -> list[Execution]:
        return settle(
            connection,
            looks,
            now=self.clock.now(),
            owner_of=live.engine.owner_of,
            carry=self.carry,
        )

    def _wake_alerts(self) -> None:
        """A rule has changed. It is due, and the next look is seconds away."""

    # ------------------------------------------------------------ questions

    async def wait(self, execution_id: int, timeout: float | None) -> TaskExecutionResult:
        """Wait until it is over, wherever it runs.

        Raises:
            NotFound; TimeoutError: not over after `timeout` seconds.
        """
        return await self._waiters.wait(execution_id, timeout)

    def preview_backfill(self, task_id: int, start: datetime, end: datetime) -> Backfill:
        """What `backfill()` would record.

        Raises:
            NotFound, InvalidRequest: as `backfill()`.
        """
        with self.sessions() as session:
            return preview_backfill(session.connection(), task_id, start, end, self.clock.now())

    def circuits(self) -> list[CircuitStatus]:
        """The circuits of executors."""
        with self.sessions() as session:
            return circuit_status(session.connection(), flow_rules(self.service))

    def flow(self) -> FlowStatus:
        """Rate limits, concurrency keys and circuits, with their present level."""
        with self.sessions() as session:
            return flow_status(session.connection(), flow_rules(self.service), self.clock.now())

    def explain(self, task_id: int, at: datetime | None, language: Language = "en") -> str:
        return explain(self.sessions, task_id, at, self.clock.now(), language)

    def findings(self) -> list[Finding]:
        """What a person should look at first, worst first."""
        found = Attention(self.sessions).findings(
            self.clock.now(),
            known_types=self.service.executors().keys(),
            node_timeout=timedelta(seconds=2 * self.settings.scheduler_lease_seconds),
        )
        held = self.live.loop_held if self.live is not None else None
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

    def declaration(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A task definition of the code, whole and plain JSON.

        Raises:
            InvalidRequest: `errors` names the task and every wrong field.
        """
        try:
            return self.definition(values).model_dump(mode="json")
        except InvalidRequest as error:
            raise InvalidRequest(located(str(values.get("name")), error)) from error

    def engine_status(self) -> dict[str, Any]:
        """What runs and waits in this process; empty while it is not running."""
        live = self.live
        return live.engine.status() if live is not None else {}

    @property
    def lease_seconds(self) -> float | None:
        """For how long this process's node is sure of its lease; None: it does not run."""
        return self.live.lease_seconds if self.live is not None else None

    def status(self) -> dict[str, Any]:
        """How this process and its database stand."""
        live = self.live
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
