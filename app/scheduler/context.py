"""`current_execution()`: what a running executor can say and ask."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from loguru import logger

from app.scheduler.telemetry import UNTRACED, Tracer

if TYPE_CHECKING:
    from loguru import Message, Record

_SCHEDULER_MODULE = "app.services.scheduler_service"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One kept log line of an attempt."""

    logged_at: datetime
    level: str
    message: str


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
    tracer: Tracer = UNTRACED
    _lines: deque[LogLine] = field(default_factory=deque)
    _line_count: int = 0

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Say how far the work is: 0.0 … 1.0. Shown within a second while it runs; the last word is kept.

        Raises:
            ValueError: `fraction` is outside 0 … 1.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress must be between 0 and 1, not {fraction!r}")
        self.fraction, self.progress_message = float(fraction), message
        self.progress_changed = True

    def log(self, message: str, level: str = "INFO") -> None:
        """Log a line; it is kept with the attempt, as every loguru line of its code is."""
        logger.opt(depth=1).log(level, "{}", message)

    def keep(self, line: LogLine) -> None:
        """Keep `line` for the attempt's history, up to the limit; then one line says that no more are kept."""
        self._line_count += 1
        if self._line_count <= self.line_limit:
            self._lines.append(line)
        elif self._line_count == self.line_limit + 1 and self.line_limit:
            notice = f"… only the first {self.line_limit} log lines of an attempt are kept"
            self._lines.append(LogLine(line.logged_at, "WARNING", notice))

    def take_lines(self) -> tuple[LogLine, ...]:
        """The lines kept since the last call. Safe beside a thread that logs."""
        taken = []
        while self._lines:
            taken.append(self._lines.popleft())
        return tuple(taken)


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


def keep_log_lines(node: str, level: str) -> Callable[[], None]:
    """Keep what attempts of `node` log from `level` on; the returned function ends that.

    The lines of the scheduler itself are left out: what they say is in the attempt's own record.
    """

    def ours(record: Record) -> bool:
        execution = _current.get()
        return execution is not None and execution.node == node and record["name"] != _SCHEDULER_MODULE

    def keep(message: Message) -> None:
        execution = _current.get()
        if execution is not None:
            record = message.record
            execution.keep(LogLine(record["time"], record["level"].name, record["message"]))

    sink = logger.add(keep, level=level, filter=ours, format="{message}")

    def forget() -> None:
        with suppress(ValueError):  # somebody has removed all sinks, this one among them
            logger.remove(sink)

    return forget
