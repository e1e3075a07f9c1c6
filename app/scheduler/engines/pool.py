"""The attempts of one node: where they wait and run, how they are ended, given up and handed back.

What every engine does alike; an engine decides which attempts come here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from loguru import logger
from sqlalchemy import Connection
from sqlalchemy import Engine as Database

from app.core.clock import Clock
from app.core.errors import SchedulerError, SchedulerUnavailable
from app.models.task_execution import Execution, ExecutionState
from app.scheduler.alerting.checking import due_deliveries
from app.scheduler.alerting.observing import DELIVERY
from app.scheduler.breaker import Phase
from app.scheduler.buckets import close_gaps, has_line
from app.scheduler.circuits import reset_circuit, retired
from app.scheduler.claims import Types, claim, lock_claims
from app.scheduler.engines.forgotten import Forgotten
from app.scheduler.engines.ticker import TICK_SECONDS
from app.scheduler.executions import cancel_requests, held_by, parked, release, request_cancel, still_held, unpark
from app.scheduler.gate import Gate, flow_rules, unguarded
from app.scheduler.journal import Journal, Step
from app.scheduler.lanes import LoopLane, ThreadLane
from app.scheduler.nodes import Undertaker, left_behind, rescue, take_over
from app.scheduler.runner import Attempt, Runner
from app.scheduler.verdict import CANCELLED, HANDED_BACK, LEASE_LOST
from app.services.scheduler_service import SchedulerService

_BLOCKING_GRACE_SECONDS = 2.0
_SLOWLY_ROUNDS = 5
DELIVERY_PLACES = 4
"""Deliveries of alerts at the same time, on a lane that is theirs alone."""


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What an engine is given: one node's identity, its runner, and what it shares with the process."""

    node_id: str
    service: SchedulerService
    database: Database
    journal: Journal
    runner: Runner
    undertaker: Undertaker
    clock: Clock
    concurrency: int
    loop_concurrency: int
    max_rescues: int
    priority_step_seconds: float


