"""`current_execution()`: what a running executor can say and ask."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from loguru import logger


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
    line_limit: int
    report_progress: Callable[[int, int, float, str | None], None]
    cancelled: bool = False
    """True once somebody asked for an end; blocking code looks here and returns early."""
    lines: list[LogLine] = field(default_factory=list)
    lines_dropped: int = 0

    def progress(self, fraction: float, message: str | None = None) -> None:
        """Say how far the work is: 0.0 … 1.0. Shown while it runs, not kept per change.

        Raises:
            ValueError: `fraction` is outside 0 … 1.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress must be between 0 and 1, not {fraction!r}")
        self.report_progress(self.id, self.attempt, float(fraction), message)

    def log(self, message: str, level: str = "INFO") -> None:
        """Log a line; it is kept with the attempt, as every loguru line of its code is."""
        logger.opt(depth=1).log(level, "{}", message)

    def keep(self, line: LogLine) -> None:
        """Keep `line` for the attempt's history, up to the limit; the rest is only counted."""
        if len(self.lines) < self.line_limit:
            self.lines.append(line)
        else:
            self.lines_dropped += 1


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
