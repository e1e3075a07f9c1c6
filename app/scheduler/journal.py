"""The one writer of a process: every change of an execution goes through here, committed in groups.

Callers hand in a `Write` and are answered when it is on disk. While one group is being committed the next one
gathers, so throughput is that of batches and latency that of one commit. One writer also means that the threads
of a process never fight each other for SQLite's write lock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

from loguru import logger
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.core.errors import SchedulerUnavailable, stack_of
from app.core.language import Said, in_language
from app.db import database
from app.db.database import begin_write, plan_by_key
from app.scheduler.open_writes import OpenWrites
from app.scheduler.telemetry import UNMEASURED, Meter

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

MAX_GROUP = 1000
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_OPEN_WRITES_SECONDS = 10.0
"""How long a write waits for a Session of this process in which somebody had something recorded."""


class Write(Protocol[T_co]):
    """Something to store. Writes of one `rank` are applied together, by one call of `apply_all`."""

    rank: ClassVar[int | None]
    """Between two steps, lower ranks are applied first, whatever order they came in; None: a step by itself."""
    must_land: ClassVar[bool]
    """True: an outage delays it; False: an outage fails it, and its caller is told."""

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[Any]) -> Sequence[T_co]:
        """Store `writes` and return one outcome for each; raises if any cannot be stored."""


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """A write of its own, in its place among the others: one function in one savepoint (fire, claim, rescue)."""

    rank: ClassVar[int | None] = None
    must_land: ClassVar[bool] = False
    run: Callable[[Connection], T]

    @classmethod
    def apply_all(cls, connection: Connection, writes: Sequence[Step[T]]) -> Sequence[T]:
        return [write.run(connection) for write in writes]


@dataclass(slots=True)
class _Entry:
    write: Write[Any]
    answer: Callable[[Any, BaseException | None], None] | None
    loop: asyncio.AbstractEventLoop | None = None
    future: asyncio.Future[Any] | None = None
    outcome: Any = None
    error: BaseException | None = None
    is_stored: bool = False
    """Its fate is known already, before that of the whole group."""


class Journal:
    """Groups writes, commits them, answers. The writer thread starts with the first write.

    `before` is called with the writes of a transaction before they are applied: to lock, in one order for all
    processes, the rows that they will touch.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_group: int = MAX_GROUP,
        before: Callable[[Connection, Sequence[Write[Any]]], None] = lambda *_: None,
    ) -> None:
        self.engine = engine
        self._before = before
        self._max_group = max_group
        self._waiting: deque[_Entry] = deque()
        self._signal = threading.Condition()
        self._is_asleep = False
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        """Of the writer's thread, kept from group to group."""
        self._closing = False
        self.open_writes = OpenWrites()
        self.groups_committed = 0
        self.writes_committed = 0
        self.meter: Meter = UNMEASURED

    # ------------------------------------------------------------ hand in

    async def commit(self, write: Write[T], on_stored: Callable[[T], None] | None = None) -> T:
        """Store `write`; returns its outcome once it is durable.

        `on_stored` is called with it in the writer's thread, also if the caller has gone meanwhile.

        Raises:
            SchedulerUnavailable: the database is out of reach; nothing was stored.
            Conflict: on SQLite, the caller itself keeps the database from it.
        """
        self.open_writes.refuse_deadlock()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def answer(outcome: T, error: BaseException | None) -> None:
            if error is None and on_stored is not None:
                on_stored(outcome)

        self._put(_Entry(write, answer if on_stored else None, loop, future))
        return await future

    async def step(self, run: Callable[[Connection], T], on_stored: Callable[[T], None] | None = None) -> T:
        """Run one function in the writer's transaction, in a savepoint of its own; it raises what that raises."""
        return cast("T", await self.commit(Step(run), on_stored))

    def step_blocking(self, run: Callable[[Connection], T]) -> T:
        """The same for a thread without an event loop."""
        future: Future[T] = Future()

        def answer(outcome: T, error: BaseException | None) -> None:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(outcome)

        self._put(_Entry(Step(run), answer))
        return future.result()

    def submit(self, write: Write[T], answer: Callable[[T, BaseException | None], None] | None = None) -> None:
        """Store `write` soon; `answer(outcome, error)` is called in the writer's thread after the commit."""
        self._put(_Entry(write, answer))

    def flush(self) -> None:
        """Block until everything handed in so far has been committed, refused or kept for later."""
        with suppress(SchedulerUnavailable):
            self.step_blocking(lambda _: None)

    def close(self) -> None:
        """Commit what waits and end the writer thread. A later write starts a new one."""
        with self._signal:
            thread = self._thread
            self._closing = True
            self._signal.notify()
        if thread is not None:
            thread.join()
        with self._signal:
            self._closing = False

    def _put(self, entry: _Entry) -> None:
        # Without the lock: the writer says that it will sleep before it looks at the queue for the last time.
        self._waiting.append(entry)
        if self._thread is None or self._is_asleep:
            self._wake()

    def _wake(self) -> None:
        with self._signal:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="contenthub-journal", daemon=True)
                self._thread.start()
            else:
                self._is_asleep = False
                self._signal.notify()

    # ------------------------------------------------------------ the writer's thread

    def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        kept: list[_Entry] = []
        while True:
            group = self._next_group(kept)
            if not group:
                if self._ends():
                    return
                continue
            began = perf_counter()
            try:
                self._store(group)
            except (SQLAlchemyError, OSError) as error:
                _answer([entry for entry in group if entry.is_stored])
                left = [entry for entry in group if not entry.is_stored]
                kept = self._outage(left, error, closing=self._closing)
                threading.Event().wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                continue
            except BaseException as error:  # noqa: BLE001 - whatever it is, this thread is the only writer
                _refuse([entry for entry in group if not entry.is_stored], error)
            kept, pause = [], _FIRST_PAUSE_SECONDS
            self.groups_committed += 1
            self.writes_committed += len(group)
            self.meter.group_committed(len(group), perf_counter() - began)
            _answer(group)

    def _ends(self) -> bool:
        """Give the writer's place up, unless something has come in meanwhile."""
        self._let_go()
        with self._signal:
            self._thread = None
            if self._waiting:
                self._thread = threading.current_thread()
            return self._thread is None

    def _next_group(self, kept: list[_Entry]) -> list[_Entry]:
        with self._signal:
            while True:
                self._is_asleep = True
                if self._waiting or kept or self._closing:
                    break
                self._signal.wait()
            self._is_asleep = False
            room = max(self._max_group - len(kept), 0)
            fresh = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        return [*kept, *fresh]

    def _store(self, group: list[_Entry]) -> None:
        """Apply and commit a group. A connection that was lost while it lay idle is replaced at once."""
        was_kept = self._connection is not None
        try:
            try:
                self._apply(self._connected(), group)
            except DBAPIError as error:
                if not (was_kept and error.connection_invalidated) or any(entry.is_stored for entry in group):
                    raise
                self._let_go()
                self._apply(self._connected(), group)
            self._connected().commit()
        except (SQLAlchemyError, OSError):
            self._let_go()
            raise
        except BaseException as error:  # noqa: BLE001 - told to the caller of the write that it comes from
            self._let_go()
            self._store_after_breakage(group, error)

    def _store_after_breakage(self, group: list[_Entry], error: BaseException) -> None:
        """Something that is no answer of the database (a panic of a compiled library, no memory left) has broken a
        group, of which nothing is stored: each write again, by itself, until the culprit is alone."""
        left = [entry for entries in _in_order(group) for entry in entries if not entry.is_stored]
        if len(group) > 1:
            logger.debug("{} writes are stored one by one, because together: {!r}", len(left), error)
            for entry in left:
                self._store([entry])
                entry.is_stored = True
            return
        _refuse(left, error)

    def _apply(self, connection: Connection, group: list[_Entry]) -> None:
        """Apply a group; what is left is the commit."""
        self._begin(connection)
        try:
            self._before(connection, [entry.write for entry in group])
            for entries in _in_order(group):
                _apply_together(connection, entries)
        except Exception as error:
            if _is_deadlock(error):
                connection.rollback()
                self._store_apart(connection, group)
                return
            if _is_outage(error):
                raise
            # Savepoints around everything would cost more than this rare second try.
            logger.debug("{} writes are stored one by one, because together: {}", len(group), error)
            connection.rollback()
            begin_write(connection)
            self._before(connection, [entry.write for entry in group])
            for entries in _in_order(group):
                for entry in entries:
                    _apply_alone(connection, entry)

    def _begin(self, connection: Connection) -> None:
        """Take SQLite's write lock. For one that a caller's own Session holds we wait less long: who opened that
        Session may be waiting for us."""
        end = time.monotonic() + database.LOCK_TIMEOUT_SECONDS
        while True:
            try:
                begin_write(connection)
            except DBAPIError as error:
                if not _is_locked(error) or self.open_writes or time.monotonic() >= end:
                    raise
            else:
                return

    def _store_apart(self, connection: Connection, group: list[_Entry]) -> None:
        """Each write in a transaction of its own: two processes, whose groups waited for each other's rows, cannot
        meet again."""
        logger.debug("{} writes are stored apart: another process wanted the same rows", len(group))
        for entry in [entry for entries in _in_order(group) for entry in entries]:
            begin_write(connection)
            self._before(connection, [entry.write])
            _apply_alone(connection, entry)
            connection.commit()
            entry.is_stored = True

    def _connected(self) -> Connection:
        """The writer's connection, opened if there is none."""
        if self._connection is None:
            self._connection = self.engine.connect()
            plan_by_key(self._connection)
            if self.engine.dialect.name == "sqlite":
                patience = min(_OPEN_WRITES_SECONDS, database.LOCK_TIMEOUT_SECONDS)
                self._connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(patience * 1000)}")
        return self._connection

    def _let_go(self) -> None:
        """Close the connection: its session has settings that nobody else should find in the pool."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _outage(self, group: list[_Entry], error: Exception, *, closing: bool) -> list[_Entry]:
        """The database did not take the group: what must land is kept for later, the rest is refused."""
        kept = [entry for entry in group if entry.write.must_land and not closing]
        refused = [entry for entry in group if not entry.write.must_land or closing]
        if _is_locked(error) and self.open_writes:
            refusal = Said(
                "a Session of this process, used with enqueue(db=…) or signal(db=…), is uncommitted and holds "
                "SQLite's write lock; commit it or roll it back, and do slow work before you use it",
                "本进程中有会话用于 enqueue(db=…) 或 signal(db=…) 而尚未提交，占着 SQLite 的写锁；"
                "请提交或回滚它，慢的工作请在用它之前做",
            )
        else:
            refusal = Said(
                f"the database did not take the write; try again later: {error}",
                f"数据库没有接受写入；请稍后重试：{error}",
            )
        logger.error(
            "数据库不可用，{} 条写入待重试，{} 条被拒绝: {}", len(kept), len(refused), in_language(refusal, "zh")
        )
        for entry in refused:
            entry.error = SchedulerUnavailable(refusal)
        _answer(refused)
        for entry in kept:
            entry.error = None
        return kept


def _in_order(group: list[_Entry]) -> Iterator[list[_Entry]]:
    """The group as runs that are applied together: by rank between the steps, each step alone."""
    by_rank: dict[int, list[_Entry]] = {}
    for entry in group:
        rank = entry.write.rank
        if rank is not None:
            by_rank.setdefault(rank, []).append(entry)
            continue
        yield from (by_rank[rank] for rank in sorted(by_rank))
        by_rank = {}
        yield [entry]
    yield from (by_rank[rank] for rank in sorted(by_rank))


def _apply_together(connection: Connection, entries: list[_Entry]) -> None:
    """Apply writes of one rank in one go. A step may fail by itself; anything else fails the group."""
    if entries[0].write.rank is None:
        _apply_alone(connection, entries[0])
        return
    writes = [entry.write for entry in entries]
    for entry, outcome in zip(entries, type(writes[0]).apply_all(connection, writes), strict=True):
        entry.outcome = outcome


def _apply_alone(connection: Connection, entry: _Entry) -> None:
    """Apply one write in a savepoint of its own; what it raises is for its caller."""
    entry.error = None
    try:
        with connection.begin_nested():
            (entry.outcome,) = type(entry.write).apply_all(connection, [entry.write])
    except Exception as error:
        if _is_outage(error) or (entry.write.must_land and _passes(error)):
            raise
        entry.error = error


_OUTAGES = ("08", "25006", "40P01", "53", "57P", "58")
"""Beginnings of PostgreSQL's codes where it takes no write: connection lost, read-only since a failover, deadlock,
no room, shutdown, its machine."""
_PASSING = ("40001", "55P03", "57014")
"""Where it did not take this one just now: another was faster, or a time limit of the database or its role."""


def _is_outage(error: Exception) -> bool:
    """Whether the database, not the write, is to blame: connection lost, locked, disk full, I/O error."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated or _code_of(error).startswith(_OUTAGES):
        return True
    text = str(error.orig).lower()
    is_fault_of_its_own = text.startswith(("no such", "near "))
    return type(error.orig).__name__ in ("OperationalError", "InterfaceError") and not is_fault_of_its_own


