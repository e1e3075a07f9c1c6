"""`current_execution()`: what a running executor can say and ask, and what it can do for good.

An executor whose work has parts calls them by name, `await current_execution().step("draft", write_draft, topic)`:
the result of a part that finished is stored, and an attempt after a crash, a retry or a wait of days gets it from
there instead of doing the part again.

The rules that make this work:

- An execution goes on by running its code again from the top. The code between steps must come to the same calls
  in every attempt; what may differ (the time, chance, what a table says) is asked for inside a step. Where it
  calls something else than what is stored, or succeeds without having come to all of it, the execution fails with
  reason `replay_mismatch`.
- The calls of the executor's own coroutine are stored with their order. Tasks of its own (`gather`, `TaskGroup`)
  may call steps too, in any order; there a step is known by its name alone, and a sleep should be given one.
- Names are unique in an execution, and so are the keys of children: in a loop, put the index in. A child is known
  by its key and must stay of its executor; its params are those it was spawned with first, and are not compared.
- What is written through `db` belongs to the step that wrote it and is committed with it, in one transaction,
  once. Writes from before a step, outside of all, are refused; those behind the last one belong to the success, as
  ever.
- A step that writes through `db` does so while no other step runs, and leaves the commit to its end: what breaks
  this is refused, and no step is stored whose writes are gone.
- A wait that lost a race against another must be cancelled (`asyncio.wait()` does not): left running, it suspends
  the attempt, cuts off what the winner's code does outside steps, and goes on when its own time has come.
- A step that raises is not stored. If its failure decides what comes next, catch it inside and return that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, Unpack, overload

from loguru import logger

from app.core.errors import InvalidRequest
from app.core.jsonable import shortened
from app.core.redaction import redact_text
from app.scheduler.telemetry import UNTRACED, Tracer

if TYPE_CHECKING:
    # Not at run time: the command line imports this module, and must not open the database before it has read its
    # own options into the settings.
    from app.models.task_execution import Execution
    from app.scheduler.rates import RateLimit
    from app.services.scheduler_service import TaskExecutionResult

T = TypeVar("T")

_LONGEST_LINE = 16_000
_LONGEST_PROGRESS = 1_000


@dataclass(frozen=True, slots=True)
class LogLine:
    """One kept log line of an attempt."""

    logged_at: datetime
    level: str
    message: str


class ExecutionSuspended(asyncio.CancelledError):
    """Unwinds an attempt that ends by waiting. A cancellation, so that `except Exception` lets it pass; code that
    catches it to clean up raises it again."""


class ChildOptions(TypedDict, total=False):
    """How a child runs; each as in `enqueue()`."""

    run_at: datetime | None
    priority: int
    max_attempts: int | None
    timeout_seconds: float | None
    concurrency_key: str | None
    concurrency_limit: int | None
    rate_limit: RateLimit | None
    rate_limit_key: str | None
    triggered_by: str | None


class Durable(Protocol):
    """The durable half of an attempt; `app.scheduler.durable.DurableAttempt` is it."""

    async def step(
        self,
        name: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        retries: int,
    ) -> Any: ...
    async def sleep_until(self, moment: datetime, name: str | None) -> None: ...
    async def wait_for_signal(self, name: str, timeout: timedelta | None) -> Any: ...
    async def spawn(self, key: str, task_type: str, params: dict[str, Any], options: Mapping[str, Any]) -> int: ...
    def children(self) -> dict[str, Execution]: ...
    async def wait_for_children(self, ended: int | None) -> None: ...
    async def call(
        self, key: str, task_type: str, params: dict[str, Any], options: Mapping[str, Any]
    ) -> TaskExecutionResult: ...
    async def look_back(self) -> None: ...


@dataclass(slots=True, eq=False)
class CurrentExecution:
    """The attempt that runs here: its identity, and a way to speak."""

    id: int
    task_id: int | None
    task_type: str
    attempt: int
    scheduled_for: datetime | None
    params: dict[str, Any]
    node: str
    line_limit: int
    cancelled: bool = False
    """True once somebody asked for an end; blocking code looks here and returns early."""
    fraction: float | None = None
    progress_message: str | None = None
    progress_changed: bool = False
    now: Callable[[], datetime] | None = None
    open_durable: Callable[[], Durable] | None = None
    """Makes the durable half at its first use; most executions never do."""
    _durable: Durable | None = None
    tracer: Tracer = UNTRACED
    _lines: deque[LogLine] = field(default_factory=deque)
    _line_count: int = 0

    # ------------------------------------------------------------ for good

    @overload
    async def step(
        self, name: str, fn: Callable[..., Awaitable[T]], /, *args: Any, retries: int = 0, **kwargs: Any
    ) -> T: ...
    @overload
    async def step(self, name: str, fn: Callable[..., T], /, *args: Any, retries: int = 0, **kwargs: Any) -> T: ...
    async def step(self, name: str, fn: Callable[..., Any], /, *args: Any, retries: int = 0, **kwargs: Any) -> Any:
        """Call `fn(*args, **kwargs)` once in the life of this execution and return its result, as JSON.

        The result is on disk when this returns; from then on the stored one is returned and `fn` not called again.
        What `fn` writes through `db` is committed together with it. Where `fn` raises, nothing is stored and its
        writes are rolled back; it is tried again in place up to `retries` times, after about 2, 4, 8 … seconds,
        and then the error is raised.

        Raises:
            InvalidRequest: the name was used already, or the result is no JSON or has more than 16 MiB of it.
            ReplayMismatch: see the rules in this module.
        """
        return await self._for_good().step(name, fn, args, kwargs, retries=retries)

    async def sleep(self, duration: float | timedelta, name: str | None = None) -> None:
        """Suspend the execution for `duration` (seconds): no thread, no memory, no lane. Any node goes on with it.

        What was written through `db` outside steps is gone then. The seconds count from the first attempt that
        came here.
        """
        await self.sleep_until(self._now() + _span("duration", duration), name)

    async def sleep_until(self, moment: datetime, name: str | None = None) -> None:
        """The same, until `moment` (aware)."""
        if getattr(moment, "tzinfo", None) is None:
            raise InvalidRequest.of("moment", f"sleep until a datetime with a time zone, not {moment!r}")
        await self._for_good().sleep_until(moment, name)

    async def wait_for_signal(self, name: str, timeout: float | timedelta | None = None) -> Any:
        """Suspend the execution until somebody signals `name` to it, and return the payload.

        Signals wait too: one that came before is taken at once. Each is taken by one wait, in their order.

        Raises:
            SignalTimeout (a TimeoutError): none came within `timeout` seconds; that is stored as well.
        """
        limit = _span("timeout", timeout) if timeout is not None else None
        return await self._for_good().wait_for_signal(name, limit)

    async def spawn(
        self, key: str, task_type: str, params: dict[str, Any] | None = None, **options: Unpack[ChildOptions]
    ) -> int:
        """Record a child execution and return its id; once in the life of this execution for each `key`.

        Children run on their own, also when this one ends; who cancels it cancels them.

        Raises:
            ExecutorNotFound, InvalidParameters, InvalidRequest: refused, nothing stored.
            ReplayMismatch: the child under that key is of another executor.
        """
        return await self._for_good().spawn(key, task_type, {} if params is None else params, options)

    def children(self) -> dict[str, Execution]:
        """The children by key, as they are now, in the order they were spawned."""
        return self._for_good().children()

    async def wait_for_children(self, ended: int | None = None) -> None:
        """Suspend the execution until at least `ended` of its children are over, however; None: all of them."""
        await self._for_good().wait_for_children(ended)

    async def call(
        self, key: str, task_type: str, params: dict[str, Any] | None = None, **options: Unpack[ChildOptions]
    ) -> TaskExecutionResult:
        """`spawn()`, wait for that child, and return its result; a failure is a result too.

        Once the code has gone on from a failure to another call, that is what this returns in every attempt, and a
        retry by hand leaves the child as it is. Otherwise a retry runs the child again.
        """
        return await self._for_good().call(key, task_type, {} if params is None else params, options)

    def _for_good(self) -> Durable:
        if self._durable is None:
            if self.open_durable is None:
                raise InvalidRequest.of("execution", "this came after its attempt had ended; await what you start")
            self._durable = self.open_durable()
        return self._durable

    def _now(self) -> datetime:
        if self.now is None:
            raise LookupError("this execution has no clock")
        return self.now()

    # ------------------------------------------------------------ for the moment

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Say how far the work is: 0.0 … 1.0. Shown within a second while it runs; the last word is kept.

        Raises:
            ValueError: `fraction` is outside 0 … 1.
        """
        try:
            part = float(fraction)
        except (TypeError, ValueError):
            part = -1.0
        if not 0 <= part <= 1:
            raise ValueError(f"progress must be a number between 0 and 1, not {fraction!r}")
        self.fraction = part
        self.progress_message = message and shortened(redact_text(str(message), self.params), _LONGEST_PROGRESS)
        self.progress_changed = True

    def log(self, message: str, level: str = "INFO") -> None:
        """Log a line; it is kept with the attempt, as every loguru line of its code is."""
        logger.opt(depth=1).log(level, "{}", redact_text(str(message), self.params))

    def keep(self, line: LogLine) -> None:
        """Keep `line`, without secrets of the params and not more than `_LONGEST_LINE` characters of it, for the
        attempt's history, up to the limit; then one line says that no more are kept."""
        self._line_count += 1
        if self._line_count <= self.line_limit:
            said = shortened(redact_text(line.message, self.params), _LONGEST_LINE)
            self._lines.append(replace(line, message=said))
        elif self._line_count == self.line_limit + 1 and self.line_limit:
            notice = f"… only the first {self.line_limit} log lines of an attempt are kept"
            self._lines.append(LogLine(line.logged_at, "WARNING", notice))

    def take_lines(self) -> tuple[LogLine, ...]:
        """The lines kept since the last call. Safe beside a thread that logs."""
        taken = []
        while self._lines:
            taken.append(self._lines.popleft())
        return tuple(taken)


def _span(field_name: str, seconds: float | timedelta) -> timedelta:
    try:
        span = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
    except (TypeError, ValueError, OverflowError):
        span = None
    if span is None or not timedelta() <= span <= _LONGEST:
        raise InvalidRequest.of(
            field_name,
            f"{field_name} must be seconds or a timedelta, at most {_LONGEST.days} days, not {seconds!r}",
        )
    return span


_LONGEST = timedelta(days=365 * 1000)

_current: ContextVar[CurrentExecution | None] = ContextVar("current_execution", default=None)


def find_current_execution() -> CurrentExecution | None:
    """The execution this code runs in, or None (`execute_task()` called by hand has none)."""
    return _current.get()


def current_execution() -> CurrentExecution:
    """The execution this code runs in.

    Raises:
        LookupError: it runs in none.
    """
    execution = _current.get()
    if execution is None:
        raise LookupError("no execution runs here: current_execution() is for code called by an executor")
    return execution


def enter_execution(execution: CurrentExecution) -> None:
    """Make `execution` the current one for the rest of this context (the runner's task)."""
    _current.set(execution)
