"""The durable half of `current_execution()`: steps, sleeps, signals and children of one attempt.

An execution goes on by running its code again from the top. What it has stored is not done again: a step returns
its stored result, a wait that has ended returns at once. So the code between steps must come to the same calls
each time; where it does not, `ReplayMismatch` says so.

A wait ends the attempt: `ExecutionSuspended`, a cancellation, unwinds the executor, and the runner records what it
waits for. Whatever other tasks of the attempt do in steps is let finish first, so that it is done only once.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar

from loguru import logger
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.core.clock import Clock
from app.core.errors import ExecutorNotFound, InvalidRequest, ReplayMismatch, SignalTimeout
from app.core.jsonable import LARGEST_RESULT, to_plain_json
from app.core.redaction import redact_text
from app.models.execution_step import StepKind
from app.models.task_execution import Execution
from app.scheduler.attempt_session import has_writes, roll_back
from app.scheduler.attempts import StartAttempt, hold
from app.scheduler.children import children_of
from app.scheduler.context import ExecutionSuspended, current_execution
from app.scheduler.family import count_children
from app.scheduler.journal import Journal
from app.scheduler.outcome import outcome_of
from app.scheduler.policies import RetryPolicy, backoff_seconds
from app.scheduler.step_writes import StepWrites, running_step
from app.scheduler.steps import (
    Fence,
    RecordStep,
    StepRow,
    Suspension,
    TakeSignal,
    call_name,
    is_call,
    store_steps,
    stored_steps,
    wait_name,
)
from app.services.scheduler_service import TaskExecutionResult, describe_error

T = TypeVar("T")

_QUIET_ROUNDS = 10
"""Turns of the event loop without a call here, after which nothing is on its way that could be stored first."""
_BACKOFF = RetryPolicy()
_REMEDY = "put the code back as it was and retry, or begin a new execution"


class Spawn(Protocol):
    """Records a child under its parent's fence, and lets it start; None: the fence refused it."""

    async def __call__(
        self, parent: Fence, key: str, task_type: str, params: dict[str, Any], options: Mapping[str, Any]
    ) -> Execution | None: ...


@dataclass(frozen=True, slots=True)
class DurableParts:
    """What every attempt of a node shares."""

    sessions: sessionmaker[Session]
    journal: Journal
    clock: Clock
    uniform: Callable[[], float]
    spawn: Spawn


@dataclass(slots=True)
class _Past:
    """What earlier attempts have stored."""

    by_name: dict[tuple[StepKind, str], StepRow] = field(default_factory=dict)
    by_position: dict[int, StepRow] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: list[StepRow]) -> _Past:
        return cls(
            {(row.kind, row.name): row for row in rows},
            {row.position: row for row in rows if row.position is not None},
        )


