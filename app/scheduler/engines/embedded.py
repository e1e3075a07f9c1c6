"""The embedded engine: the process that records an execution starts it from memory.

Its ticker, on a thread of its own, does the rest at least once a second: claim what nobody owns and is due,
let go of what waits too long, carry out cancellations asked for elsewhere, store progress, bury dead nodes.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from loguru import logger
from sqlalchemy import Connection
from sqlalchemy import Engine as Database
from sqlalchemy.exc import SQLAlchemyError

from app.core.clock import Clock
from app.core.errors import SchedulerError
from app.models.task_execution import Execution
from app.scheduler.executions import cancel_requests, claim, parked, release, request_cancel, unpark
from app.scheduler.journal import Journal, Step
from app.scheduler.lanes import LoopLane, ThreadLane
from app.scheduler.nodes import Undertaker, rescue
from app.scheduler.runner import CANCELLED, HANDED_BACK, LEASE_LOST, Attempt, Runner
from app.services.scheduler_service import SchedulerService

TICK_SECONDS = 1.0
_MEMORY_LIMIT = 10_000
"""Executions a node keeps waiting in memory; what comes on top waits in the table."""
_LET_GO_SECONDS = 1.0
_BLOCKING_GRACE_SECONDS = 2.0
_GATHER_SECONDS = 0.002
_PARKED_EVERY_ROUNDS = 5


class EmbeddedEngine:
    """See the module. Everything public is safe from any thread."""

    name = "embedded"

    def __init__(
        self,
        *,
        service: SchedulerService,
        database: Database,
        journal: Journal,
        runner: Runner,
        undertaker: Undertaker,
        clock: Clock,
        node_id: str,
        concurrency: int,
        loop_concurrency: int,
        max_rescues: int,
        claims: Callable[[], Sequence[int] | None],
    ) -> None:
        self._service = service
        self._database = database
        self._journal = journal
        self._runner = runner
        self._undertaker = undertaker
        self._clock = clock
        self._node_id = node_id
        self._loop_concurrency = loop_concurrency
        self._max_rescues = max_rescues
        self._claims = claims
        self._threads: ThreadLane[Attempt] = ThreadLane(concurrency, runner.run, clock.monotonic)
        self._loop_lane: LoopLane[Attempt] | None = None
        self._wake = threading.Event()
        self._alarms: list[datetime] = []
        self._alarm_lock = threading.Lock()
        self._unstarted: list[int] = []
        self._open = False
        self._backlog = False
        self._alone = True
        self._ticker: threading.Thread | None = None
        self._rounds = 0
        self._last_round: float | None = None

    # ------------------------------------------------------------ taking work

    def owner_of(self, values: dict[str, Any]) -> str | None:
        due_now = values["run_at"] <= values["created_at"]
        constrained = values["concurrency_key"] is not None or values["exclusive"]
        room = self._threads.waiting < _MEMORY_LIMIT
        known = self._service.get_executor(values["task_type"]) is not None
        return self._node_id if self._open and due_now and not constrained and room and known else None

    def offer(self, executions: Sequence[Execution]) -> None:
        mine = []
        for execution in executions:
            if execution.owner == self._node_id:
                mine.append(self._attempt(execution, recorded=False))
            elif execution.owner is None and not execution.is_final:
                self.wake(execution.run_at)
        if mine:
            self._put(mine)

    def wake(self, at: datetime | None = None) -> None:
        """Look for work soon, or at that moment."""
        if at is not None and at > self._clock.now():
            with self._alarm_lock:
                if len(self._alarms) >= _MEMORY_LIMIT:
                    return  # the ticker's own round, once a second, finds what comes due
                heapq.heappush(self._alarms, at)
                earliest = self._alarms[0] == at
            if not earliest:
                return
        self._wake.set()

    def _put(self, attempts: list[Attempt]) -> None:
        on_loop: list[Attempt] = []
        on_threads: list[Attempt] = []
        for attempt in attempts:
            executor = self._service.get_executor(attempt.execution.task_type)
            (on_loop if executor is not None and executor.lane == "loop" else on_threads).append(attempt)
        if on_loop and self._loop_lane is not None:
            self._loop_lane.put(on_loop)
        if on_threads:
            self._threads.put(on_threads)

    # ------------------------------------------------------------ life

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.open(loop)
        self._ticker = threading.Thread(target=self._run, name="contenthub-engine", daemon=True)
        self._ticker.start()

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to take work, and leave the turns (`run_once()`) to the caller; the simulation does."""
        self._loop_lane = LoopLane(self._loop_concurrency, self._runner.run, self._clock.monotonic, loop)
        self._open = True

    async def drain(self, grace_seconds: float) -> None:
        self._open = False
        self._wake.set()
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            await asyncio.to_thread(ticker.join)
        await self._hand_back_waiting()
        await self._until_idle(grace_seconds)
        for execution_id in list(self._runner.running):
            self._runner.stop(execution_id, HANDED_BACK)
        # What blocks cannot be handed back while its code still runs; the next start, or any other node,
        # rescues it once this process or its lease is gone.
        await self._until_idle(_BLOCKING_GRACE_SECONDS)
        self._threads.stop()

    async def _until_idle(self, seconds: float) -> None:
        # Real time even under a virtual clock: it bounds how long a shutdown takes.
        end = time.monotonic() + seconds
        while self._runner.running and time.monotonic() < end:  # noqa: ASYNC110 - attempts end in other threads
            await asyncio.sleep(0.02)

    async def _hand_back_waiting(self) -> None:
        ids, self._unstarted = self._unstarted, []
        ids += self._take_back(older_than_seconds=-1.0)
        if ids:
            await self._journal.step(lambda connection: self._release(connection, ids))

    # ------------------------------------------------------------ the ticker's thread

    def _run(self) -> None:
        while self._open:
            try:
                self.run_once()
            except (SQLAlchemyError, SchedulerError, OSError) as error:
                logger.warning("执行引擎本轮未完成，将重试: {}", error)
            if self._wake.wait(self._pause()):
                # What ends or is asked for in the same instant is claimed together.
                time.sleep(_GATHER_SECONDS)
            self._wake.clear()

    def _pause(self) -> float:
        now = self._clock.now()
        with self._alarm_lock:
            while self._alarms and self._alarms[0] <= now:
                heapq.heappop(self._alarms)
            ahead = (self._alarms[0] - now).total_seconds() if self._alarms else TICK_SECONDS
        return min(max(ahead, 0.0), TICK_SECONDS)

    def run_once(self) -> None:
        """One turn of the ticker: claims at every turn, the rest once a second."""
        now = self._clock.monotonic()
        if self._last_round is None or now - self._last_round >= TICK_SECONDS:
            self._last_round = now
            self._runner.speak_up()
            self._let_go()
            self._carry_out_cancellations()
            self._give_up_blocked()
            self._bury_the_dead()
            if self._rounds % _PARKED_EVERY_ROUNDS == 0:
                self._unpark()
            self._rounds += 1
        self._claim()

    def attempt_ended(self) -> None:
        """A lane is free again: look at once for more, where the table is known to hold more."""
        if self._backlog:
            self._wake.set()

    def _claim(self) -> None:
        free = self._threads.free + (self._loop_lane.free if self._loop_lane is not None else 0)
        if not free or not self._open:
            self._backlog = True
            return
        only = self._claims()
        claimed = self._journal.step_blocking(
            lambda connection: claim(connection, node=self._node_id, now=self._clock.now(), limit=free, only=only)
        )
        self._backlog = len(claimed) == free
        self._put([self._attempt(execution, recorded=True) for execution in claimed])

    def _attempt(self, execution: Execution, *, recorded: bool) -> Attempt:
        return Attempt(execution, execution.attempt + 1, self._node_id, recorded=recorded)

    def _let_go(self) -> None:
        ids, self._unstarted = self._unstarted, []
        if not self._alone:
            ids += self._take_back(older_than_seconds=_LET_GO_SECONDS)
        if ids:
            self._journal.submit(Step(lambda connection: self._release(connection, ids)))

    def _release(self, connection: Connection, ids: list[int]) -> int:
        return sum(
            release(connection, node=self._node_id, execution_ids=ids[start : start + 500])
            for start in range(0, len(ids), 500)
        )

    def _take_back(self, *, older_than_seconds: float) -> list[int]:
        """Ids of what waited in memory that long and was taken back, to be released."""
        taken = self._threads.drop_older(older_than_seconds)
        if self._loop_lane is not None:
            taken += self._loop_lane.drop_older(older_than_seconds)
        for attempt in taken:
            if attempt.recorded:
                self._runner.end_unrun(attempt, HANDED_BACK)
        return [attempt.execution_id for attempt in taken if not attempt.recorded]

    def unstarted(self, attempt: Attempt) -> None:
        """The runner would not start it (the lease is in doubt): let go of it at the next turn."""
        if attempt.recorded:
            self._runner.end_unrun(attempt, LEASE_LOST)
        else:
            self._unstarted.append(attempt.execution_id)

    def lose_everything(self) -> None:
        """This node has been declared dead: end what runs, forget what waits; others have it now."""
        self._open = False
        self._take_back(older_than_seconds=-1.0)
        for execution_id in list(self._runner.running):
            self._runner.stop(execution_id, LEASE_LOST)

    def end(self, execution_ids: Sequence[int]) -> None:
        for execution_id in execution_ids:
            dropped = self._threads.drop(execution_id)
            if dropped is None and self._loop_lane is not None:
                dropped = self._loop_lane.drop(execution_id)
            if dropped is None:
                self._runner.stop(execution_id, CANCELLED)
            elif dropped.recorded:
                self._runner.end_unrun(dropped, CANCELLED)
            else:
                self._journal.submit(Step(partial(self._cancel_waiting, execution_id)))

    def _carry_out_cancellations(self) -> None:
        with self._database.connect() as connection:
            wanted = cancel_requests(connection, self._node_id)
        self.end(wanted)

    def _cancel_waiting(self, execution_id: int, connection: Connection) -> None:
        request_cancel(connection, execution_id, self._clock.now(), mine=self._node_id)

    def _give_up_blocked(self) -> None:
        for running in self._runner.abandon_overdue(_BLOCKING_GRACE_SECONDS):
            self._threads.abandon(running.thread)

    def _bury_the_dead(self) -> None:
        with self._database.connect() as connection:
            dead = self._undertaker.dead(connection)
            self._alone = self._undertaker.is_alone
        for node_id, beats in dead:
            rescued = self._journal.step_blocking(partial(self._rescue, node_id, beats))
            logger.warning("节点 {} 已失联，接管其 {} 个运行中的执行", node_id, len(rescued))
            self._backlog = True

    def _rescue(self, node_id: str, beats: int, connection: Connection) -> list[Execution]:
        return rescue(connection, node_id, beats, now=self._clock.now(), max_rescues=self._max_rescues)

    def _unpark(self) -> None:
        """Put back in line what was parked for a reason that is gone: the executor is here now, the params
        are accepted now. An executor another node lacks is thereby run by the node that has it."""
        with self._database.connect() as connection:
            waiting = parked(connection, "unknown_executor") + parked(connection, "invalid_params")
        mended = [execution.id for execution in waiting if self._is_runnable(execution)]
        if mended:
            self._journal.submit(
                Step(lambda connection: unpark(connection, mended, self._clock.now())), lambda *_: self.wake()
            )

    def _is_runnable(self, execution: Execution) -> bool:
        try:
            self._service.check(execution.task_type, execution.params)
        except SchedulerError:
            return False
        return True

    def status(self) -> dict[str, Any]:
        loop_lane = self._loop_lane
        return {
            "engine": self.name,
            "running": len(self._runner.running),
            "waiting_in_memory": self._threads.waiting + (loop_lane.waiting if loop_lane else 0),
            "thread_lane": {"busy": self._threads.busy, "free": self._threads.free},
            "loop_lane": {"busy": loop_lane.busy, "free": loop_lane.free} if loop_lane else None,
        }
