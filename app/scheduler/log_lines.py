"""What attempts log is kept with them, be it said to loguru or to the standard library's `logging`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from loguru import logger

from app.core.logging import message_of
from app.scheduler.context import CurrentExecution, LogLine, find_current_execution

if TYPE_CHECKING:
    from loguru import Message, Record

_SCHEDULER_MODULE = "app.services.scheduler_service"
_HANDED_ON = "standard_logging"
"""The module that, for JSON lines, hands records of `logging` on to loguru; here they have been kept already."""
_LONGEST_LEVEL = 20


def keep_log_lines(node: str, level: str) -> Callable[[], None]:
    """Keep what attempts of `node` log from `level` on; the returned function ends that.

    The lines of the scheduler itself are left out: what they say is in the attempt's own record. Of `logging` it
    is what reaches the root logger: WARNING and above, unless a library's logger has been given another level.
    """

    def ours(record: Record) -> bool:
        return (
            _attempt_of(node) is not None
            and record["name"] != _SCHEDULER_MODULE
            and record["module"] != _HANDED_ON
        )

    def keep(message: Message) -> None:
        execution = find_current_execution()
        if execution is not None:
            record = message.record
            execution.keep(LogLine(record["time"], record["level"].name, record["message"]))

    sink = logger.add(keep, level=level, filter=ours, format="{message}")
    handler = _Keeper(node, logger.level(level).no)
    logging.getLogger().addHandler(handler)

    def forget() -> None:
        logging.getLogger().removeHandler(handler)
        with suppress(ValueError):  # somebody has removed all sinks, this one among them
            logger.remove(sink)

    return forget


class _Keeper(logging.Handler):
    def __init__(self, node: str, level: int) -> None:
        super().__init__()
        self._node = node
        self._least = level

    def emit(self, record: logging.LogRecord) -> None:
        try:
            execution = _attempt_of(self._node)
            if execution is not None and record.levelno >= self._least:
                said_at = datetime.fromtimestamp(record.created, UTC)
                execution.keep(LogLine(said_at, record.levelname[:_LONGEST_LEVEL], message_of(record)))
        except Exception:  # noqa: BLE001 - as handlers do: a wrong record is told of, and harms nobody
            self.handleError(record)
        self._print_where_nobody_does(record)

    def _print_where_nobody_does(self, record: logging.LogRecord) -> None:
        """Python itself prints warnings where the root logger has no handler, and now it has this one."""
        handlers = logging.getLogger().handlers
        last = logging.lastResort
        if (
            last is not None
            and record.levelno >= last.level
            and handlers[0] is self
            and all(isinstance(handler, _Keeper) for handler in handlers)
        ):
            last.handle(record)


def _attempt_of(node: str) -> CurrentExecution | None:
    execution = find_current_execution()
    return execution if execution is not None and execution.node == node else None
