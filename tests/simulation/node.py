"""One simulated process: production's runtime and embedded engine, on the world's loop, with faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.orm import Session, sessionmaker

from app.core.config import Settings
from app.scheduler.attempts import Fenced
from app.scheduler.engines.embedded import EmbeddedEngine
from app.scheduler.engines.pool import NodeParts
from app.scheduler.engines.protocol import Engine as ExecutionEngine
from app.scheduler.journal import Journal, Write
from app.scheduler.nodes import Heartbeat, Lease, Undertaker
from app.scheduler.runner import Runner
from app.services.scheduler_service import SchedulerService, TaskExecutor
from app.testing.clock import VirtualClock
from app.testing.inline_journal import InlineJournal
from app.testing.runtime import SandboxRuntime
from tests.simulation.database import Crashed

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")


class NodeClock:
    """A wall clock that may be wrong, and a steady one that is not."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.skew = timedelta()

    def now(self) -> datetime:
        return self._clock.now() + self.skew

    def monotonic(self) -> float:
        return self._clock.monotonic()


class FaultyJournal(InlineJournal):
    """Writes wait while the process is frozen, are committed in groups, and their callers hear of it late."""

    def __init__(self, node: SimulatedNode, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(node.database, loop)
        self._node = node
        self._group: list[tuple[Write[Any], Callable[[Any, BaseException | None], None] | None]] = []

    async def commit(self, write: Write[T], on_stored: Callable[[T], None] | None = None) -> T:
        await self._node.thawed()
        outcome = self._store_now(write)
        await self._node.dawdle()
        if on_stored is not None:
            on_stored(outcome)
        return outcome

    def submit(self, write: Write[T], answer: Callable[[T, BaseException | None], None] | None = None) -> None:
        if not self._node.is_up:
            return
        self._group.append((write, answer))
        if len(self._group) == 1:
            self._node.begin(self._commit_group())

    async def _commit_group(self) -> None:
        await self._node.dawdle()
        await self._node.thawed()
        group, self._group = self._group, []
        group.sort(key=lambda entry: entry[0].rank or 0)
        for outcome, (_, answer) in zip(self._store_group([write for write, _ in group]), group, strict=True):
            if answer is not None:
                answer(outcome, None)

    def _store_group(self, writes: list[Write[Any]]) -> list[Any]:
        """As production's journal: those of a rank together, all in one transaction; else one by one."""
        try:
            with self.engine.begin() as connection:
                return [outcome for run in _runs(writes) for outcome in type(run[0]).apply_all(connection, run)]
        except Fenced:
            with self.engine.begin() as connection:
                return [type(write).apply_all(connection, [write])[0] for write in writes]


def _runs(writes: list[Write[Any]]) -> list[list[Write[Any]]]:
    found: list[list[Write[Any]]] = []
    for write in writes:
        if found and write.rank is not None and found[-1][0].rank == write.rank:
            found[-1].append(write)
        else:
            found.append([write])
    return found


class SimulatedEngine(EmbeddedEngine):
    """Production's engine; its turns are timers of the world, and some of its wake-ups get lost."""

    def __init__(self, process: SimulatedNode, node: NodeParts) -> None:
        super().__init__(node, runs=True, claims=lambda: None)
        self._process = process

    def wake(self, at: datetime | None = None) -> None:
        self._process.wake(at)


class SimulatedLive:
    """One start of a simulated node."""

    def __init__(self, node: SimulatedNode, runtime: SimulatedRuntime) -> None:
        scenario = node.world.scenario
        self.node_id = node.world.new_node_id(node)
        self.lease = Lease(scenario.lease.total_seconds(), node.clock)
        self.runner = Runner(
            service=runtime.service,
            sessions=runtime.sessions,
            journal=runtime.journal,
            events=runtime.events,
            clock=node.clock,
            lease=self.lease,
            uniform=runtime.uniform,
            line_limit=0,
            default_timeout=None,
            on_waiting=lambda at: self.engine.wake(at),
            on_unstarted=lambda attempt: self.engine.unstarted(attempt),
            on_ended=lambda execution_id: self.engine.attempt_ended(execution_id),
            on_settled=lambda execution_id, retry_at: self.engine.settled(execution_id, retry_at),
            spawn=runtime.commands.spawn,
            carry=runtime.carry,
        )
        self.embedded: EmbeddedEngine = SimulatedEngine(
            node,
            NodeParts(
                node_id=self.node_id,
                service=runtime.service,
                database=node.database,
                journal=runtime.journal,
                runner=self.runner,
                undertaker=Undertaker(self.lease, node_id=self.node_id),
                clock=node.clock,
                concurrency=0,  # no threads: every simulated executor is of the loop lane
                loop_concurrency=scenario.concurrency,
                max_rescues=scenario.max_rescues,
                priority_step_seconds=runtime.settings.scheduler_priority_step_seconds,
            ),
        )
        self.engine: ExecutionEngine = self.embedded
        self.heartbeat = Heartbeat(
            node.database,
            node.clock,
            self.lease,
            node_id=self.node_id,
            role="all",
            engine_name="embedded",
            version="simulated",
        )

    @property
    def lease_seconds(self) -> float:
        return self.lease.remaining_seconds

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.heartbeat.register()
        self.embedded.open(loop)

    async def stop(self, grace_seconds: float, journal: Journal) -> None:
        raise AssertionError("a simulated node is killed, it does not stop")


class SimulatedRuntime(SandboxRuntime):
    """Production's runtime; its ticks come late, and some not at all."""

    def __init__(self, node: SimulatedNode, service: SchedulerService) -> None:
        super().__init__(
            service,
            settings=Settings(),
            sessions=sessionmaker(node.database, class_=Session, expire_on_commit=False),
            clock=node.clock,
            loop=node.world.loop,
            seed=node.world.rng.randrange(2**32),
        )
        self.journal = FaultyJournal(node, node.world.loop)
        self.process = node

    def start(self) -> None:
        self._loop = self._virtual
        self.live = self._start_live()
        self._schedule_tick(self.clock.now())

    def beat(self) -> None:
        """One heartbeat; a node that was declared dead comes back as a new one."""
        live = self.simulated
        if not live.heartbeat.beat():
            live.engine.lose_everything()
            self.live = self._start_live()

    @property
    def simulated(self) -> SimulatedLive:
        assert isinstance(self.live, SimulatedLive)
        return self.live

    def _start_live(self) -> SimulatedLive:
        live = SimulatedLive(self.process, self)
        live.start(self._virtual)
        return live

    def _schedule_tick(self, at: datetime | None) -> None:
        if self.process.is_up:
            now = self.clock.now()
            latest = now + self.process.world.leases(0.1, 0.9)
            lost = self.process.world.happens(0.5)
            super()._schedule_tick(latest if lost or at is None else min(at, latest))

    def _begin_tick(self) -> None:
        self.process.begin(self._frozen_tick())

    async def _frozen_tick(self) -> None:
        await self.process.thawed()
        await self._tick()

    async def _fire_all_due(self) -> datetime | None:
        await self.process.thawed()
        return await super()._fire_all_due()

    def die(self) -> None:
        self._cancel_timer()


class SimulatedNode:
    """A process: it boots, beats, freezes, thaws and dies."""

    def __init__(self, world: World, name: str, executor: TaskExecutor, *, faulty: bool = True) -> None:
        self.world = world
        self.name = name
        self.clock = NodeClock(world.clock)
        self.is_up = True
        self.is_frozen = False
        self._faulty = faulty
        self._thaw = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None
        self.database = world.database.engine_for(self._check, self._at_commit)
        self.service = SchedulerService()
        self.service.register_executor(executor)
        self.runtime = SimulatedRuntime(self, self.service)
        self.service.attach(self.runtime)

    def boot(self) -> None:
        self.runtime.start()
        self._beat = self.world.loop.call_later(self._beat_seconds(), self._on_beat)
        self._ring()

    def die(self) -> None:
        """As `kill -9`: nothing of it touches the database again."""
        self.is_up = False
        self.runtime.die()
        for handle in (self._alarm, self._beat):
            if handle is not None:
                handle.cancel()
        if self.runtime.live is not None:
            for running in list(self.runtime.simulated.runner.running.values()):
                running.task.cancel()
        for task in sorted(self._tasks, key=lambda task: task.get_name()):
            task.cancel()

    def freeze(self) -> None:
        """As SIGSTOP or a paused virtual machine: nothing happens until `thaw()`, and its clocks go on."""
        self.is_frozen = True
        self._thaw.clear()

    def thaw(self) -> None:
        self.is_frozen = False
        self._thaw.set()

    async def thawed(self) -> None:
        """Wait while the process is frozen."""
        while self.is_frozen:
            await self._thaw.wait()

    async def dawdle(self) -> None:
        """Now and then a thread is not scheduled for a while."""
        if self.world.happens(0.1):
            await asyncio.sleep(self.world.leases(0, 0.1).total_seconds())

    def begin(self, work: Any) -> None:
        """Run `work` as a task of this process."""
        if not self.is_up:
            work.close()
            return
        task = self.world.loop.create_task(work, name=self.world.next_name())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wake(self, at: datetime | None = None) -> None:
        """Take a turn at that moment of this node's clock, unless the wake-up is lost."""
        if not self.is_up or self.world.happens(self.world.scenario.lost_wake):
            return
        ahead = max((at - self.clock.now()).total_seconds(), 0.0) if at is not None else 0.0
        moment = self.world.loop.time() + ahead
        if self._alarm is not None:
            if self._alarm.when() <= moment:
                return
            self._alarm.cancel()
        self._alarm = self.world.loop.call_at(moment, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.begin(self._turn())

    async def _turn(self) -> None:
        await self.thawed()
        if self.runtime.simulated.embedded._open:
            self.runtime.simulated.embedded.run_once()
        # The ticker's own round, whatever woke it or did not.
        latest = self.world.leases(0.45, 1)
        if self._alarm is None:
            self._alarm = self.world.loop.call_later(latest.total_seconds(), self._ring)

    def _on_beat(self) -> None:
        self.begin(self._beaten())
        self._beat = self.world.loop.call_later(self._beat_seconds(), self._on_beat)

    async def _beaten(self) -> None:
        await self.thawed()
        self.runtime.beat()

    def _beat_seconds(self) -> float:
        return self.world.scenario.lease.total_seconds() / 3

    def _check(self) -> None:
        if not self.is_up:
            raise Crashed(self.name)
        assert not self.is_frozen, f"{self.name} is frozen and touches the database"

    def _at_commit(self) -> None:
        self._check()
        if self._faulty and self.world.happens(self.world.scenario.crash_at_commit):
            self.world.crash(self, "at a commit")
            raise Crashed(self.name)