class DurableAttempt:
    """See the module. Of the attempt's own event loop.

    `task` is the attempt's, `blocks`: it may block its thread. `fenced()` is called when the attempt has been
    taken over, `start_stored()` when a step stored the attempt's start before the journal did.
    """

    def __init__(
        self,
        parts: DurableParts,
        start: StartAttempt,
        session: Session,
        task: asyncio.Task[Any],
        *,
        blocks: bool,
        fenced: Callable[[], object],
        start_stored: Callable[[], object],
    ) -> None:
        self._parts = parts
        self._start = start
        self._fence = Fence(start.execution_id, start.owner, start.attempt)
        self._session = session
        self._task = task
        self._blocks = blocks
        self._fenced = fenced
        self._start_stored = start_stored
        self.suspension: Suspension | None = None
        """Set once the attempt ends by suspending."""
        self.mismatch: ReplayMismatch | None = None
        """Set once its code has left the way that is stored."""
        self.is_over = False
        self._past: _Past | None = None
        self._reading = asyncio.Lock()
        self._known_children: dict[str, Execution] | None = None
        """Those there were when they were read, and those spawned since."""
        self._unstored: list[StepRow] = []
        self._answers: list[tuple[asyncio.Task[Any] | None, StepRow]] = []
        """What calls of failed children returned, and to which task; not stored before the code has gone on."""
        self._reached: set[tuple[StepKind, str]] = set()
        self._reached_children: set[str] = set()
        self._positions = itertools.count()
        self._sleeps = itertools.count(1)
        self._waits_for: dict[str, int] = {}
        self._calls = 0
        self._working = 0
        self._writes = StepWrites(session)
        self._idle = asyncio.Event()
        self._parked: dict[object, StepRow | int] = {}
        """What is waited for now: rows, or how many children must be over."""

    # ------------------------------------------------------------ steps

    async def step(
        self,
        name: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        retries: int,
    ) -> Any:
        if retries not in range(101):
            raise InvalidRequest.of("retries", f"retries must be a whole number from 0 to 100, not {retries!r}")
        with self._at_work():
            row = await self._reach(StepKind.STEP, _checked_name("name", name))
            if row.finished_at is None:
                with current_execution().tracer.step(name):
                    row = await self._perform(row, fn, args, kwargs, retries)
        return row.result

    async def _perform(
        self, row: StepRow, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], retries: int
    ) -> StepRow:
        """Call `fn`, at most `retries` times again where it raises, and store what it returned."""
        failures = 0
        while True:
            has_returned = False
            try:
                async with self._writes.of(row.name) as step:
                    value = fn(*args, **kwargs)
                    if inspect.isawaitable(value):
                        value = await value
                    has_writes = self._writes.are_there(step)
                    has_returned = True
                    row = self._finished(row, value)
                    if has_writes:
                        with self._writes.storing():
                            await self._off_loop(partial(self._commit, row))
                        return row
            except Exception as error:
                failures += 1
                if has_returned or failures > retries or self.mismatch is not None:
                    raise
                delay = backoff_seconds(_BACKOFF, failures, self._parts.uniform())
                said = redact_text(describe_error(error), current_execution().params)
                logger.warning("步骤 {} 失败，{:.1f} 秒后重试: {}", row.name, delay, said)
                await asyncio.sleep(delay)
            else:
                await self._record(row)
                return row

    def _finished(self, row: StepRow, value: Any) -> StepRow:
        try:
            result = to_plain_json(value, at_most=LARGEST_RESULT)
        except ValueError as error:
            raise InvalidRequest.of(
                "result",
                f"step {row.name!r} must return JSON (texts, numbers, lists, objects with text keys), because its "
                f"result is stored: {error}",
            ) from None
        return replace(row, attempt=self._fence.attempt, finished_at=self._parts.clock.now(), result=result)

    def _commit(self, row: StepRow) -> None:
        """Commit what the step wrote together with the step, under the fence. Blocks."""
        connection = self._session.connection()
        self._start_stored()
        if not hold(connection, self._start):
            roll_back(self._session)
            self._lose()
        store_steps(connection, [(self._fence.execution_id, step) for step in (*self._unstored, row)])
        self._session.commit()
        self._unstored.clear()

    async def _record(self, row: StepRow) -> None:
        if not await self._parts.journal.commit(RecordStep(self._fence, (*self.take_unstored(), row))):
            self._lose()

    def take_unstored(self) -> tuple[StepRow, ...]:
        """Sleeps that are over and answers that were acted on, to be stored with whatever is stored next: should
        that be lost, they are as they were."""
        ended, self._unstored = tuple(self._unstored), []
        return ended

    # ------------------------------------------------------------ sleeps and signals

    async def sleep_until(self, moment: datetime, name: str | None) -> None:
        with self._at_work():
            name = f"sleep {next(self._sleeps)}" if name is None else _checked_name("name", name)
            row = await self._reach(StepKind.SLEEP, name, due_at=moment)
            if row.finished_at is not None:
                return
            now = self._parts.clock.now()
            if row.due_at is None or row.due_at <= now:
                self._unstored.append(replace(row, attempt=self._fence.attempt, finished_at=now))
                return
        await self._park(row)

    async def wait_for_signal(self, name: str, timeout: timedelta | None) -> Any:
        with self._at_work():
            if "#" in _checked_name("name", name):
                raise InvalidRequest.of("name", f"a signal's name has no '#' in it: {name!r}")
            number = self._waits_for[name] = self._waits_for.get(name, 0) + 1
            now = self._parts.clock.now()
            due_at = _later(now, timeout) if timeout is not None else None
            row = await self._reach(StepKind.SIGNAL, wait_name(name, number), due_at=due_at, now=now)
            if row.finished_at is None:
                taken = await self._parts.journal.commit(TakeSignal(self._fence, row, now))
                if taken is None:
                    self._lose()
                row = taken
        if row.finished_at is None:
            await self._park(row)
        if "payload" not in row.result:
            waited = (row.due_at - row.started_at).total_seconds() if row.due_at is not None else 0.0
            raise SignalTimeout(name, waited)
        return row.result["payload"]

    # ------------------------------------------------------------ children

    async def spawn(self, key: str, task_type: str, params: dict[str, Any], options: Mapping[str, Any]) -> int:
        with self._at_work():
            _checked_name("key", key)
            self._admit("spawn", key)
            if key in self._reached_children:
                raise InvalidRequest.of(
                    "key",
                    f"child {key!r} is there already in this execution; in a loop put the index into the key",
                )
            self._reached_children.add(key)
            if self._known_children is None:
                self._known_children = await self._off_loop(self._read_children) if self._fence.attempt > 1 else {}
            child = self._known_children.get(key)
            if child is None:
                self._go_on(is_new=True)
                try:
                    child = await self._parts.spawn(self._fence, key, task_type, params, options)
                except (InvalidRequest, ExecutorNotFound):
                    self._reached_children.remove(key)  # nothing is stored: it may be asked for in another way
                    raise
                if child is None:
                    self._lose()
                self._known_children[key] = child
            if child.task_type != task_type:
                self.mismatch = ReplayMismatch(
                    f"child {key!r} of this execution is stored as {child.task_type!r}, and now its code asked "
                    f"for {task_type!r}; {_REMEDY}"
                )
                raise self.mismatch
        return child.id

    def children(self) -> dict[str, Execution]:
        self._known_children = self._read_children()
        return dict(self._known_children)

    async def wait_for_children(self, ended: int | None) -> None:
        with self._at_work():
            self._admit("wait_for_children", "")
            spawned, have_ended = await self._off_loop(self._count_children)
            wanted = spawned if ended is None else ended
            if wanted not in range(spawned + 1):
                raise InvalidRequest.of(
                    "ended", f"{wanted!r} of {spawned} children can never have ended; spawn them first"
                )
            if have_ended >= wanted:
                return
        await self._park(wanted)

    async def call(
        self, key: str, task_type: str, params: dict[str, Any], options: Mapping[str, Any]
    ) -> TaskExecutionResult:
        await self.spawn(key, task_type, params, options)
        name = call_name(key)
        with self._at_work():
            kept = (await self._stored()).by_name.get((StepKind.STEP, name))
        if kept is not None:
            return TaskExecutionResult(**kept.result)
        child, ended = await self._look_up(key)
        if not child.is_final:
            await self._park(ended + 1)
        result = outcome_of(child)
        if not result.success:  # a success stays one; this a retry could change
            now = self._parts.clock.now()
            row = StepRow(
                StepKind.STEP,
                name,
                None,
                self._fence.attempt,
                child.created_at,
                finished_at=now,
                result=result.to_dict(),
            )
            self._answers.append((asyncio.current_task(), row))
        return result

    def _go_on(self, *, is_new: bool) -> None:
        """The code has come to a call. What earlier ones of its task returned is kept: it may have decided by it.

        Others' tasks may run beside this one and have said nothing yet. But what the executor's own coroutine does
        for the first time, it does after those that are over.
        """
        task = asyncio.current_task()
        is_last = is_new and task is self._task
        for answered, row in list(self._answers):
            if answered is task or (is_last and (answered is None or answered.done())):
                self._answers.remove((answered, row))
                self._unstored.append(row)

    def _read_children(self) -> dict[str, Execution]:
        with self._parts.sessions() as session:
            found = children_of(session.connection(), self._fence.execution_id)
        return {child.child_key: child for child in found if child.child_key is not None}

    def _count_children(self) -> tuple[int, int]:
        with self._parts.sessions() as session:
            return count_children(session.connection(), self._fence.execution_id)

    async def _look_up(self, key: str) -> tuple[Execution, int]:
        """The child under `key`, and how many children were over before it was read."""
        with self._at_work():
            return await self._off_loop(partial(self._read_child, key))

    def _read_child(self, key: str) -> tuple[Execution, int]:
        with self._parts.sessions() as session:
            _, ended = count_children(session.connection(), self._fence.execution_id)
            (child,) = children_of(session.connection(), self._fence.execution_id, key)
        return child, ended

    # ------------------------------------------------------------ replay

    async def _reach(
        self, kind: StepKind, name: str, *, due_at: datetime | None = None, now: datetime | None = None
    ) -> StepRow:
        """The row of a call: as stored by an earlier attempt, or a new one."""
        self._admit(kind.value, name)
        if (kind, name) in self._reached:
            raise InvalidRequest.of(
                "name",
                f"{kind.value} {name!r} is there already in this execution; in a loop put the index into the name",
            )
        self._reached.add((kind, name))
        position = next(self._positions) if asyncio.current_task() is self._task else None
        past = await self._stored()
        stored = past.by_name.get((kind, name))
        expected = past.by_position.get(position) if position is not None else None
        if stored is None and expected is None:
            self._go_on(is_new=True)
            began = now or self._parts.clock.now()
            return StepRow(kind, name, position, self._fence.attempt, began, due_at=due_at)
        if stored is not None and stored.position == position:
            return stored
        self.mismatch = _mismatch(StepRow(kind, name, position, 0, self._parts.clock.now()), stored, expected)
        raise self.mismatch

    async def look_back(self) -> None:
        """The attempt has succeeded: did it come by all that is stored? Else `mismatch` says what it left out.

        Not looked for are children, which may be decided upon anew, and waits of tasks of its own: a task that
        watches for a signal may be called off before it has begun to.
        """
        if self.suspension is not None or self.mismatch is not None:
            return
        try:
            past = await self._stored()
        except SQLAlchemyError as error:  # what was done counts more than what could be said against it
            logger.warning("执行 {} 已保存的步骤无法核对: {}", self._fence.execution_id, describe_error(error))
            return
        for _ in range(_QUIET_ROUNDS):
            if self._missed(past) is None:
                return
            await asyncio.sleep(0)  # a task that nobody awaited has not had its turn yet
        missed = self._missed(past)
        if missed is None:
            return
        self.mismatch = ReplayMismatch(
            f"{missed.kind.value} {missed.name!r} is stored as {_place(missed)} of this execution, and now its "
            f"code ended without it; {_REMEDY}"
        )

    def _missed(self, past: _Past) -> StepRow | None:
        for call, row in past.by_name.items():
            is_looked_for = row.position is not None or (row.kind is StepKind.STEP and not is_call(row.name))
            if is_looked_for and call not in self._reached:
                return row
        return None

    async def _stored(self) -> _Past:
        if self._past is None:
            async with self._reading:
                if self._past is None:
                    self._past = _Past.of(await self._off_loop(self._read_past))
        return self._past

    def _read_past(self) -> list[StepRow]:
        if self._fence.attempt == 1:
            return []
        with self._parts.sessions() as session:
            return stored_steps(session.connection(), self._fence.execution_id)

    # ------------------------------------------------------------ suspension

    async def _park(self, what: StepRow | int) -> NoReturn:
        """End the attempt here, as soon as no other task of it is in the middle of a step."""
        key = object()
        self._parked[key] = what
        try:
            await self._until_quiet()
            if self.suspension is None:
                self.suspension = Suspension(
                    tuple(row for row in self._parked.values() if isinstance(row, StepRow)),
                    min((count for count in self._parked.values() if isinstance(count, int)), default=None),
                )
        finally:
            del self._parked[key]
        if asyncio.current_task() is not self._task:
            # A TaskGroup would take a cancelled child for one that is done.
            self._task.cancel()
        raise ExecutionSuspended("this attempt ends here; its execution goes on when what it waits for has come")

    async def _until_quiet(self) -> None:
        rounds = 0
        while rounds < _QUIET_ROUNDS and self.suspension is None:
            if self._working:
                self._idle.clear()
                await self._idle.wait()
                rounds = 0
                continue
            calls = self._calls
            await asyncio.sleep(0)
            rounds = rounds + 1 if calls == self._calls and not self._working else 0

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        self._working += 1
        self._calls += 1
        try:
            yield
        finally:
            self._working -= 1
            if not self._working:
                self._idle.set()

    # ------------------------------------------------------------ small things

    def _admit(self, what: str, name: str) -> None:
        """Whether this call may be made, here and now."""
        called = f"{what} {name!r}".removesuffix(" ''")
        if self.is_over:
            raise InvalidRequest.of(
                "execution", f"{called} came after its attempt had ended; await what you start"
            )
        if self.suspension is not None:
            raise ExecutionSuspended("this attempt has been suspended")
        if self.mismatch is not None:
            raise self.mismatch
        outer = running_step.get()
        if outer is not None:
            raise InvalidRequest.of("name", f"{called} is inside step {outer.name!r}; steps do not nest")
        if self._writes.is_idle and has_writes(self._session):
            roll_back(self._session)
            raise InvalidRequest.of(
                "db",
                f"db has writes from before {called} that belong to no step: the next attempt would make them "
                "again; put them into a step, or behind the last one",
            )
        self._go_on(is_new=False)

    def _lose(self) -> NoReturn:
        """Another node has taken over: this attempt has nothing more to say."""
        self._fenced()
        raise asyncio.CancelledError("another node has taken over")

    async def _off_loop(self, work: Callable[[], T]) -> T:
        """Do it here where a blocked thread harms nobody, else on another thread, to its end."""
        if self._blocks:
            return work()
        return await _to_its_end(asyncio.to_thread(work))


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` even when cancelled meanwhile, and pass the cancellation on afterwards: the Session must not be
    rolled back by one thread while another commits it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _mismatch(called: StepRow, stored: StepRow | None, expected: StepRow | None) -> ReplayMismatch:
    """`called` is `stored` at another place, or `expected` is stored at its place."""
    if expected is not None:
        sentence = (
            f"{_place(expected)} of this execution is stored as {expected.kind.value} {expected.name!r}, "
            f"and now its code called {called.kind.value} {called.name!r} there"
        )
    else:
        sentence = (
            f"{called.kind.value} {called.name!r} is stored as {_place(stored)} of this execution, "
            f"and now its code made it as {_place(called)}"
        )
    return ReplayMismatch(f"{sentence}; {_REMEDY}")


def _place(row: StepRow | None) -> str:
    return "the call of a task" if row is None or row.position is None else f"call {row.position}"


def _checked_name(field_name: str, name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
        raise InvalidRequest.of(
            field_name, f"{field_name} must be a text of 1 to 200 printable characters, not {name!r}"
        )
    return name


def _later(now: datetime, span: timedelta) -> datetime:
    try:
        return now + span
    except OverflowError:
        raise InvalidRequest.of("timeout", f"{span} from now is beyond the calendar") from None