def _passes(error: Exception) -> bool:
    """Whether the same write may well be taken a little later."""
    return isinstance(error, DBAPIError) and _code_of(error).startswith(_PASSING)


def _code_of(error: DBAPIError) -> str:
    """PostgreSQL's code for what went wrong; SQLite has none: ""."""
    code: str | None = getattr(error.orig, "sqlstate", None)
    return code or ""


def _is_locked(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and "database is locked" in str(error.orig)


def _is_deadlock(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and type(error.orig).__name__ == "DeadlockDetected"


def _refuse(entries: list[_Entry], error: BaseException) -> None:
    """Tell these that they broke the writer; as an `Exception`, for `SystemExit` and its like would end the event
    loop of whoever awaits it."""
    logger.error("写线程出错，{} 条写入被拒绝\n{}", len(entries), stack_of(error))
    told = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
    for entry in entries:
        entry.error = told


def _answer(entries: list[_Entry]) -> None:
    """Tell every caller; those on one event loop are woken by a single call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Entry]] = {}
    for entry in entries:
        if entry.answer is not None:
            try:
                entry.answer(entry.outcome, entry.error)
            except BaseException as error:  # noqa: BLE001 - one caller's fault must not stop the writer
                logger.error("answering a write failed\n{}", stack_of(error))
        if entry.loop is not None:
            by_loop.setdefault(entry.loop, []).append(entry)
    for loop, answered in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, answered)
        except RuntimeError:
            logger.debug("{} writes were stored, but the event loop that asked is closed", len(answered))


def _resolve(entries: list[_Entry]) -> None:
    for entry in entries:
        future = cast("asyncio.Future[Any]", entry.future)
        if future.done():
            continue
        if entry.error is not None:
            future.set_exception(entry.error)
        else:
            future.set_result(entry.outcome)
