"""The pgqueuer engine: PgQueuer carries executions to any number of machines.

Each waiting execution has a PgQueuer job, written in the transaction that recorded it. A job that comes to this
node claims its execution's row, under the same fence and the same limits as everywhere; what it gets runs on this
node's lanes, and the job is acknowledged, or put back with a delay, once the outcome is in the database.

PgQueuer lives on a thread and an event loop of its own. Its heartbeats are sent from that loop: on the
application's, an executor or a request that blocks for longer than the heartbeat timeout would have its job run
twice. Its `run()` ends when PostgreSQL goes away; it is started anew, on a new pool, until the node stops.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import asyncpg
from loguru import logger
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Context, Job
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries
from sqlalchemy.exc import SQLAlchemyError

from app.core.errors import NotFound, SchedulerUnavailable
from app.models.task_execution import WAITING_STATES, Execution
from app.scheduler.claims import ClaimNamed
from app.scheduler.engines import pgqueuer_jobs as jobs
from app.scheduler.engines.pool import AttemptPool, NodeParts
from app.scheduler.engines.ticker import Ticker
from app.scheduler.executions import read_execution
from app.scheduler.gate import flow_rules
from app.scheduler.runner import CANCELLED, Attempt
from app.services.scheduler_service import describe_error

T = TypeVar("T")

NAME = "pgqueuer"
DEQUEUE_SECONDS = 5.0
_POOL_MIN, _POOL_MAX = 2, 8
_CONNECT_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0
_COMING_SECONDS = 60.0
_AHEAD = 4
"""Jobs PgQueuer may hold here for each lane: one runs, others are being claimed, recorded and acknowledged."""
_BRIEF_SECONDS = 0.2
_PATIENCE_SECONDS = 1.0
"""A job that has found no free lane for this long goes back, for another node to take."""
_AGEING_SECONDS = 5.0
"""How often, at most, jobs that have waited long are given a higher priority."""
_SWEEP_SHARE = 20
"""A sweep for missing jobs rests this many times as long as it took: a long queue must not be swept all day."""


@dataclass(frozen=True, slots=True)
class _Settled:
    """The end of an attempt is in the database; `retry_at`: it is tried again then."""

    retry_at: datetime | None


class _WatchedDriver(AsyncpgPoolDriver):
    """Tells of the first failure to reach PostgreSQL. PgQueuer itself would first wait for every running job."""

    def __init__(self, pool: asyncpg.Pool, on_lost: Callable[[], None]) -> None:
        super().__init__(pool)
        self._on_lost = on_lost

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        return await self._watched(super().fetch(query, *args))

    async def execute(self, query: str, *args: object) -> str:
        return await self._watched(super().execute(query, *args))

    async def _watched(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            return await call
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
            self._on_lost()
            raise


class _Room:
    """Places for attempts; whoever waits longest among the highest priority is let in next. Of one loop.

    One place a lane; while attempts are brief, two: one runs while the other is being claimed. With long ones that
    would claim what another node could have started.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._inside: dict[int, float] = {}
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._sequence = itertools.count()
        self._typical_stay = 1.0

    @property
    def _is_full(self) -> bool:
        places = 2 * self._lanes if self._typical_stay < _BRIEF_SECONDS else self._lanes
        return len(self._inside) >= places

    async def enter(self, execution_id: int, priority: int) -> None:
        """Take a place, or wait for one."""
        if not self._is_full:
            self._inside[execution_id] = time.monotonic()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (-priority, next(self._sequence), execution_id, turn))
        try:
            await turn
        except asyncio.CancelledError:
            self.leave(execution_id)  # it may have been let in at that very moment
            raise

    def leave(self, execution_id: int) -> None:
        """Give the place up, if there is one to give up."""
        since = self._inside.pop(execution_id, None)
        if since is None:
            return
        self._typical_stay += (time.monotonic() - since - self._typical_stay) / 16
        while self._waiting and not self._is_full:
            _, _, follower, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._inside[follower] = time.monotonic()
                turn.set_result(None)