@dataclass(slots=True)
class AttemptPool:
    """See the module. Everything public is safe from any thread."""

    node: NodeParts
    threads: ThreadLane[Attempt] = field(init=False)
    deliveries: ThreadLane[Attempt] = field(init=False)
    """What an alert tells of may be the work that holds every other lane."""
    loop_lane: LoopLane[Attempt] | None = None
    is_alone: bool = True
    """Whether the last look found no other node."""
    found_dead: int = 0
    """Dead nodes buried by this one."""
    _unstarted: list[int] = field(default_factory=list)
    _rounds: int = 0
    _last_round: float | None = None
    _forgotten: Forgotten = field(default_factory=Forgotten)

    def __post_init__(self) -> None:
        node = self.node
        self.threads = ThreadLane(node.concurrency, node.runner.run, node.clock.monotonic)
        self.deliveries = ThreadLane(DELIVERY_PLACES, node.runner.run, node.clock.monotonic)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        node = self.node
        self.loop_lane = LoopLane(node.loop_concurrency, node.runner.run, node.clock.monotonic, loop)

    @property
    def _lanes(self) -> list[ThreadLane[Attempt] | LoopLane[Attempt]]:
        return [self.threads, self.deliveries, *([self.loop_lane] if self.loop_lane is not None else [])]

    @property
    def waiting(self) -> int:
        """How many attempts wait here, in memory."""
        return sum(lane.waiting for lane in self._lanes)

    def free(self) -> list[tuple[Types, int]]:
        """How many more attempts could start at once, by the executors of each lane that has room.

        What is claimed beyond that would be called running while it waits here, and could run elsewhere.
        """
        executors = self.node.service.executors().items()
        on_loop = frozenset(task_type for task_type, executor in executors if executor.lane == "loop")
        lanes = [(Types(on_loop, but=True), self.threads.free)]
        if on_loop and self.loop_lane is not None:
            lanes.append((Types(on_loop), self.loop_lane.free))
        return [(types, room) for types, room in lanes if room]

    def put(self, attempts: list[Attempt]) -> None:
        """Let them run as soon as their lane has room, the highest priority first."""
        on_loop: list[Attempt] = []
        on_threads: list[Attempt] = []
        of_alerts: list[Attempt] = []
        for attempt in attempts:
            task_type = attempt.execution.task_type
            executor = self.node.service.get_executor(task_type)
            if task_type == DELIVERY:
                of_alerts.append(attempt)
            else:
                (on_loop if executor is not None and executor.lane == "loop" else on_threads).append(attempt)
        if on_loop and self.loop_lane is not None:
            self.loop_lane.put(on_loop)
        if on_threads:
            self.threads.put(on_threads)
        if of_alerts:
            self.deliveries.put(of_alerts)

    def start_deliveries(self) -> None:
        """Claim deliveries of alerts that are due and that nobody has, whatever the other lanes do."""
        node, room = self.node, self.deliveries.free
        if not room:
            return
        with node.database.connect() as connection:
            due = due_deliveries(connection, node.clock.now(), room)
        if due:
            claimed = node.journal.step_blocking(partial(self._claim_deliveries, due))
            self.put([Attempt(one, one.attempt, node.node_id, recorded=True) for one in claimed])

    def _claim_deliveries(self, due: list[int], connection: Connection) -> list[Execution]:
        node = self.node
        lock_claims(connection)
        now = node.clock.now()
        gate = Gate(connection, flow_rules(node.service), now)
        return claim(connection, node=node.node_id, now=now, limit=len(due), only=due, clock=node.clock, gate=gate)

    # ------------------------------------------------------------ ending

    def end(self, execution_ids: Sequence[int]) -> None:
        """Cancel executions this node holds: what waits by a write, what runs by asking it to let go."""
        for execution_id in execution_ids:
            dropped = next(filter(None, (lane.drop(execution_id) for lane in self._lanes)), None)
            if dropped is None:
                self.node.runner.stop(execution_id, CANCELLED)
            elif dropped.recorded:
                self.node.runner.end_unrun(dropped, CANCELLED)
            else:
                self.node.journal.submit(Step(partial(self._cancel_waiting, execution_id)))

    def _cancel_waiting(self, execution_id: int, connection: Connection) -> None:
        request_cancel(connection, execution_id, self.node.clock.now(), mine=self.node.node_id)

    def unstarted(self, attempt: Attempt) -> None:
        """The runner would not start it (the lease is in doubt): let go of it at the next round."""
        if attempt.recorded:
            self.node.runner.end_unrun(attempt, LEASE_LOST)
        else:
            self._unstarted.append(attempt.execution_id)

    def let_running_go(self) -> None:
        """The lease has lapsed: end what runs, before somebody else starts it."""
        for execution_id in list(self.node.runner.running):
            self.node.runner.stop(execution_id, LEASE_LOST)

    def lose_everything(self) -> None:
        """This node has been declared dead: end what runs, forget what waits; others have it now."""
        self._take_back(older_than_seconds=-1.0)
        self.let_running_go()

    def let_go(self, *, older_than_seconds: float | None) -> None:
        """Release what the runner would not start and, with a limit, what has waited here longer than that."""
        ids, self._unstarted = self._unstarted, []
        if older_than_seconds is not None:
            ids += self._take_back(older_than_seconds=older_than_seconds)
        if ids:
            self.node.journal.submit(Step(lambda connection: self._release(connection, ids)))

    async def drain(self, grace_seconds: float) -> None:
        """Hand back what waits, give what runs the grace period, hand back the rest."""
        ids, self._unstarted = self._unstarted, []
        ids += self._take_back(older_than_seconds=-1.0)
        if ids:
            try:
                await self.node.journal.step(lambda connection: self._release(connection, ids))
            except SchedulerUnavailable as error:
                # It leaves all the same: who beats on and runs nothing would keep them from everybody.
                logger.warning("{} 个等待中的执行未能交还，将由其他节点或下次启动接管: {}", len(ids), error)
        await self._until_idle(grace_seconds)
        for execution_id in list(self.node.runner.running):
            self.node.runner.stop(execution_id, HANDED_BACK)
        # What blocks cannot be handed back while its code still runs; the next start, or any other node,
        # rescues it once this process or its lease is gone.
        await self._until_idle(_BLOCKING_GRACE_SECONDS)
        self.threads.stop()
        self.deliveries.stop()

    async def _until_idle(self, seconds: float) -> None:
        # Real time even under a virtual clock: it bounds how long a shutdown takes.
        end = time.monotonic() + seconds
        while self._is_at_work() and time.monotonic() < end:  # noqa: ASYNC110 - attempts end in other threads
            await asyncio.sleep(0.02)

    def _is_at_work(self) -> bool:
        is_loop_busy = self.loop_lane is not None and self.loop_lane.busy > 0  # also with what has yet to begin
        return is_loop_busy or len(self.node.runner.running) > 0

    def _release(self, connection: Connection, ids: list[int]) -> int:
        return sum(
            release(connection, node=self.node.node_id, execution_ids=ids[start : start + 500])
            for start in range(0, len(ids), 500)
        )

    def _take_back(self, *, older_than_seconds: float) -> list[int]:
        """Ids of what waited in memory that long and was taken back, to be released."""
        taken = [attempt for lane in self._lanes for attempt in lane.drop_older(older_than_seconds)]
        for attempt in taken:
            if attempt.recorded:
                self.node.runner.end_unrun(attempt, HANDED_BACK)
        return [attempt.execution_id for attempt in taken if not attempt.recorded]

    # ------------------------------------------------------------ once a second

    def keep_house(self) -> bool:
        """Store progress, carry out cancellations asked for elsewhere, give up what blocks, bury dead nodes, close
        gaps in the lines of rate limits, unpark what can run again, close circuits that have no breaker any more,
        hand back what was forgotten. Does nothing, and returns False, within a second of the last time."""
        now = self.node.clock.monotonic()
        if self._last_round is not None and now - self._last_round < TICK_SECONDS:
            return False
        self._last_round = now
        self.node.runner.speak_up()
        with self.node.database.connect() as connection:
            wanted = cancel_requests(connection, self.node.node_id)
        self.end(wanted)
        for running in self.node.runner.abandon_overdue(_BLOCKING_GRACE_SECONDS):
            self.threads.abandon(running.thread)
            self.deliveries.abandon(running.thread)
        self._bury_the_dead()
        self._close_gaps()
        if self._rounds % _SLOWLY_ROUNDS == 0:
            self._unpark()
            self._retire_circuits()
            self._find_forgotten()
        self._rounds += 1
        return True

    def _bury_the_dead(self) -> None:
        with self.node.database.connect() as connection:
            dead = self.node.undertaker.dead(connection)
            self.is_alone = self.node.undertaker.is_alone
            orphaned = left_behind(connection)
        for node_id, beats in dead:
            rescued = self.node.journal.step_blocking(partial(self._rescue, node_id, beats))
            logger.warning("节点 {} 已失联，接管其 {} 个运行中的执行", node_id, len(rescued))
            self.found_dead += 1
        for node_id in orphaned:
            self.node.journal.step_blocking(partial(self._take_over, node_id))
            self.found_dead += 1

    def _close_gaps(self) -> None:
        """Whoever left the line of a rate limit has left a gap, and a limit that was raised, a long line."""
        now = self.node.clock.now()
        with self.node.database.connect() as connection:
            is_needed = has_line(connection, now)
        if is_needed:
            self.node.journal.step_blocking(self._bring_forward)

    def _bring_forward(self, connection: Connection) -> int:
        lock_claims(connection)
        return close_gaps(connection, flow_rules(self.node.service).rates, self.node.clock.now())

    def _take_over(self, node_id: str, connection: Connection) -> list[Execution]:
        return take_over(connection, node_id, now=self.node.clock.now(), max_rescues=self.node.max_rescues)

    def _rescue(self, node_id: str, beats: int, connection: Connection) -> list[Execution]:
        return rescue(connection, node_id, beats, now=self.node.clock.now(), max_rescues=self.node.max_rescues)

    def _unpark(self) -> None:
        """Put back in line what was parked for a reason that is gone: the executor is here now, the params
        are accepted now. An executor another node lacks is thereby run by the node that has it."""
        with self.node.database.connect() as connection:
            waiting = parked(connection, "unknown_executor") + parked(connection, "invalid_params")
        mended = [execution.id for execution in waiting if self._is_runnable(execution)]
        if mended:
            self.node.journal.step_blocking(lambda connection: unpark(connection, mended, self.node.clock.now()))

    def _retire_circuits(self) -> None:
        """Let go what waits for the circuit of an executor whose breaker was taken away."""
        node = self.node
        with node.database.connect() as connection:
            found = retired(connection, unguarded(node.service))
        for task_type in found:
            closing = partial(reset_circuit, task_type=task_type, now=node.clock.now())
            node.journal.step_blocking(closing)
            node.runner.announce_circuit(task_type, Phase.CLOSED)
            logger.info("执行器 {} 已没有熔断器，其熔断已解除", task_type)

    def _find_forgotten(self) -> None:
        """Hand back what this node holds without knowing of it."""
        node = self.node
        with node.database.connect() as connection:
            held = held_by(connection, node.node_id)
        forgotten = self._forgotten.look(held, self._knows)
        if not forgotten:
            return
        # Behind all that the journal still has of them.
        for execution in node.journal.step_blocking(
            partial(still_held, node=node.node_id, execution_ids=forgotten)
        ):
            logger.warning("执行 {} 归本节点所有，但其答复随连接一同丢失，现交还", execution.id)
            if execution.state is ExecutionState.RUNNING:
                attempt = Attempt(execution, execution.attempt, node.node_id, recorded=True)
                node.runner.end_unrun(attempt, HANDED_BACK)
            else:
                node.journal.step_blocking(partial(release, node=node.node_id, execution_ids=[execution.id]))

    def _knows(self, execution_id: int) -> bool:
        return (
            execution_id in self.node.runner.running
            or execution_id in self._unstarted
            or any(lane.is_waiting(execution_id) for lane in self._lanes)
        )

    def _is_runnable(self, execution: Execution) -> bool:
        try:
            self.node.service.check(execution.task_type, execution.params)
        except SchedulerError:
            return False
        return True

    def status(self) -> dict[str, Any]:
        """What runs and waits here."""
        loop_lane = self.loop_lane
        return {
            "running": len(self.node.runner.running),
            "waiting_in_memory": self.waiting,
            "thread_lane": {"busy": self.threads.busy, "free": self.threads.free},
            "delivery_lane": {"busy": self.deliveries.busy, "free": self.deliveries.free},
            "loop_lane": {"busy": loop_lane.busy, "free": loop_lane.free} if loop_lane else None,
        }
