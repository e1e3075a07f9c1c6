"""The world: virtual time, processes on one database, what goes wrong, what people do. All from one seed."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from loguru import logger
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.core.errors import SchedulerError
from app.models.scheduled_task import ScheduledTask
from app.scheduler.attempts import tasks
from app.scheduler.context import current_execution
from app.scheduler.executions import executions
from app.services.scheduler_service import TaskExecutionResult, TaskExecutor
from app.testing.clock import VirtualClock
from app.testing.virtual_loop import VirtualLoop
from tests.simulation.database import Crashed, Effect, SharedDatabase
from tests.simulation.node import SimulatedNode
from tests.simulation.scenario import Scenario, definition_of, schedule_of

_QUIET_LEASES = 25
_PATIENCE_SECONDS = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Arming:
    """A time in which a task fired by one schedule: it owes every fire after `since` and before `until`."""

    task_id: int
    schedule_type: str
    expression: str
    zone: str
    dst_policy: str
    anchor: datetime
    since: datetime
    until: datetime | None = None


class SimulatedWork(TaskExecutor):
    """Takes part of a lease, mostly succeeds, and leaves a mark in the database with its success."""

    lane = "loop"

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def executor_type(self) -> str:
        return "work"

    async def execute(self, task_id: int, task_params: dict[str, Any], db: Session) -> TaskExecutionResult:
        me, rng = current_execution(), self._world.rng
        fate, share = rng.random(), min(rng.expovariate(9.0), 2.0)
        process = self._world.process_of(me.node)
        await asyncio.sleep(self._world.scenario.lease.total_seconds() * share)
        await process.thawed()
        if fate < 0.15:
            raise ValueError("drawn")
        if fate < 0.25:
            return TaskExecutionResult.failure_result("drawn", error="OSError: drawn")
        if fate < 0.7:
            db.add(Effect(me.id, me.attempt))
        return TaskExecutionResult.success_result("done")


class World:
    """One run. `run()` plays it; then `tests.simulation.checker` judges it by the database and `armings`."""

    def __init__(self, seed: int, scenario: Scenario = Scenario(), *, with_fire_constraint: bool = True) -> None:  # noqa: B008
        self.seed = seed
        self.scenario = scenario
        self.rng = random.Random(seed)
        self.clock = VirtualClock(scenario.start)
        self.loop = VirtualLoop(self.clock)
        self.database = SharedDatabase(self.clock.monotonic, with_fire_constraint=with_fire_constraint)
        self.armings: list[Arming] = []
        self.acknowledged: dict[str, int] = {}
        self.edited: set[int] = set()
        """Tasks whose overlap policy somebody changed."""
        self.trace: list[str] = []
        self.crashes = self.freezes = 0
        self.errors: list[BaseException] = []
        self._calm = True
        self._open: dict[int, Arming] = {}
        self._reached: dict[int, datetime] = {}
        """For a task that was set back: the fire it had been waiting for."""
        self._count = 0
        self._clients: set[asyncio.Task[None]] = set()
        self._processes: dict[str, SimulatedNode] = {}
        self._work = SimulatedWork(self)
        self.operator = SimulatedNode(self, "operator", self._work, faulty=False)
        self.nodes: list[SimulatedNode] = []
        self.loop.set_exception_handler(self._on_error)

    # ------------------------------------------------------------ a run

    def run(self) -> None:
        """Play the scenario, then let everything come to rest. `errors` is what broke in a process of its own."""
        logger.disable("app")
        try:
            for number in range(self.scenario.tasks):
                self._define(number)
            for number in range(self.scenario.nodes):
                self._boot(f"node{number}")
            self._calm = False
            self._expect_crash()
            self._expect_freeze()
            self._expect_operation()
            self._pass(timedelta(days=self.scenario.days))
            self._come_to_rest()
        finally:
            logger.enable("app")
            for node in self.nodes:
                node.die()
            self._pass(timedelta(seconds=1))
            self.loop.close()

    def fingerprint(self) -> str:
        """The same for two runs exactly if the same happened in both."""
        digest = hashlib.sha256("\n".join(self.trace).encode())
        for query in (
            "SELECT * FROM audit ORDER BY seq",
            """SELECT id, task_id, state, reason, scheduled_for, run_at, attempt, failures, rescues
               FROM task_executions ORDER BY id""",
        ):
            for row in self.database.rows(query):
                digest.update(repr(row).encode())
        return digest.hexdigest()

    def _pass(self, time: timedelta) -> None:
        self.loop.run_until(self.loop.time() + time.total_seconds())

    def _come_to_rest(self) -> None:
        """No more faults: what is due fires, then every task is paused and what is under way ends."""
        self._calm = True
        for node in list(self.nodes):
            node.clock.skew = timedelta()
            node.thaw()
        while len(self.nodes) < self.scenario.nodes:
            self._boot(f"late{len(self.nodes)}")
        self._pass(self.scenario.lease * 3)
        for task_id in list(self._open):
            self._update(task_id, {"is_active": False})
        self._pass(self.scenario.lease * _QUIET_LEASES)

    def _on_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not isinstance(error, Crashed):
            self.errors.append(error)

    # ------------------------------------------------------------ draws

    def happens(self, probability: float) -> bool:
        return not self._calm and self.rng.random() < probability

    def hours(self, least: float, most: float) -> timedelta:
        return timedelta(hours=self.rng.uniform(least, most))

    def leases(self, least: float, most: float) -> timedelta:
        return self.scenario.lease * self.rng.uniform(least, most)

    def _later(self, mean: timedelta, what: Callable[[], None]) -> None:
        self.loop.call_later(self.rng.expovariate(1 / mean.total_seconds()), what)

    def next_name(self) -> str:
        """A name for a task of the loop; in their order, so that nothing depends on addresses."""
        self._count += 1
        return f"{self._count:09}"

    def note(self, what: str) -> None:
        self.trace.append(f"{self.clock.now():%m-%d %H:%M:%S} {what}")

    # ------------------------------------------------------------ processes

    def new_node_id(self, process: SimulatedNode) -> str:
        node_id = f"{process.name}-{len(self._processes)}"
        self._processes[node_id] = process
        return node_id

    def process_of(self, node_id: str) -> SimulatedNode:
        return self._processes[node_id]

    def crash(self, node: SimulatedNode, where: str) -> None:
        """Kill `node`; another takes its place some time later."""
        if node not in self.nodes:
            return
        self.note(f"{node.name} crashes {where}")
        self.crashes += 1
        self.nodes.remove(node)
        node.die()
        self.loop.call_later(self.hours(0.2, 30).total_seconds(), self._replace, node.name)

    def _replace(self, name: str) -> None:
        if not self._calm:
            self._boot(name)

    def _boot(self, name: str) -> None:
        node = SimulatedNode(self, name, self._work)
        self.note(f"{name} boots")
        self.nodes.append(node)
        if not self._calm:
            node.clock.skew = self._drawn_skew()
        try:
            node.boot()
        except Crashed:
            self.note(f"{name} did not come up")

    def _drawn_skew(self) -> timedelta:
        return self.scenario.longest_skew * self.rng.uniform(-1, 1)

    def _expect_crash(self) -> None:
        if self._calm:
            return
        if self.nodes:
            self.crash(self.rng.choice(self.nodes), "out of the blue")
        self._later(self.scenario.between_crashes, self._expect_crash)

    def _expect_freeze(self) -> None:
        if self._calm:
            return
        awake = [node for node in self.nodes if not node.is_frozen]
        if awake:
            node = self.rng.choice(awake)
            length = self.leases(0, 2.5)
            self.note(f"{node.name} freezes for {length}")
            self.freezes += 1
            node.freeze()
            self.loop.call_later(length.total_seconds(), self._thaw, node)
        self._later(self.scenario.between_pauses, self._expect_freeze)

    def _thaw(self, node: SimulatedNode) -> None:
        node.clock.skew = timedelta() if self._calm else self._drawn_skew()
        node.thaw()

    # ------------------------------------------------------------ people

    def _expect_operation(self) -> None:
        if self._calm:
            return
        operation = self.rng.choices(
            [
                self._enqueue,
                self._cancel,
                self._retry,
                self._run_now,
                self._edit,
                self._set_back,
                self._replace_task,
            ],
            [6, 5, 3, 2, 3, 2, 1],
        )[0]
        operation()
        self._later(self.scenario.between_operations, self._expect_operation)

    def _ask(self, what: str, request: Callable[[SimulatedNode], Awaitable[Any]]) -> None:
        """Somebody sends a request to some process, and again to another one until one answers."""
        task = self.loop.create_task(self._asked(what, request), name=self.next_name())
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _asked(self, what: str, request: Callable[[SimulatedNode], Awaitable[Any]]) -> None:
        for _ in range(5):
            if not self.nodes:
                await asyncio.sleep(_PATIENCE_SECONDS)
                continue
            node = self.rng.choice(self.nodes)
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await node.thawed()
                    await request(node)
            except SchedulerError as error:
                self.note(f"{what}: {error.code}")
            except (Crashed, TimeoutError):
                await asyncio.sleep(60)
                continue
            else:
                self.note(what)
            return

    def _enqueue(self) -> None:
        key = f"request-{self.next_name()}"
        limit = self.rng.choice([None, 1, 3])

        async def send(node: SimulatedNode) -> None:
            execution = await node.service.enqueue(
                "work",
                idempotency_key=key,
                max_attempts=self.rng.choice([1, 3]),
                concurrency_key=f"client-{limit}" if limit else None,
                concurrency_limit=limit,
                run_at=self.clock.now() + self.hours(0, 20) if self.rng.random() < 0.3 else None,
            )
            self.acknowledged[key] = execution.id

        self._ask(f"enqueue {key}", send)
        if self.rng.random() < 0.3:
            self._ask(f"enqueue {key} again", send)

    def _cancel(self) -> None:
        execution_id = self._some("SELECT id FROM task_executions WHERE state IN ('pending','running','retrying')")
        if execution_id is not None:
            self._ask(f"cancel {execution_id}", lambda node: node.service.cancel(execution_id))

    def _retry(self) -> None:
        execution_id = self._some("SELECT id FROM task_executions WHERE state IN ('failed','cancelled')")
        if execution_id is not None:
            self._ask(f"retry {execution_id}", lambda node: node.service.retry(execution_id))

    def _run_now(self) -> None:
        task_id = self.rng.choice(sorted(self._open))
        self._ask(f"run task {task_id} now", lambda node: node.service.run_now(task_id))

    def _some(self, query: str) -> int | None:
        found = self.database.rows(f"{query} ORDER BY id")
        return self.rng.choice(found)[0] if found else None

    # ------------------------------------------------------------ people and tasks

    def _define(self, number: int) -> None:
        store = self.operator.runtime.tasks
        definition = definition_of(self.rng, number, self.clock.now())
        task = store.create(self.operator.runtime.definition(definition))
        self.note(f"task {task.id}: {task.schedule_expression} {task.timezone} {task.overlap_policy}")
        self._arm(task)

    def _edit(self) -> None:
        task_id = self.rng.choice(sorted(self._open))
        change: dict[str, Any] = self.rng.choice(
            [
                {"is_active": False},
                {"schedule": schedule_of(self.rng, self.clock.now())},
                {"overlap_policy": "queue"},
                {"misfire_policy": "all", "priority": 9},
            ]
        )
        self._update(task_id, change)
        if "is_active" in change:
            self.loop.call_later(self.hours(1, 100).total_seconds(), self._resume, task_id)

    def _resume(self, task_id: int) -> None:
        if not self._calm:
            self._update(task_id, {"is_active": True})

    def _set_back(self) -> None:
        """Somebody sets a task back to a fire that is in the ledger already, by plain SQL."""
        task_id = self.rng.choice(sorted(self._open))
        with self.operator.database.begin() as connection:
            newest = connection.scalar(
                select(func.max(executions.c.scheduled_for)).where(
                    executions.c.task_id == task_id, executions.c.state != "skipped"
                )
            )
            # Further back it was another schedule, or none, and the task would owe what it never did.
            if newest is not None and newest > self._open[task_id].since:
                reached = connection.scalar(select(tasks.c.next_run_at).where(tasks.c.id == task_id))
                self._reached[task_id] = max(reached or newest, self._reached.get(task_id, newest))
                connection.execute(update(tasks).where(tasks.c.id == task_id).values(next_run_at=newest))
                self.note(f"task {task_id} is set back to {newest}")

    def _replace_task(self) -> None:
        task_id = self.rng.choice(sorted(self._open))
        self._close(self.operator.runtime.tasks.get(task_id))
        self.operator.runtime.tasks.delete(task_id)
        self.note(f"task {task_id} is deleted")
        self._define(self.scenario.tasks + int(self.next_name()))

    def _update(self, task_id: int, changes: dict[str, Any]) -> None:
        store = self.operator.runtime.tasks
        try:
            before = store.get(task_id)
            after = store.update(task_id, changes)
        except SchedulerError as error:
            self.note(f"task {task_id} {changes}: {error.code}")
            return
        self.note(f"task {task_id} {changes}")
        if "overlap_policy" in changes:
            self.edited.add(task_id)
        if changes.keys() & {"is_active", "schedule"}:
            self._close(before)
            self._arm(after)

    def _arm(self, task: ScheduledTask) -> None:
        if not task.is_active or task.schedule_type is None or task.schedule_expression is None:
            return
        now = self.clock.now()
        self._open[task.id] = Arming(
            task.id,
            task.schedule_type,
            task.schedule_expression,
            task.timezone,
            task.dst_policy,
            task.created_at,
            since=min(now, task.created_at) if task.schedule_type == "at" else now,
        )

    def _close(self, task: ScheduledTask) -> None:
        """The schedule of `task` ends here: it owes what came before the fire it waits for, and what is due,
        which goes into the ledger as skipped."""
        arming, reached = self._open.pop(task.id, None), self._reached.pop(task.id, None)
        if arming is None:
            return
        until = task.next_run_at
        if until is None or task.exhausted_at is not None:
            until = self.clock.now() + timedelta(days=3650)
        self.armings.append(replace(arming, until=max(until, reached or until, self.clock.now())))