class PgQueuerEngine:
    """See the module. Everything public is safe from any thread.

    `runs`: False for a node that only records and fires. `heartbeat_seconds`: a job whose worker has been silent
    for so long is given to another one.
    """

    name = NAME

    def __init__(self, node: NodeParts, *, runs: bool, database_url: str, heartbeat_seconds: float) -> None:
        self._node = node
        self._runs = runs
        self._dsn = jobs.asyncpg_dsn(database_url)
        self._heartbeat = timedelta(seconds=heartbeat_seconds)
        self._pool = AttemptPool(node)
        self._ticker = Ticker(self.run_once, node.clock)
        self._next_sweep = 0.0
        self._next_ageing = 0.0
        self._open = False
        self._thread: threading.Thread | None = None
        # Below: of PgQueuer's own loop.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._manager: QueueManager | None = None
        self._arriving = 0
        self._room = _Room(node.concurrency)
        self._settling: dict[int, asyncio.Future[_Settled]] = {}

    # ------------------------------------------------------------ taking work

    def owner_of(self, values: dict[str, Any]) -> str | None:
        return None

    def offer(self, executions: Sequence[Execution]) -> None:
        """Their jobs are on their way."""

    def wake(self, at: datetime | None = None) -> None:
        self._ticker.wake(at)

    # ------------------------------------------------------------ life

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._pool.start(loop)
        self._open = True
        self._ticker.start()
        if self._runs:
            self._thread = threading.Thread(
                target=lambda: asyncio.run(self._supervise()), name="contenthub-pgqueuer", daemon=True
            )
            self._thread.start()

    async def drain(self, grace_seconds: float) -> None:
        self._open = False
        self._ticker.stop()
        await asyncio.to_thread(self._ticker.join)
        self._tell(self._end_run)
        # What was being claimed when we closed is on its lane in a moment; what comes later finds us closed.
        while self._arriving and self._thread is not None and self._thread.is_alive():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await self._pool.drain(grace_seconds)
        await asyncio.to_thread(self._node.journal.flush)
        self._tell(self._let_jobs_go)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def lose_everything(self) -> None:
        self._open = False
        self._ticker.stop()
        self._tell(self._end_run)
        self._pool.lose_everything()

    def lease_lapsed(self) -> None:
        self._pool.let_running_go()

    def end(self, execution_ids: Sequence[int]) -> None:
        self._pool.end(execution_ids)

    def unstarted(self, attempt: Attempt) -> None:
        self._pool.unstarted(attempt)

    def attempt_ended(self, execution_id: int) -> None:
        self._tell(partial(self._room.leave, execution_id))

    def settled(self, execution_id: int, retry_at: datetime | None) -> None:
        self._tell(partial(self._settle, execution_id, _Settled(retry_at)))

    def status(self) -> dict[str, Any]:
        return {"engine": self.name, "connected": self._manager is not None, **self._pool.status()}

    def _tell(self, call: Callable[[], object]) -> None:
        """Call it on PgQueuer's loop, if there is one."""
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(call)
            except RuntimeError:
                logger.debug("PgQueuer's loop has ended")

    # ------------------------------------------------------------ the ticker's thread

    def run_once(self) -> None:
        """One turn of the ticker: see to executions that may start and have no job, or an old one."""
        if not self._open:
            return
        if self._pool.keep_house():
            self._pool.let_go(older_than_seconds=None)
        started = time.monotonic()
        if started >= self._next_sweep:
            self._node.journal.step_blocking(
                lambda connection: jobs.send_missing(connection, self._node.clock.now())
            )
            ended = time.monotonic()
            self._next_sweep = ended + _SWEEP_SHARE * (ended - started)
        step = self._node.priority_step_seconds
        if step > 0 and started >= self._next_ageing:
            self._node.journal.step_blocking(lambda connection: jobs.age(connection, self._node.clock.now(), step))
            self._next_ageing = started + max(step, _AGEING_SECONDS)

    # ------------------------------------------------------------ PgQueuer's thread

    async def _supervise(self) -> None:
        """Keep PgQueuer running, whatever PostgreSQL does."""
        self._loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_SECONDS
        while self._open:
            began = time.monotonic()
            try:
                await self._serve()
            except Exception as error:  # noqa: BLE001 - whatever ended it, without PgQueuer nothing runs here
                if time.monotonic() - began > _LONGEST_PAUSE_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                logger.warning("PgQueuer 已中断，{} 秒后重新连接: {}", pause, describe_error(error))
                await _wait(self._stopping, pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _serve(self) -> None:
        """One life of PgQueuer, on a pool of its own; raises when PostgreSQL went away."""
        lost = asyncio.Event()
        pool = await asyncpg.create_pool(
            self._dsn, min_size=_POOL_MIN, max_size=_POOL_MAX, timeout=_CONNECT_SECONDS
        )
        try:
            manager = QueueManager(Queries(_WatchedDriver(pool, lost.set)))
            manager.entrypoint(jobs.ENTRYPOINT, accepts_context=True)(self._handle)
            self._manager = manager
            if not self._open:
                return
            ahead = _AHEAD * self._node.concurrency
            run = asyncio.create_task(
                manager.run(
                    dequeue_timeout=timedelta(seconds=DEQUEUE_SECONDS),
                    batch_size=ahead // 2,
                    max_concurrent_tasks=ahead,
                    heartbeat_timeout=self._heartbeat,
                )
            )
            watch = asyncio.create_task(lost.wait())
            await asyncio.wait({run, watch}, return_when=asyncio.FIRST_COMPLETED)
            watch.cancel()
            if not run.done():
                self._let_jobs_go()
                manager.shutdown.set()
                await asyncio.wait({run}, timeout=_LONGEST_PAUSE_SECONDS)
                run.cancel()
            await asyncio.wait({run})
            if lost.is_set():
                raise ConnectionError("PostgreSQL went away")
            await run
        finally:
            self._manager = None
            pool.terminate()

    async def _handle(self, job: Job, context: Context) -> None:
        """Claim the job's execution, have it run, and see it through to its recorded end."""
        execution_id = int(job.payload or b"0")
        started = await self._started(execution_id, job.priority)
        if started is None:
            return
        execution, settling = started
        try:
            with context.cancellation:
                await asyncio.shield(settling)
            if context.cancellation.cancel_called and not settling.done():
                self._node.runner.stop(execution_id, CANCELLED)
            outcome = await settling
        finally:
            self._settling.pop(execution_id, None)
        if execution.concurrency_key is not None or execution.exclusive:
            await self._call_followers(execution)
        if outcome.retry_at is not None:
            raise RetryRequested(max(outcome.retry_at - self._node.clock.now(), timedelta()))

    async def _call_followers(self, ended: Execution) -> None:
        """Let what waited for its end come at once."""
        now = self._node.clock.now()
        try:
            await self._node.journal.step(lambda connection: jobs.send_followers(connection, ended, now))
        except (SchedulerUnavailable, SQLAlchemyError) as error:
            logger.debug("the next sweep will find what follows execution {}: {}", ended.id, error)

    async def _started(
        self, execution_id: int, priority: int
    ) -> tuple[Execution, asyncio.Future[_Settled]] | None:
        """Claim it as soon as there is a lane for it; until then it is not ours, and says so."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._room.enter(execution_id, priority)
        except TimeoutError:
            raise RetryRequested(reason="every lane of this node is busy") from None
        started: tuple[Execution, asyncio.Future[_Settled]] | None = None
        self._arriving += 1
        try:
            if not self._open:
                raise RetryRequested(reason="this node is shutting down")
            if not self._node.runner.lease.is_valid:
                raise RetryRequested(timedelta(seconds=1), "the lease of this node has lapsed")
            started = await self._claimed(execution_id)
        finally:
            self._arriving -= 1
            if started is None:
                self._room.leave(execution_id)
        return started

    async def _claimed(self, execution_id: int) -> tuple[Execution, asyncio.Future[_Settled]] | None:
        """Claim it and put it on a lane; the future is done when its end is recorded. None: not for us."""
        node = self._node
        try:
            execution = await node.journal.commit(self._claim_of(execution_id))
        except SchedulerUnavailable as error:
            raise RetryRequested(timedelta(seconds=1), str(error)) from error
        if execution is None:
            await self._put_off(execution_id)
            return None
        settling = self._settling[execution_id] = asyncio.get_running_loop().create_future()
        self._pool.put([Attempt(execution, execution.attempt, node.node_id, recorded=True)])
        return execution, settling

    def _claim_of(self, execution_id: int) -> ClaimNamed:
        return ClaimNamed(execution_id, self._node.node_id, self._node.clock, flow_rules(self._node.service))

    async def _put_off(self, execution_id: int) -> None:
        """It did not start. If it is about to be due (by our clock, which is not the database's), come back then.

        Otherwise the job has nothing more to do: the execution is over, runs elsewhere, or is held up, and then it
        gets another job when it is free.
        """
        try:
            execution = await self._node.journal.step(partial(read_execution, execution_id))
        except NotFound:
            return
        ahead = execution.run_at - self._node.clock.now()
        if execution.state in WAITING_STATES and timedelta() < ahead < timedelta(seconds=_COMING_SECONDS):
            raise RetryRequested(ahead)

    def _end_run(self) -> None:
        """Let PgQueuer fetch nothing more."""
        self._stopping.set()
        if self._manager is not None:
            self._manager.shutdown.set()

    def _settle(self, execution_id: int, outcome: _Settled) -> None:
        self._room.leave(execution_id)
        settling = self._settling.get(execution_id)
        if settling is not None and not settling.done():
            settling.set_result(outcome)

    def _let_jobs_go(self) -> None:
        """Wait for no attempt any longer: it runs on, and its row will say what becomes of it."""
        for settling in self._settling.values():
            if not settling.done():
                settling.set_result(_Settled(None))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
