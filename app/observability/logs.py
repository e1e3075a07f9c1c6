"""Log records that say which attempt they belong to, and JSON lines for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from loguru import logger

from app.core.jsonable import safe_text, text_of, to_plain_json
from app.core.logging import configure_logging
from app.observability.standard_logging import capture
from app.scheduler.context import find_current_execution

if TYPE_CHECKING:
    from loguru import Message, Record


def configure_logs(
    level: str, log_format: Literal["console", "json"], trace_ids: Callable[[], Mapping[str, str]] = dict
) -> None:
    """Send log records of `level` and above to stderr: in the seed's format, or a JSON object a line.

    Each record says which attempt wrote it, and in which trace and span (`trace_ids`), if in any.
    """

    def name_origin(record: Record) -> None:
        record["extra"].update(trace_ids())
        name_attempt(record)

    logger.configure(patcher=name_origin)
    if log_format == "console":
        configure_logging(level)
        return
    capture()  # a reader of JSON lines can do nothing with lines that are none
    logger.remove()
    # `diagnose` would print the values of variables, secrets among them.
    logger.add(_write_json, level=level, format="{message}", backtrace=False, diagnose=False)


def name_attempt(record: Record) -> None:
    """Add to `extra` which attempt wrote the record; outside of attempts, nothing."""
    execution = find_current_execution()
    if execution is not None:
        record["extra"].update(
            execution_id=execution.id,
            attempt=execution.attempt,
            task_id=execution.task_id,
            task_type=execution.task_type,
        )


def json_line(message: Message) -> str:
    """One record as one line. The keys of `extra` are beside the others and never hide them."""
    record = message.record
    fields: dict[str, Any] = {
        **record["extra"],
        "time": record["time"].isoformat(),
        "level": record["level"].name,
        "logger": record["name"],
        "message": record["message"],
    }
    if record["exception"] is not None:
        # What loguru has formatted is the message, then the traceback.
        fields["exception"] = str(message).removeprefix(record["message"]).strip("\n")
    try:
        line = _written(fields)
    except Exception:  # noqa: BLE001 - whatever was bound: keys that are no text, NaN, what contains itself
        line = _written({name: _plain(value) for name, value in fields.items()})
    return safe_text(line)


def _written(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, default=text_of)


def _plain(value: Any) -> Any:
    """`value` as JSON, or as text where it has no such form."""
    try:
        return to_plain_json(value)
    except Exception:  # noqa: BLE001 - the same; a line that says less is better than none
        return text_of(value)


def _write_json(message: Message) -> None:
    sys.stderr.write(json_line(message) + "\n")
