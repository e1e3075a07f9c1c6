"""The pgqueuer engine: PgQueuer carries executions to any number of machines.

Each waiting execution has a PgQueuer job, written in the transaction that recorded it. The statement that picks
jobs for this node's free places claims their executions too (pgqueuer_pick.py); what a limit holds up is claimed
under the lock of all claims. It runs on this node's lanes, and the job is acknowledged, or put back with a delay,
once the outcome is in the database.

PgQueuer lives on a thread and an event loop of its own. Its heartbeats are sent from that loop: on the
application's, an executor or a request that blocks for longer than the heartbeat timeout would have its job run
twice. Its `run()` ends when PostgreSQL goes away; it is started anew, on a new pool, until the node stops.
"""

from __future__ import annotations

import asyncio
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
from pgqueuer.types import JobId
from sqlalchemy.exc import SQLAlchemyError

from app.core.errors import NotFound, SchedulerUnavailable
from app.db.database import BY_KEY
from app.models.task_execution import WAITING_STATES, Execution
from app.scheduler.claims import ClaimNamed
from app.scheduler.engines import pgqueuer_jobs as jobs
from app.scheduler.engines.pgqueuer_pick import ClaimingQueries, Picked
from app.scheduler.engines.pool import AttemptPool, NodeParts
from app.scheduler.engines.ticker import Ticker
from app.scheduler.executions import read_execution
from app.scheduler.gate import flow_rules
from app.scheduler.runner import Attempt
from app.scheduler.verdict import CANCELLED
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
"""Places a lane while attempts are brief: one runs, others are being claimed, recorded and acknowledged."""
_BRIEF_SECONDS = 0.1
_LAPSED_SECONDS = 0.1
_TOO_LONG = 19
"""Digits that no id has."""
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
    """Places for executions of this node. Of one loop, but for `leave()`.

    One place a lane; while attempts are brief, a few: with long ones that would claim what another node could have
    started.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._inside: dict[int, float] = {}
        self._typical_stay = 1.0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def free(self) -> int:
        places = _AHEAD * self._lanes if self._typical_stay < _BRIEF_SECONDS else self._lanes
        return places - len(self._inside)

    async def wait(self) -> None:
        """Return when somebody leaves, or at `call_off()`. For one caller at a time."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def call_off(self) -> None:
        """Let nobody wait any longer."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def enter(self, execution_id: int) -> None:
        """Take a place."""
        self._inside[execution_id] = time.monotonic()

    def leave(self, execution_id: int) -> None:
        """Give the place up, if there is one to give up."""
        since = self._inside.pop(execution_id, None)
        if since is not None:
            self._typical_stay += (time.monotonic() - since - self._typical_stay) / 16
            self.call_off()


class _Calls:
    """Calls from other threads to a loop, which is woken once for all that come meanwhile."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._coming: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """From here on calls are made on `loop`; before, they come to nothing."""
        self._loop = loop

    def put(self, call: Callable[[], object]) -> None:
        """Have it called soon. Safe from any thread."""
        if self._loop is None:
            return
        with self._lock:
            self._coming.append(call)
            if len(self._coming) > 1:
                return
        try:
            self._loop.call_soon_threadsafe(self._make, self._loop)
        except RuntimeError:
            logger.debug("PgQueuer's loop has ended")

    def _make(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            calls, self._coming = self._coming, []
        for call in calls:
            loop.call_soon(call)  # each by itself: one that fails takes no other with it


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
        self._calls = _Calls()
        # Below: of PgQueuer's own loop.
        self._stopping = asyncio.Event()
        self._manager: QueueManager | None = None
        self._arriving = 0
        self._room = _Room(node.concurrency)
        self._settling: dict[int, asyncio.Future[_Settled]] = {}
        self._brought: dict[JobId, tuple[Execution, asyncio.Future[_Settled]]] = {}

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
        self._calls.put(self._end_run)
        # What was being claimed when we closed is on its lane in a moment; what comes later finds us closed.
        while self._arriving and self._thread is not None and self._thread.is_alive():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await self._pool.drain(grace_seconds)
        await asyncio.to_thread(self._node.journal.flush)
        self._calls.put(self._let_jobs_go)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def lose_everything(self) -> None:
        self._open = False
        self._ticker.stop()
        self._calls.put(self._end_run)
        self._pool.lose_everything()

    def lease_lapsed(self) -> None:
        self._pool.let_running_go()

    def end(self, execution_ids: Sequence[int]) -> None:
        self._pool.end(execution_ids)

    def unstarted(self, attempt: Attempt) -> None:
        self._pool.unstarted(attempt)

    def attempt_ended(self, execution_id: int) -> None:
        self._calls.put(partial(self._room.leave, execution_id))

    def settled(self, execution_id: int, retry_at: datetime | None) -> None:
        self._calls.put(partial(self._settle, execution_id, _Settled(retry_at)))

    def status(self) -> dict[str, Any]:
        return {"engine": self.name, "connected": self._manager is not None, **self._pool.status()}

    # ------------------------------------------------------------ the ticker's thread

    def run_once(self) -> None:
        """One turn of the ticker: see to executions that may start and have no job, or an old one."""
        if not self._open:
            return
        if self._pool.keep_house():
            self._pool.let_go(older_than_seconds=None)
            if self._runs and self._node.runner.lease.is_valid:
                self._pool.start_deliveries()
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
        self._calls.bind(asyncio.get_running_loop())
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
            self._dsn,
            min_size=_POOL_MIN,
            max_size=_POOL_MAX,
            timeout=_CONNECT_SECONDS,
            reset=_as_it_is,
            server_settings=BY_KEY,
        )
        try:
            queries = ClaimingQueries(
                _WatchedDriver(pool, lost.set),
                desk=self,
                node_id=self._node.node_id,
                clock=self._node.clock,
                ruled_types=lambda: sorted(flow_rules(self._node.service).types),
            )
            manager = QueueManager(queries)
            manager.entrypoint(jobs.ENTRYPOINT, accepts_context=True)(self._handle)
            self._manager = manager
            self._brought.clear()
            if not self._open:
                return
            run = asyncio.create_task(
                manager.run(
                    dequeue_timeout=timedelta(seconds=DEQUEUE_SECONDS),
                    batch_size=_AHEAD * self._node.concurrency,
                    heartbeat_timeout=self._heartbeat,
                )
            )
            watch = asyncio.create_task(lost.wait())
            await asyncio.wait({run, watch}, return_when=asyncio.FIRST_COMPLETED)
            watch.cancel()
            if not run.done():
                self._let_jobs_go()
                self._fetch_no_more(manager)
                await asyncio.wait({run}, timeout=_LONGEST_PAUSE_SECONDS)
                run.cancel()
            await asyncio.wait({run})
            if lost.is_set():
                raise ConnectionError("PostgreSQL went away")
            await run
        finally:
            self._manager = None
            pool.terminate()

    async def places(self) -> int:
        """How many executions could start here now, once one could; 0: the node or this life of PgQueuer ends, or
        its lease is in doubt."""
        manager = self._manager
        while manager is not None and self._open and not manager.shutdown.is_set():
            if not self._node.runner.lease.is_valid:
                await _wait(self._stopping, _LAPSED_SECONDS)
                return 0
            free = self._room.free
            if free > 0:
                self._arriving += 1
                return free
            await self._room.wait()
        return 0

    def bring(self, picked: Sequence[Picked]) -> None:
        """Run what has been started; what has not is seen to by its handler."""
        self._arriving -= 1
        known = self._manager.job_context if self._manager is not None else {}
        attempts = []
        for job, execution in picked:
            # PgQueuer calls no handler for a job whose last handler has not ended here.
            is_handled = job.id not in known
            if execution is not None:
                started = execution, self._expect(execution)
                attempts.append(Attempt(execution, execution.attempt, self._node.node_id, recorded=True))
                if is_handled:
                    self._brought[job.id] = started
            elif is_handled:
                self._room.enter(_execution_id(job))
        if attempts:
            self._pool.put(attempts)

    def _expect(self, execution: Execution) -> asyncio.Future[_Settled]:
        """A place for an execution that starts here, and the future that is done when its end is recorded."""
        self._room.enter(execution.id)
        settling = self._settling[execution.id] = asyncio.get_running_loop().create_future()
        return settling

    async def _handle(self, job: Job, context: Context) -> None:
        """See the execution of a job through to its recorded end."""
        started = self._brought.pop(job.id, None) or await self._started(_execution_id(job))
        if started is None:
            return
        execution, settling = started
        with context.cancellation:
            await asyncio.shield(settling)
        if context.cancellation.cancel_called and not settling.done():
            self._node.runner.stop(execution.id, CANCELLED)
        outcome = await settling
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

    async def _started(self, execution_id: int) -> tuple[Execution, asyncio.Future[_Settled]] | None:
        """Claim, within the limits, an execution that did not start when its job was picked. None: not for us."""
        node = self._node
        started: tuple[Execution, asyncio.Future[_Settled]] | None = None
        self._arriving += 1
        try:
            if not self._open:
                raise RetryRequested(reason="this node is shutting down")
            if not node.runner.lease.is_valid:
                raise RetryRequested(timedelta(seconds=1), "the lease of this node has lapsed")
            execution = await node.journal.commit(self._claim_of(execution_id))
            if execution is not None:
                started = execution, self._expect(execution)
                self._pool.put([Attempt(execution, execution.attempt, node.node_id, recorded=True)])
        except SchedulerUnavailable as error:
            raise RetryRequested(timedelta(seconds=1), str(error)) from error
        finally:
            self._arriving -= 1
            if started is None:
                self._room.leave(execution_id)
        if started is None:
            await self._put_off(execution_id)
        return started

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
            self.wake(execution.run_at)
            raise RetryRequested(ahead)

    def _end_run(self) -> None:
        """Let PgQueuer fetch nothing more."""
        self._stopping.set()
        if self._manager is not None:
            self._fetch_no_more(self._manager)

    def _fetch_no_more(self, manager: QueueManager) -> None:
        manager.shutdown.set()
        self._room.call_off()

    def _settle(self, execution_id: int, outcome: _Settled) -> None:
        self._room.leave(execution_id)
        settling = self._settling.pop(execution_id, None)
        if settling is not None and not settling.done():
            settling.set_result(outcome)

    def _let_jobs_go(self) -> None:
        """Wait for no attempt any longer: it runs on, and its row will say what becomes of it."""
        for settling in self._settling.values():
            if not settling.done():
                settling.set_result(_Settled(None))


def _execution_id(job: Job) -> int:
    """The execution that a job names; 0, which is none, where it names none."""
    payload = (job.payload or b"").decode(errors="replace")
    return int(payload) if payload.isascii() and payload.isdigit() and len(payload) < _TOO_LONG else 0


async def _as_it_is(_connection: object) -> None:
    """How a connection goes back to the pool: nothing here changes its session, and a reset is a round trip."""


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
